"""Opening and closing a pool."""

from __future__ import annotations

import gc
from contextlib import suppress

import pytest

from greenpg.backend import current
from greenpg.errors import PoolClosed, PoolTimeout
from greenpg.pool import ConnectionPool
from greenpg_conformance.toolkit.leaks import descriptors
from greenpg_conformance.toolkit.machine import Stopwatch
from tests.db.conftest import until
from tests.db.pool.conftest import NOWHERE, answer


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


def test_open_false_requires_an_open(make):
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


def test_wait_closes_the_pool_when_there_is_no_server(make, driver):
    pool = make(NOWHERE)

    with pytest.raises(PoolTimeout) as caught:
        pool.wait(0.3)

    assert isinstance(caught.value.__cause__, driver.OperationalError)
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


def test_a_slot_without_a_connection_is_no_holder(make):
    pool = make()
    conn = pool.getconn()
    slot = pool._pool.slot_of(conn)

    before, slot.ref = slot.ref, type(slot)(0.0).ref  # as an OS thread that closes it leaves it
    try:
        found = pool.holders()
        pool._pool._on_lent(pytest.fail)  # what `close` does
    finally:
        slot.ref = before

    assert found == []
    pool.putconn(conn)


def test_close_cancels_and_closes_what_does_not_come_back(make, spawn, driver):
    pool = make()

    lent = []

    def stubborn():
        with pool.connection() as conn:
            lent.append(conn)
            with suppress(driver.Error):
                answer(conn, "select pg_sleep(30)")
            until(lambda: conn.closed, "closed by the pool")

    job = spawn(stubborn)
    until(lambda: lent, "lent")
    watch = Stopwatch()

    pool.close(timeout=0.2)

    assert watch.seconds() < 3
    job.result()


def test_waiters_of_a_closed_pool_fail_at_once(make, spawn):
    pool = make()
    conn = pool.getconn()
    waiting = [spawn(pool.getconn) for _ in range(3)]
    until(lambda: pool.get_stats()["requests_waiting"] == 3, "waiting")

    job = spawn(pool.close)

    for one in waiting:
        with pytest.raises(PoolClosed, match=r"was closed \(1 lent, 3 waiting.* test_opening.py:"):
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


def test_a_pool_that_is_dropped_warns_and_leaves_nothing(dsn, sessions, driver):
    before = set(sessions())
    pool = ConnectionPool(dsn, driver=driver.__name__, min_size=2, name="dropped")
    pool.wait()

    with pytest.warns(ResourceWarning, match="'dropped' was never closed"):
        del pool
    until(lambda: gc.collect() is not None and set(sessions()) == before, "sessions gone")


def test_an_emptied_pool_that_is_dropped_leaves_no_task(dsn, sessions, driver):
    before = set(sessions())
    pool = ConnectionPool(dsn, driver=driver.__name__, min_size=1)
    pool.wait()

    pool.resize(0, 1)
    pool.drain()
    until(lambda: set(sessions()) == before, "sessions gone")

    del pool  # the test's own fixture looks for tasks and threads that are left


def test_a_lent_connection_that_is_dropped_frees_its_slot(make):
    pool = make(name="web")
    conn = pool.getconn()
    assert answer(conn) == 1

    with pytest.warns(ResourceWarning, match=r"lent at test_opening.py:\d+ in .*frees_its_slot"):
        del conn

    with pool.connection(timeout=2) as other:
        assert answer(other) == 1


def test_a_timeout_says_why_no_connection_could_be_made(make):
    def configure(conn):
        raise LookupError("no such setting")

    pool = make(configure=configure, timeout=0.3)

    with pytest.raises(PoolTimeout, match="attempt to connect failed: no such setting") as caught:
        pool.getconn()

    assert "raise max_size" not in str(caught.value)
    assert isinstance(caught.value.__cause__, LookupError)


def test_a_timeout_of_a_busy_pool_says_what_helps(make):
    pool = make(max_size=1)

    with pool.connection(), pytest.raises(PoolTimeout, match="raise max_size or hold"):
        pool.getconn(timeout=0.05)
