"""`conn.wait` consumes a program's own generator, as it does in psycopg."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import generators, waiting

import greenpg
from greenpg.backend import current
from greenpg_conformance.toolkit.heartbeat import heartbeat
from tests.db.conftest import until

INTERVALS = [(), (0.05,)]
LONG = b"select pg_sleep(600)"


def query(conn, text):
    """Send a query, and return the first value of its result."""
    conn.pgconn.send_query(text)
    (result,) = yield from generators.execute(conn.pgconn)
    return result.get_value(0, 0)


def until_resumed(times):
    """Count how often the wait ends though nothing has arrived."""
    count = 0
    while count < times:
        if not (yield waiting.WAIT_R):
            count += 1
    return count


@pytest.mark.parametrize("interval", INTERVALS)
def test_generator_of_the_program_gets_its_result(auto, interval):
    assert auto.wait(query(auto, b"select 7"), *interval) == b"7"
    assert auto.execute("select 8").fetchone() == (8,)


def test_interval_resumes_the_generator(auto):
    assert auto.wait(until_resumed(3), 0.01) == 3
    assert auto.execute("select 8").fetchone() == (8,)


@pytest.mark.green
@pytest.mark.parametrize("interval", INTERVALS)
def test_other_tasks_run_meanwhile(auto, interval):
    with heartbeat(current()):
        auto.wait(query(auto, b"select pg_sleep(0.3)"), *interval)


@pytest.mark.parametrize("interval", INTERVALS)
def test_deadline_cancels_it(auto, observer, interval):
    with pytest.raises(greenpg.DeadlineExceeded), auto.deadline(0.05):
        auto.wait(query(auto, LONG), *interval)

    until(lambda: not observer.is_busy(auto.info.backend_pid), "the query has ended")
    assert auto.execute("select 8").fetchone() == (8,)


@pytest.mark.green
@pytest.mark.parametrize("interval", INTERVALS)
def test_kill_cancels_it(auto, observer, spawn, interval):
    job = spawn(lambda: auto.wait(query(auto, LONG), *interval))
    until(lambda: observer.is_busy(auto.info.backend_pid), "the query runs")

    job.kill()

    assert isinstance(job.join().error, current().exits)
    assert not observer.is_busy(auto.info.backend_pid)
    assert auto.execute("select 8").fetchone() == (8,)


@pytest.mark.parametrize("interval", INTERVALS)
def test_inside_a_transaction_only_a_rollback_may_follow(conn, interval):
    conn.execute("select 1")
    with pytest.raises(greenpg.DeadlineExceeded), conn.deadline(0.05):
        conn.wait(query(conn, LONG), *interval)

    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        conn.commit()
    conn.rollback()
    assert conn.execute("select 8").fetchone() == (8,)
