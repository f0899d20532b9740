"""Borrowing from a pool, on every backend."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import pytest

import greenpg
from greenpg.backend import current
from greenpg.errors import PoolTimeout, TooManyRequests
from greenpg_conformance.toolkit.machine import Stopwatch
from tests.db.conftest import until
from tests.db.pool.conftest import NOWHERE, answer, pid, terminate

if TYPE_CHECKING:
    from greenpg.pool import ConnectionPool


def fail_in(pool, statement, error):
    with pool.connection() as conn:
        conn.cursor().execute(statement)
        raise error


def test_success_commits_and_an_error_rolls_back(make, create):
    pool = make()
    table = create("(n int)")

    with pool.connection() as conn:
        conn.cursor().execute(f"insert into {table} values (1)")
    with pytest.raises(ZeroDivisionError):
        fail_in(pool, f"insert into {table} values (2)", ZeroDivisionError)

    with pool.connection() as conn:
        assert answer(conn, f"select array_agg(n) from {table}") == [1]


def test_the_connection_used_last_is_lent_first(make):
    pool = make(min_size=2)
    pool.wait()
    with pool.connection() as one, pool.connection() as other:
        last, first = pid(one), pid(other)

    with pool.connection() as conn:
        assert pid(conn) == last != first


def test_putconn_rolls_back(make, create):
    pool = make()
    table = create("(n int)")
    conn = pool.getconn()
    conn.cursor().execute(f"insert into {table} values (1)")

    pool.putconn(conn)

    with pool.connection() as conn:
        assert answer(conn, f"select count(*) from {table}") == 0
    assert pool.get_stats()["connections_num"] == 1


def test_putconn_refuses_what_it_has_not_lent(make, conn):
    pool = make()
    lent = pool.getconn()
    pool.putconn(lent)

    for wrong in (lent, conn):
        with pytest.raises(ValueError, match="was not lent by pool"):
            pool.putconn(wrong)


def test_putconn_can_close(make):
    pool = make()
    conn = pool.getconn()

    pool.putconn(conn, close=True)

    until(lambda: conn.closed, "closed")
    with pool.connection() as other:
        assert other is not conn


def test_a_connection_closed_by_its_borrower_is_replaced(make):
    pool = make()

    with pool.connection() as conn:
        conn.close()

    with pool.connection() as conn:
        assert answer(conn) == 1


def test_an_error_of_the_block_is_not_replaced(make, dsn):
    pool = make()

    def terminated():
        with pool.connection() as conn:
            answer(conn)
            terminate(dsn, pid(conn))
            raise LookupError

    with pytest.raises(LookupError):
        terminated()

    with pool.connection() as conn:
        assert answer(conn) == 1


def test_waiters_are_served_in_order_and_newcomers_do_not_overtake(make, spawn):
    pool = make()
    order = []
    held = pool.getconn()

    def borrow(number):
        with pool.connection():
            order.append(number)
            current().pause()

    jobs = []
    for number in range(6):
        jobs.append(spawn(borrow, number))
        until(lambda: pool.get_stats()["requests_waiting"] == len(jobs), "waiting")
    pool.putconn(held)
    for job in jobs:
        job.result()

    assert order == list(range(6))


def test_a_waiter_gives_up_in_time_and_says_who_holds(make, driver):
    pool = make(name="web")
    began, watch = time.monotonic(), Stopwatch()

    with pool.connection(), pytest.raises(PoolTimeout) as caught:
        pool.getconn(timeout=0.2)

    assert time.monotonic() - began > 0.19
    assert watch.seconds() < 0.5
    text = str(caught.value)
    assert "pool 'web': no connection in 0.2 s (1 lent, 1 waiting" in text
    assert "test_a_waiter_gives_up_in_time_and_says_who_holds" in text
    assert "test_pool.py:" in text
    assert isinstance(caught.value, driver.OperationalError)


def test_error_without_a_server_has_its_cause(make, driver):
    pool = make(NOWHERE)

    with pytest.raises(PoolTimeout) as caught:
        pool.getconn(timeout=0.3)

    assert isinstance(caught.value.__cause__, driver.OperationalError)
    assert "refused" in str(caught.value.__cause__)


def test_max_waiting_bounds_the_queue(make, spawn):
    pool = make(max_waiting=1)
    with pool.connection():
        job = spawn(pool.getconn)
        until(lambda: pool.get_stats()["requests_waiting"] == 1, "one waits")

        with pytest.raises(TooManyRequests, match="1 lent, 1 waiting"):
            pool.getconn()

    pool.putconn(job.result())


def test_a_cold_burst_makes_no_more_sessions_than_allowed(make, spawn, sessions):
    pool = make(min_size=0, max_size=4)
    before = len(sessions())
    seen = []

    def borrow():
        with pool.connection() as conn:
            answer(conn, "select pg_sleep(0.005)")

    jobs = [spawn(borrow) for _ in range(24)]
    while not all(job.ended for job in jobs):
        seen.append(len(sessions()) - before)
        current().sleep(0.002)

    assert max(seen) <= 4
    assert pool.get_stats()["connections_num"] <= 4


def test_a_long_hold_is_warned_of(make, caplog):
    pool = make(warn_held=0.05, holder="stack")

    with caplog.at_level(logging.WARNING, "greenpg.pool"), pool.connection():
        until(lambda: "held for" in caplog.text, "warned")

    assert "test_a_long_hold_is_warned_of" in caplog.text


def test_hooks_see_every_step(make):
    seen = []
    names = ("on_connect", "on_acquire", "on_release", "on_discard")
    hooks = {name: lambda conn, name=name: seen.append(name) for name in names}
    pool = make(**hooks)

    with pool.connection():
        pass
    pool.close()

    assert seen == list(names)


def test_a_failing_acquire_hook_loses_no_connection(make):
    def fail(conn):
        raise LookupError

    pool = make(on_acquire=fail)
    for _ in range(3):
        with pytest.raises(LookupError):
            pool.getconn(timeout=1)

    assert pool.get_stats()["pool_available"] == 1


def test_a_failing_release_hook_hides_no_error(make, caplog):
    def fail(conn):
        answer(conn)
        raise LookupError

    pool = make(on_release=fail)

    with pytest.raises(ZeroDivisionError):
        fail_in(pool, "select 1", ZeroDivisionError)

    assert "on_release" in caplog.text
    until(lambda: pool.get_stats()["pool_available"] == 1, "rolled back and idle")


def test_an_error_of_discard_on_costs_the_connection(make):
    pool = make(discard_on=(LookupError,))
    with pool.connection() as conn:
        before = pid(conn)

    with pytest.raises(KeyError):
        fail_in(pool, "select 1", KeyError)

    with pool.connection() as conn:
        assert pid(conn) != before


def test_a_connection_left_at_work_is_closed(make, spawn, driver):
    pool = make()
    with pool.connection() as conn:
        job = spawn(answer, conn, "select pg_sleep(20)")
        until(lambda: conn.info.transaction_status == 1, "at work")

    with pytest.raises(driver.Error):
        job.result()
    with pool.connection() as other:
        assert other is not conn


def test_a_kept_lock_costs_the_connection(make):
    pool = make()
    with pool.connection() as conn:
        greenpg.ConnectionLock(conn).acquire()

    with pool.connection() as other:
        assert other is not conn


def test_reentering_one_lease_is_refused(make):
    lease = make(max_size=2).connection()

    with lease, pytest.raises(RuntimeError, match="once for each"):
        lease.__enter__()


def test_statistics_are_psycopg_pools(make):
    pool = make(min_size=1, max_size=2)
    with pool.connection():
        pass

    stats = pool.pop_stats()

    assert stats["pool_min"] == 1
    assert stats["pool_max"] == 2
    assert stats["requests_num"] == 1
    assert stats["connections_num"] == 1
    assert "requests_num" not in pool.get_stats()


def test_configure_must_leave_no_transaction(make):
    pool = make(configure=lambda conn: conn.cursor().execute("select 1"))

    with pytest.raises(PoolTimeout) as caught:
        pool.getconn(timeout=0.3)

    assert "configure" in str(caught.value.__cause__)


def test_giving_up_calls_the_hook(make):
    calls: list[ConnectionPool] = []
    pool = make(NOWHERE, reconnect_timeout=0.1, reconnect_failed=calls.append)
    pool.open()

    until(lambda: calls, "the hook is called")

    assert calls == [pool]


def test_a_task_may_begin_with_getconn(make):
    """It then has no caller in Python whose place could be noted."""
    lent: list[Any] = []
    pool = make(max_size=1, on_acquire=lent.append)

    assert current().spawn(pool.getconn).join(10)

    assert answer(lent[0]) == 1
    pool.putconn(lent.pop())


def test_a_task_may_begin_with_the_entry_of_a_block(make):
    lease = make(max_size=1).connection()

    assert current().spawn(lease.__enter__).join(10)

    assert answer(lease.conn) == 1
    lease.__exit__(None, None, None)
