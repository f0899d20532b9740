"""A pool's health check, and the overview that a signal asks for."""

from __future__ import annotations

import logging
import os
import signal
import time

import pytest

from greenpg.errors import DeadlineExceeded, PoolClosed, PoolTimeout
from greenpg.pool import log_pools, log_pools_on
from greenpg_conformance.toolkit.machine import Stopwatch
from tests.db.conftest import until
from tests.db.pool.conftest import NOWHERE, answer, pid, terminate


def test_a_server_that_answers_is_healthy(make):
    pool = make()

    health = pool.health()

    assert health.ok
    assert health.error is None
    assert health.seconds > 0
    assert pool.holders() == []
    with pool.connection() as conn:
        assert answer(conn) == 1


def test_a_busy_pool_is_found_in_time_without_a_cause(make):
    pool, watch = make(), Stopwatch()

    with pool.connection():
        health = pool.health(0.1)

    assert watch.seconds() < 2
    assert not health.ok
    assert isinstance(health.error, PoolTimeout)
    assert health.error.__cause__ is None


def test_no_server_is_the_cause(make):
    health = make(NOWHERE).health(0.3)

    assert isinstance(health.error, PoolTimeout)
    assert "refused" in str(health.error.__cause__)


def test_a_server_that_no_longer_answers_is_found_in_time(make, proxy):
    pool = make(proxy.dsn)
    assert pool.health().ok
    proxy.stall()
    began, watch = time.monotonic(), Stopwatch()

    health = pool.health(0.2)

    assert watch.seconds() < 3
    assert time.monotonic() - began >= 0.2
    assert isinstance(health.error, DeadlineExceeded)
    proxy.flow()


def test_a_closed_pool_is_not_healthy(make):
    pool = make()
    pool.close()

    assert isinstance(pool.health().error, PoolClosed)


def test_a_terminated_session_is_replaced_before_it_is_judged(make, dsn):
    pool = make()
    with pool.connection() as conn:
        victim = pid(conn)
    terminate(dsn, victim)

    assert pool.health(5).ok


def test_all_pools_are_written_with_holders_and_waiters(make, spawn, caplog):
    pool = make(name="web", holder="stack")
    make(name="api")
    lent = pool.getconn()
    job = spawn(pool.getconn)
    until(pool.waiters, "one waits")

    with caplog.at_level(logging.WARNING, "greenpg.pool"):
        log_pools()

    assert "pool 'web': 1 lent, 0 idle, 1 waiting, 0 being connected" in caplog.text
    assert "pool 'api': 0 lent" in caplog.text
    assert " s ago at test_health.py:" in caplog.text
    assert f"idle, server process {pid(lent)}" in caplog.text
    assert "lent = pool.getconn()" in caplog.text
    assert "  waiting for 0." in caplog.text
    pool.putconn(lent)
    pool.putconn(job.result())


def test_a_pool_that_cannot_be_described_hides_no_other_one(make, caplog, monkeypatch):
    monkeypatch.setattr(make(name="api")._pool, "measures", lambda: 1 // 0)
    make(name="web")

    with caplog.at_level(logging.WARNING, "greenpg.pool"):
        log_pools()

    assert "pool 'api' cannot be described" in caplog.text
    assert "pool 'web': 0 lent" in caplog.text


@pytest.fixture
def unsigned():
    """A signal whose handler is as before after the test."""
    before = signal.getsignal(signal.SIGUSR2)
    yield signal.SIGUSR2
    signal.signal(signal.SIGUSR2, before)


def test_a_signal_writes_them_and_calls_the_handler_before(make, caplog, unsigned):
    heard = []
    signal.signal(unsigned, lambda number, frame: heard.append(number))
    pool = make(name="web")
    log_pools_on(unsigned)
    log_pools_on(unsigned)

    with caplog.at_level(logging.WARNING, "greenpg.pool"), pool.connection():
        os.kill(os.getpid(), unsigned)
        until(lambda: "pool 'web': 1 lent" in caplog.text, "written")

    assert heard == [unsigned]
