"""What interrupts the operations of connections is counted, whichever driver they have."""

from __future__ import annotations

from contextlib import suppress
from copy import deepcopy

import psycopg
import pytest

import greenpg
from greenpg import psycopg3
from greenpg.backend import current
from greenpg.sync import counts
from tests.db.conftest import until


@pytest.fixture
def conn(dsn, driver):
    made = (psycopg3 if driver is psycopg else greenpg).connect(dsn)
    yield made
    made.close()


def snapshot():
    return counts.cancels, counts.failed_repairs, deepcopy(counts.interrupts)


def test_a_deadline_is_counted_once_with_its_cancel(conn):
    cancels, failed, interrupts = snapshot()

    with pytest.raises(greenpg.DeadlineExceeded), conn.deadline(0.05):
        conn.cursor().execute("select pg_sleep(9)")
    conn.rollback()

    interrupts["deadline"] += 1
    assert snapshot() == (cancels + 1, failed, interrupts)


@pytest.mark.green
def test_a_kill_is_counted_once(conn, spawn, gate):
    cancels, failed, interrupts = snapshot()
    job = spawn(lambda: conn.cursor().execute(gate.sql))
    gate.wait_for()

    job.kill()
    until(lambda: job.ended, "killed")

    interrupts["kill"] += 1
    assert snapshot() == (cancels + 1, failed, interrupts)
    assert isinstance(job.error, current().exits)
    conn.rollback()


def test_an_error_of_the_server_is_no_interrupt(conn):
    before = snapshot()

    with suppress(Exception):
        conn.cursor().execute("select 1 / 0")
    conn.rollback()

    assert snapshot() == before


def test_prometheus_sees_them(conn):
    prometheus = pytest.importorskip("prometheus_client")
    from greenpg.metrics import ProcessCollector

    registry = prometheus.CollectorRegistry()
    registry.register(ProcessCollector())

    def sample(name, **labels):
        return registry.get_sample_value(f"greenpg_{name}", labels)

    deadlines = sample("interrupts_total", kind="deadline")
    cancels = sample("cancels_total")
    with suppress(greenpg.DeadlineExceeded), conn.deadline(0.05):
        conn.cursor().execute("select pg_sleep(9)")

    assert sample("interrupts_total", kind="deadline") == deadlines + 1
    assert sample("cancels_total") == cancels + 1
    assert sample("failed_repairs_total") == counts.failed_repairs


def test_opentelemetry_sees_them(conn, meters):
    from greenpg.otel import ProcessObserver

    ProcessObserver(meter_provider=meters.provider)
    with suppress(greenpg.DeadlineExceeded), conn.deadline(0.05):
        conn.cursor().execute("select pg_sleep(9)")

    found = meters.numbers("greenpg.", {})
    assert (found["cancels"], found["failed_repairs"]) == (counts.cancels, counts.failed_repairs)
    assert (found["stalls"], found["stalled"]) == (counts.stalls, counts.stalled)
    deadlines = meters.numbers("greenpg.", {"greenpg.kind": "deadline"})
    assert deadlines == {"interrupts": counts.interrupts["deadline"]}
    assert deadlines["interrupts"] > 0
