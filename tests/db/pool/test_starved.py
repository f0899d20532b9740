"""A pool and a listener whose tasks cannot be started, or are killed before they begin."""

from __future__ import annotations

import pytest

from greenpg import Listener
from greenpg.backend import current
from greenpg.errors import PoolTimeout
from greenpg.threads import pristine
from greenpg_conformance.toolkit.leaks import descriptors
from tests.db.conftest import until
from tests.db.pool.conftest import answer
from tests.db.starving import starved

WAYS = [
    pytest.param(False, id="fails"),
    pytest.param(True, id="killed", marks=pytest.mark.green),
]


@pytest.mark.parametrize("kills", WAYS)
@pytest.mark.parametrize("fate", ["returned", "cleaned", "closed"])
@pytest.mark.parametrize("which", range(5))
def test_one_task_that_never_begins_costs_no_slot(make, which, fate, kills):
    pool = make(min_size=0, max_size=1)

    def fail():
        with pool.connection() as conn:
            if fate != "returned":
                answer(conn)
            if fate == "closed":
                conn.close()
            raise ZeroDivisionError

    with starved(range(which, which + 1), kills=kills), pytest.raises(ZeroDivisionError):
        fail()

    for _ in range(2):
        with pool.connection() as conn:
            assert answer(conn, "select 6 * 7") == 42


@pytest.mark.parametrize("kills", WAYS)
def test_the_first_tasks_that_never_begin_cost_no_slot(make, kills):
    pool = make(min_size=3)
    with starved(range(5), kills=kills):
        pool.open()

        pool.wait(5)

    assert pool.get_stats()["pool_available"] == 3


def test_a_borrower_is_told_why_nothing_could_be_started(make):
    pool = make(min_size=0, max_size=1, timeout=0.5)

    with starved(range(1000)), pytest.raises(PoolTimeout) as caught:
        pool.getconn()

    assert "can't start new thread" in str(caught.value.__cause__)
    with pool.connection(timeout=5) as conn:
        assert answer(conn) == 1


@pytest.mark.parametrize("kills", WAYS)
def test_a_keeper_of_time_that_never_begins_is_replaced(make, kills):
    """It is the second task: the first one connects."""
    pool = make(min_size=0, max_size=1, max_idle=0.2)
    with starved(range(1, 2), kills=kills) as spawns, pool.connection() as conn:
        assert answer(conn) == 1

    assert spawns.count > 1
    until(lambda: pool.get_stats()["pool_size"] == 0, "the idle connection is closed")


def test_checking_ends_even_if_no_check_begins_at_first(make):
    pool = make(min_size=2)
    pool.wait()

    with starved(range(3)):
        pool.check()

    assert pool.get_stats()["pool_available"] == 2


def test_a_listener_whose_task_could_not_be_started_starts_another(dsn, driver):
    with Listener(dsn, driver=driver.__name__) as listener:
        with starved(range(1)), pytest.raises(RuntimeError, match="can't start"):
            listener.subscribe("a")

        with listener.subscribe("a", timeout=5) as subscription:
            assert subscription.get(0.01) is None


@pytest.mark.green
def test_a_listener_whose_task_was_killed_before_it_began_says_so(dsn, driver):
    with Listener(dsn, driver=driver.__name__) as listener:
        with (
            starved(range(1), kills=True),
            pytest.raises(driver.OperationalError, match="task was killed"),
        ):
            listener.subscribe("a", timeout=5)
        with pytest.raises(driver.OperationalError, match="task was killed"):
            listener.subscribe("a", timeout=5)


@pytest.mark.green
def test_a_pool_survives_the_kill_of_all_tasks_that_have_not_begun(make, monkeypatch):
    """As `gevent.killall` of everything does just after `pool.open()`."""
    tasks = []
    real = type(current()).spawn

    def spawn(*args):
        tasks.append(real(*args))
        return tasks[-1]

    monkeypatch.setattr(type(current()), "spawn", spawn)
    pool = make(min_size=2, max_idle=60)
    pool.open()
    for task in tuple(tasks):
        task.kill()

    with pool.connection() as conn:
        assert answer(conn) == 1
    until(lambda: pool.get_stats()["pool_size"] == 2, "filled")


def alone_in_another_thread(work):
    """Return what `work` returns in an OS thread; this one's tasks have no turn meanwhile."""
    native, found = pristine("_thread"), []
    done = native.allocate_lock()
    done.acquire()

    def run():
        try:
            found.append(work())
        finally:
            done.release()

    native.start_new_thread(run, ())
    done.acquire()
    return found[0]


@pytest.mark.green
@pytest.mark.filterwarnings("ignore:.* was never given back:ResourceWarning")
def test_a_connection_that_another_os_thread_collects_gives_that_no_hub(make, spawn):
    pool = make(min_size=0, max_size=1)
    kept = [pool.getconn()]
    waiting = spawn(pool.getconn)
    until(lambda: pool.get_stats()["requests_waiting"] == 1, "a task waits")

    def forget():
        before = set(descriptors())
        kept.clear()
        return set(descriptors()) - before

    assert alone_in_another_thread(forget) == set()
    pool.putconn(waiting.result())
