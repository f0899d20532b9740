"""The numbers of a multiplexer, and how Prometheus and OpenTelemetry see them."""

from __future__ import annotations

from dataclasses import asdict

import psycopg2
import pytest

from greenpg.errors import TooManyRequests
from tests.db.multiplexer.conftest import terminate, until


def test_calls_are_counted_once(mux, create):
    table = create("(n int)")

    mux.executemany(f"insert into {table} values (%s)", [(n,) for n in range(3)])
    with pytest.raises(psycopg2.ProgrammingError):
        mux.execute("begin")
    with pytest.raises(psycopg2.errors.DivisionByZero):
        mux.execute("select 1 / 0")
    for _ in range(2):
        mux.execute("select 1")

    found = mux.measures()
    assert (found.statements, found.failed) == (4, 0)
    assert (found.waiting, found.in_flight, found.oldest_wait) == (0, 0, 0.0)
    assert mux.get_stats()["requests_num"] == 4


def test_gauges_have_what_waits_and_what_runs(make, spawn, gate):
    mux = make(max_size=1)
    slow = spawn(mux.execute, gate.sql)
    gate.wait_for()
    jobs = [spawn(mux.execute, "select 1") for _ in range(3)]
    until(lambda: mux.measures().waiting == 3, "three wait")

    found = mux.measures()
    until(lambda: mux.measures().oldest_wait > found.oldest_wait, "they get older")

    assert found.in_flight == found.connections == 1
    assert found.oldest_wait > 0
    gate.open()
    slow.result()
    for job in jobs:
        job.result()
    later = mux.measures()
    assert (later.waiting, later.in_flight, later.oldest_wait) == (0, 0, 0.0)
    assert (later.statements, later.failed) == (4, 0)


def test_statements_without_an_answer_are_failures(make, spawn, gate, dsn):
    mux = make(max_size=1, max_waiting=1)
    lost = spawn(mux.execute, gate.sql)
    gate.wait_for()
    served = spawn(mux.execute, "select 1")
    until(lambda: mux.measures().waiting, "one waits")
    with pytest.raises(TooManyRequests):
        mux.execute("select 1")
    terminate(dsn, *[line.conn.info.backend_pid for line in mux._dispatcher.lines])

    with pytest.raises(psycopg2.OperationalError):
        lost.result()
    served.result()

    assert (mux.measures().statements, mux.measures().failed) == (3, 2)
    gate.open()


def test_monitors_see_them(make, spawn, gate, meters):
    prometheus = pytest.importorskip("prometheus_client")
    from greenpg.metrics import MultiplexerCollector
    from greenpg.otel import MultiplexerObserver

    mux, registry = make(name="web"), prometheus.CollectorRegistry()
    registry.register(MultiplexerCollector(mux))
    MultiplexerObserver(mux, meter_provider=meters.provider)

    def sample(name):
        return registry.get_sample_value(f"greenpg_multiplexer_{name}", {"multiplexer": "web"})

    slow = spawn(mux.execute, gate.sql)
    gate.wait_for()

    assert (sample("connections"), sample("waiting"), sample("in_flight")) == (1, 0, 1)
    assert (sample("statements_total"), sample("statements_failed_total")) == (1, 0)
    assert sample("oldest_wait_seconds") == 0.0
    seen = meters.numbers("greenpg.multiplexer.", {"greenpg.multiplexer.name": "web"})
    assert seen == asdict(mux.measures())
    gate.open()
    slow.result()
