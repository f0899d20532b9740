"""What a pool promises its borrowers, on every backend."""

from __future__ import annotations

import gc
import logging
import time
from contextlib import closing, suppress

import psycopg2
import pytest

import greenpg
from greenpg.backend import current
from greenpg.errors import PoolClosed, PoolTimeout, TooManyRequests
from greenpg.pool import ConnectionPool
from greenpg_conformance.toolkit.leaks import descriptors
from greenpg_conformance.toolkit.machine import Stopwatch
from tests.db.conftest import until

NOWHERE = "host=127.0.0.1 port=1 dbname=none connect_timeout=2"


@pytest.fixture
def make(dsn):
    """Make pools, to be closed after the test."""
    made = []

    def pool(conninfo=dsn, **options):
        made.append(ConnectionPool(conninfo, **{"min_size": 1, "timeout": 5.0, **options}))
        return made[-1]

    yield pool
    for one in made:
        one.close()


def pid(conn):
    return conn.info.backend_pid


def answer(conn, query="select 1"):
    cur = conn.cursor()
    cur.execute(query)
    return cur.fetchone()[0]


def fail_in(pool, statement, error):
    with pool.connection() as conn:
        conn.cursor().execute(statement)
        raise error


def terminate(dsn, *pids):
    with closing(greenpg.connect(dsn)) as admin:
        admin.autocommit = True
        for one in pids:
            answer(admin, f"select pg_terminate_backend({one}, 5000)")


# Borrowing


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


# Waiting


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


def test_a_waiter_gives_up_in_time_and_says_who_holds(make):
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
    assert isinstance(caught.value, psycopg2.OperationalError)


def test_without_a_server_the_cause_is_told(make):
    pool = make(NOWHERE)

    with pytest.raises(PoolTimeout) as caught:
        pool.getconn(timeout=0.3)

    assert isinstance(caught.value.__cause__, psycopg2.OperationalError)
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


# Opening and closing


def test_nothing_is_started_before_first_use(make, sessions):
    before, opened = set(sessions()), descriptors().keys()

    pool = make(min_size=3)

    current().sleep(0.05)
    assert set(sessions()) == before
    assert descriptors().keys() == opened
    assert pool.closed
    with pool.connection() as conn:
        assert answer(conn) == 1
    assert not pool.closed


def test_open_false_wants_to_be_opened(make):
    pool = make(open=False)

    with pytest.raises(PoolClosed, match="not open yet"):
        pool.getconn()
    pool.open(wait=True)

    with pool.connection() as conn:
        assert answer(conn) == 1


def test_wait_fills_the_pool(make):
    pool = make(min_size=3, open=True)

    pool.wait()

    assert pool.get_stats()["pool_available"] == 3


def test_wait_closes_the_pool_when_there_is_no_server(make):
    pool = make(NOWHERE)

    with pytest.raises(PoolTimeout) as caught:
        pool.wait(0.3)

    assert isinstance(caught.value.__cause__, psycopg2.OperationalError)
    with pytest.raises(PoolClosed, match="0 lent, 0 waiting") as closed:
        pool.getconn()
    assert closed.value.__cause__ is caught.value.__cause__


def test_close_waits_for_what_is_lent(make, spawn):
    pool = make()
    conn = pool.getconn()
    closing_it = spawn(pool.close)
    until(lambda: pool.closed, "closing")

    assert answer(conn) == 1
    assert not closing_it.ended
    pool.putconn(conn)

    closing_it.result()
    assert conn.closed
    with pytest.raises(PoolClosed):
        pool.getconn()


def test_close_cancels_and_closes_what_does_not_come_back(make, spawn):
    pool = make()

    lent = []

    def stubborn():
        with pool.connection() as conn:
            lent.append(conn)
            with suppress(psycopg2.Error):
                answer(conn, "select pg_sleep(30)")
            until(lambda: conn.closed, "closed by the pool")

    job = spawn(stubborn)
    until(lambda: lent, "lent")
    watch = Stopwatch()

    pool.close(timeout=0.2)

    assert watch.seconds() < 3
    job.result()


def test_waiters_of_a_closed_pool_are_told_at_once(make, spawn):
    pool = make()
    conn = pool.getconn()
    waiting = [spawn(pool.getconn) for _ in range(3)]
    until(lambda: pool.get_stats()["requests_waiting"] == 3, "waiting")

    job = spawn(pool.close)

    for one in waiting:
        with pytest.raises(PoolClosed, match=r"was closed \(1 lent, 3 waiting.* at test_pool.py:"):
            one.result(1)
    pool.putconn(conn)
    job.result()


def test_closeall_and_reopening(make):
    pool = make()
    with pool.connection():
        pass

    pool.closeall()

    with pytest.raises(PoolClosed, match="cannot be opened again"):
        pool.open()


def test_a_pool_that_is_dropped_warns_and_leaves_nothing(dsn, sessions):
    before = set(sessions())
    pool = ConnectionPool(dsn, min_size=2, name="dropped")
    pool.wait()

    with pytest.warns(ResourceWarning, match="'dropped' was never closed"):
        del pool
    until(lambda: gc.collect() is not None and set(sessions()) == before, "sessions gone")


def test_an_emptied_pool_that_is_dropped_leaves_no_task(dsn, sessions):
    before = set(sessions())
    pool = ConnectionPool(dsn, min_size=1)
    pool.wait()

    pool.resize(0, 1)
    pool.drain()
    until(lambda: set(sessions()) == before, "sessions gone")

    del pool  # the test's own fixture looks for tasks and threads that are left


def test_a_lent_connection_that_is_dropped_frees_its_slot(make):
    pool = make(name="web")
    conn = pool.getconn()
    assert answer(conn) == 1

    with pytest.warns(ResourceWarning, match=r"lent at test_pool.py:\d+ in .*frees_its_slot"):
        del conn

    with pool.connection(timeout=2) as other:
        assert answer(other) == 1


# Cleaning and checking


def test_idle_sessions_ended_by_an_administrator_hurt_nobody(make, dsn):
    pool = make(min_size=4)
    pool.wait()
    conns = [pool.getconn() for _ in range(4)]
    pids = [pid(conn) for conn in conns]
    for conn in conns:
        pool.putconn(conn)

    terminate(dsn, *pids)

    for _ in range(6):
        with pool.connection() as conn:
            assert answer(conn) == 1
            assert pid(conn) not in pids
    until(lambda: pool.get_stats()["pool_available"] == 4, "refilled")


def test_a_session_in_use_costs_one_error(make, dsn):
    pool = make(min_size=2)
    pool.wait()

    def terminated():
        with pool.connection() as conn:
            terminate(dsn, pid(conn))
            answer(conn)

    with pytest.raises(psycopg2.Error):
        terminated()

    with pool.connection() as conn:
        assert answer(conn) == 1


def test_reset_discard_forgets_the_session_but_not_its_configuration(make):
    def configure(conn):
        with conn.cursor() as cur:
            cur.execute("set extra_float_digits = 2")
        conn.commit()

    pool = make(reset="discard", configure=configure)
    with pool.connection() as conn:
        answer(conn, "select set_config('work_mem', '77MB', false)")

    with pool.connection() as conn:
        assert answer(conn, "show work_mem") != "77MB"
        assert answer(conn, "show extra_float_digits") == "2"
    assert pool.get_stats()["connections_num"] == 1


def test_reset_none_leaves_the_transaction_open(make):
    pool = make(reset="none")
    conn = pool.getconn()
    answer(conn)

    pool.putconn(conn)

    assert pool.getconn() is conn
    assert conn.info.transaction_status == greenpg.extensions.TRANSACTION_STATUS_INTRANS
    pool.putconn(conn)


def test_reset_can_be_a_function_and_its_failure_costs_the_connection(make):
    seen = []

    def reset(conn):
        seen.append(pid(conn))
        if len(seen) == 2:
            raise ValueError

    pool = make(reset=reset)
    for _ in range(3):
        with pool.connection() as conn:
            answer(conn)

    until(lambda: len(seen) == 3, "reset three times")
    assert seen[0] == seen[1] != seen[2]


def test_an_unknown_reset_is_refused(dsn):
    with pytest.raises(ValueError, match="'rollback'"):
        ConnectionPool(dsn, reset="everything")  # type: ignore[arg-type]  # the test


def test_check_is_called_before_each_loan(make):
    checked = []
    pool = make(check=lambda conn: checked.append(pid(conn)))
    with pool.connection():
        pass

    for expected in (1, 2):
        with pool.connection():
            assert len(checked) == expected


def test_a_failing_check_replaces_the_connection(make):
    failing = []

    def check(conn):
        if pid(conn) in failing:
            raise ValueError

    pool = make(check=check)
    with pool.connection() as conn:
        failing.append(pid(conn))

    with pool.connection() as conn:
        assert pid(conn) not in failing


def test_a_connection_idle_for_long_is_pinged(make, dsn, monkeypatch):
    pinged = []
    monkeypatch.setattr("greenpg.pool._psycopg2.ping", lambda conn: pinged.append(conn))
    pool = make()
    pool._pool.performer.state.limits.fresh = 0.05
    with pool.connection():
        pass
    current().sleep(0.1)

    with pool.connection() as conn:
        pass

    assert pinged == [conn]


# Sizes and ages


def test_max_uses_and_drain_replace_connections(make):
    pool = make(max_uses=2)
    seen = []
    for _ in range(4):
        with pool.connection() as conn:
            seen.append(pid(conn))
    pool.drain()
    with pool.connection() as conn:
        seen.append(pid(conn))

    assert seen[0] == seen[1] != seen[2] == seen[3] != seen[4]


def test_drain_replaces_a_lent_connection_when_it_comes_back(make):
    pool = make()
    with pool.connection() as conn:
        before = pid(conn)
        pool.drain()

    with pool.connection() as conn:
        assert pid(conn) != before


def test_idle_connections_beyond_min_size_go(make):
    pool = make(min_size=1, max_size=4, max_idle=0.1)
    conns = [pool.getconn() for _ in range(4)]
    for conn in conns:
        pool.putconn(conn)

    until(lambda: pool.get_stats()["pool_size"] == 1, "shrunk")


def test_connections_past_their_lifetime_are_replaced(make):
    pool = make(max_lifetime=0.15)
    with pool.connection() as conn:
        before = pid(conn)

    until(lambda: conn.closed, "retired")

    with pool.connection() as conn:
        assert pid(conn) != before


def test_resize_grows_and_shrinks(make):
    pool = make(min_size=1, max_size=1, open=True)
    pool.resize(3)
    until(lambda: pool.get_stats()["pool_available"] == 3, "grown")

    pool.resize(1)

    until(lambda: pool.get_stats()["pool_size"] == 1, "shrunk")
    with pytest.raises(ValueError, match="max_size"):
        pool.resize(2, 1)


def test_check_finds_broken_idle_connections(make, dsn):
    pool = make(min_size=2)
    pool.wait()
    with pool.connection() as conn:
        broken = pid(conn)
    terminate(dsn, broken)

    pool.check()

    assert pool.get_stats()["connections_lost"] == 1
    until(lambda: pool.get_stats()["pool_available"] == 2, "replaced")


# Seeing what happens


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


def test_a_connection_left_at_work_is_closed(make, spawn):
    pool = make()
    with pool.connection() as conn:
        job = spawn(answer, conn, "select pg_sleep(20)")
        until(lambda: conn.info.transaction_status == 1, "at work")

    with pytest.raises(psycopg2.Error):
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


def test_giving_up_is_told(make):
    told: list[ConnectionPool] = []
    pool = make(NOWHERE, reconnect_timeout=0.1, reconnect_failed=told.append)
    pool.open()

    until(lambda: told, "told")

    assert told == [pool]
