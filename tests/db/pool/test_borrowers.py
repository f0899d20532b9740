"""Who holds a pool's connections and who waits for one, on every backend."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from greenpg.backend import current
from greenpg.errors import PoolTimeout
from tests.db.conftest import until
from tests.db.pool.conftest import answer, pid


def borrow(pool: Any, lent: list[Any]) -> None:
    lent.append(pool.getconn())


def test_holders_say_who_holds_what_since_when(make, spawn):
    pool = make(min_size=2, timeout=9)
    lent: list[Any] = []
    first = pool.getconn()
    spawn(borrow, pool, lent).result()

    older, newer = pool.holders()

    assert "test_holders_say_who_holds_what_since_when" in older.place
    assert older.place.startswith("test_borrowers.py:")
    assert newer.place.endswith(" in borrow")
    assert older.seconds >= newer.seconds >= 0
    assert (older.pid, newer.pid) == (pid(first), pid(lent[0]))
    assert older.task == current().current() != newer.task
    assert older.stack is None
    for conn in (first, *lent):
        pool.putconn(conn)
    assert pool.holders() == []


def fail(conn):
    with pytest.raises(Exception, match="zero"):
        answer(conn, "select 1 / 0")


USES = {
    "idle": lambda conn: None,
    "idle in transaction": answer,
    "idle in transaction (aborted)": fail,
    "closed": lambda conn: conn.close(),
}


@pytest.mark.parametrize("state", USES)
def test_holders_say_what_the_session_does(make, state):
    pool = make()

    with pool.connection() as conn:
        USES[state](conn)

        (holder,) = pool.holders()

    assert holder.state == state
    assert (holder.pid is None) == (state == "closed")


def test_a_query_that_runs_is_seen(make, spawn, gate):
    pool = make()

    def query():
        with pool.connection() as conn:
            answer(conn, gate.sql)

    job = spawn(query)
    gate.wait_for()

    assert [holder.state for holder in pool.holders()] == ["active"]
    gate.open()
    job.result()


def test_a_task_that_has_ended_is_not_kept(make):
    pool = make()
    lent: list[Any] = []
    current().spawn(borrow, pool, lent).join()
    until(lambda: lent, "borrowed")

    until(lambda: gc.collect() * 0 or pool.holders()[0].task is None, "the task is gone")

    assert pool.holders()[0].place.endswith(" in borrow")
    pool.putconn(lent[0])


def test_waiters_are_listed_in_the_order_of_service(make, spawn):
    pool = make()
    lent: list[Any] = []
    held = pool.getconn()
    jobs = []
    for _ in range(2):
        jobs.append(spawn(borrow, pool, lent))
        until(lambda: len(pool.waiters()) == len(jobs), "one more waits")

    first, second = pool.waiters()

    assert first.place.endswith(" in borrow")
    assert first.seconds >= second.seconds >= 0
    assert first.task != second.task
    pool.putconn(held)
    jobs[0].result()
    assert [waiting.task for waiting in pool.waiters()] == [second.task]
    pool.putconn(lent[0])
    jobs[1].result()
    pool.putconn(lent[1])
    assert pool.waiters() == []


def test_a_timeout_names_the_three_oldest_and_ends_with_their_stacks(make, spawn):
    pool = make(min_size=4, holder="stack")
    lent = [pool.getconn() for _ in range(4)]

    with pytest.raises(PoolTimeout) as caught:
        pool.getconn(timeout=0.1)

    fact, _, stacks = str(caught.value).partition("\n")
    assert "4 lent, 1 waiting" in fact
    assert fact.count(" s ago at test_borrowers.py:") == 3
    assert fact.endswith("hold connections for less time")
    assert stacks.count("lent at test_borrowers.py:") == 3
    assert stacks.count("lent = [pool.getconn() for _ in range(4)]") >= 3
    for conn in lent:
        pool.putconn(conn)
