"""A connection kept by one task through a block."""

from __future__ import annotations

import psycopg2
import pytest

import greenpg
from greenpg.backend import current
from greenpg_conformance.toolkit.internals import waiting_tasks
from tests.db.conftest import until


def one(conn, number):
    cur = conn.cursor()
    cur.execute("select %s from pg_sleep(0.002)", (number,))
    return cur.fetchone()[0]


class Holder:
    """A task that keeps the connection until it is released."""

    def __init__(self, conn, spawn):
        self.conn = conn
        self.go = current().event()
        self.holding = current().event()
        self.job = spawn(self._hold)
        assert self.holding.wait(5)

    def _hold(self):
        with self.conn.exclusive():
            self.holding.set()
            assert self.go.wait(10)

    def end(self):
        self.go.set()
        self.job.result()


@pytest.fixture
def holder(conn, spawn):
    made = Holder(conn, spawn)
    yield made
    made.go.set()


def waiting(conn, count):
    """Let tasks run until `count` of them wait for the connection."""
    until(lambda: waiting_tasks(conn) == count, f"{count} tasks wait for the lock")


def test_other_tasks_wait_until_the_block_ends(conn, spawn):
    log = []

    def other():
        one(conn, 0)
        log.append("other")

    with conn.exclusive():
        job = spawn(other)
        waiting(conn, 1)
        log.extend(one(conn, number) for number in range(3))
    job.result()

    assert log == [0, 1, 2, "other"]


def test_block_is_re_entrant(conn, spawn):
    with conn.exclusive(), conn.exclusive():
        with conn.exclusive():
            one(conn, 1)
        job = spawn(one, conn, 2)
        waiting(conn, 1)

    assert job.result() == 2


def test_connection_lock_is_the_same_thing(conn, spawn):
    lock = greenpg.ConnectionLock(conn)

    with lock as entered, conn.exclusive():
        free = spawn(lock.locked).result()
        job = spawn(one, conn, 3)
        waiting(conn, 1)

    assert entered is lock
    assert free is True
    assert job.result() == 3
    assert not lock.locked()


def test_waiters_are_served_in_order(conn, spawn, holder):
    order = []

    def queue(number):
        with conn.exclusive():
            order.append(number)
            one(conn, number)

    jobs = []
    for number in range(8):
        jobs.append(spawn(queue, number))
        waiting(conn, number + 1)
    holder.end()
    for job in jobs:
        job.result()

    assert order == list(range(8))


def test_operations_and_blocks_queue_in_one_order(conn, spawn, holder):
    order = []

    def operation(number):
        one(conn, number)
        order.append(number)

    def block(number):
        with conn.exclusive():
            one(conn, number)
            order.append(number)

    jobs = []
    for number, kind in enumerate([operation, block, operation, block]):
        jobs.append(spawn(kind, number))
        waiting(conn, number + 1)
    holder.end()
    for job in jobs:
        job.result()

    assert order == [0, 1, 2, 3]


def test_error_in_the_block_ends_it(conn, spawn):
    with pytest.raises(LookupError), conn.exclusive():
        raise LookupError

    assert spawn(one, conn, 1).result() == 1


def test_failed_statement_in_the_block_keeps_it(db, conn, spawn):
    with conn.exclusive():
        with pytest.raises(db.errors.DivisionByZero):
            conn.cursor().execute("select 1/0")
        job = spawn(one, conn, 1)
        waiting(conn, 1)
        conn.rollback()
        mine = one(conn, 2)

    assert mine == 2
    assert job.result() == 1


def test_acquire_gives_up_after_its_timeout(conn, spawn, holder):
    lock = greenpg.ConnectionLock(conn)

    with pytest.raises(greenpg.DeadlineExceeded, match="waiting for the connection"):
        lock.acquire(timeout=0.02)
    left = waiting_tasks(conn)
    holder.end()
    lock.acquire(timeout=5)
    lock.release()

    assert left == 0
    assert one(conn, 1) == 1


def test_only_the_holder_may_release(conn, spawn, holder):
    lock = greenpg.ConnectionLock(conn)

    with pytest.raises(RuntimeError, match="does not hold"):
        lock.release()
    holder.end()
    with pytest.raises(RuntimeError, match="does not hold"):
        lock.release()

    lock.acquire()
    lock.release()
    with pytest.raises(RuntimeError, match="does not hold"):
        lock.release()


@pytest.mark.green
def test_killed_waiter_gives_its_place_up(conn, spawn, holder):
    jobs = [spawn(one, conn, number) for number in range(3)]
    waiting(conn, 3)

    jobs[1].kill()
    waiting(conn, 2)
    holder.end()

    assert [jobs[0].result(), jobs[2].result()] == [0, 2]
    with pytest.raises(current().exits):
        jobs[1].result()


@pytest.mark.green
def test_waiter_killed_with_the_lock_in_hand_passes_it_on(auto, spawn):
    holder = Holder(auto, spawn)
    first, second = spawn(one, auto, 1), spawn(one, auto, 2)
    waiting(auto, 2)

    holder.go.set()
    until(lambda: waiting_tasks(auto) < 2, "the lock is handed over")
    first.kill()

    assert second.result() == 2
    first.join()


@pytest.mark.green
def test_killed_holder_lets_the_next_one_in(conn, spawn, holder):
    job = spawn(one, conn, 1)
    waiting(conn, 1)

    holder.job.kill()

    assert job.result() == 1


def test_holder_that_ends_without_release_keeps_nobody_out_for_good(conn, spawn):
    lock = greenpg.ConnectionLock(conn)
    spawn(lock.acquire).result()

    conn.close()

    assert conn.closed


@pytest.mark.filterwarnings("ignore::greenpg.errors.ConnectionFactoryWarning")
def test_connection_that_greenpg_did_not_make_has_no_lock(dsn):
    conn = psycopg2._psycopg.connection(dsn)

    for other in (conn, object()):
        with pytest.raises(TypeError, match="not a connection made by greenpg"):
            greenpg.ConnectionLock(other)

    conn.close()


def test_many_tasks_never_meet_in_a_block(conn, spawn):
    inside = 0
    most = 0

    def visit(number):
        nonlocal inside, most
        with conn.exclusive():
            inside += 1
            most = max(most, inside)
            one(conn, number)
            current().pause()
            inside -= 1

    for job in [spawn(visit, number) for number in range(20)]:
        job.result()

    assert (inside, most) == (0, 1)


@pytest.mark.parametrize("operation", ["commit", "rollback", "cancel"])
def test_a_task_that_ended_in_its_block_makes_no_other_wait_forever(conn, spawn, operation):
    spawn(conn.exclusive().__enter__).result()

    with pytest.raises(greenpg.ProgrammingError, match="has ended inside a block"):
        getattr(conn, operation)()

    conn.close()
    assert conn.closed
