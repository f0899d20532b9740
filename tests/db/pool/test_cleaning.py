"""Cleaning, checking and replacing connections of a pool."""

from __future__ import annotations

import pytest

import greenpg
from greenpg.backend import current
from greenpg.pool import ConnectionPool
from tests.db.conftest import until
from tests.db.pool.conftest import answer, pid, terminate


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


def test_a_session_in_use_costs_one_error(make, dsn, driver):
    pool = make(min_size=2)
    pool.wait()

    def terminated():
        with pool.connection() as conn:
            terminate(dsn, pid(conn))
            answer(conn)

    with pytest.raises(driver.Error):
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
        ConnectionPool(dsn, reset="everything")  # type: ignore[call-overload]  # the test


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
    monkeypatch.setattr("greenpg.pool._managed.ping", lambda conn: pinged.append(conn))
    pool = make()
    pool._pool.performer.state.limits.fresh = 0.05
    with pool.connection():
        pass
    current().sleep(0.1)

    with pool.connection() as conn:
        pass

    assert pinged == [conn]


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
