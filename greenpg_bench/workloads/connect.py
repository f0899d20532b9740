"""Connecting and closing."""

from __future__ import annotations

from greenpg_bench.drivers import plain_connector
from greenpg_bench.meter import meter
from greenpg_bench.model import LIBRARIES, Job, Lap, Metric, Sample, Target, Workload, contenders

UNITS = 100


def _prepare(job: Job) -> Lap:
    connect = plain_connector(job.contender)

    def lap(times: int) -> None:
        for _ in range(times):
            connect(job.dsn).close()

    def measure() -> Sample:
        with meter() as reading:
            lap(UNITS)
        return {"cpu": reading.cpu / UNITS * 1e6, "wall": reading.wall / UNITS * 1e3}

    lap(UNITS // 5)
    return measure


WORKLOAD = Workload(
    name="connect",
    title="connect and close",
    groups=(
        contenders(
            *("greenpg/gevent", "greenpg/eventlet", "greenpg/threads"),
            *("psycopg2/threads", "psycogreen/gevent", "psycogreen/eventlet"),
        ),
    ),
    metrics=(Metric("cpu", "client CPU, us", "{:,.0f}"), Metric("wall", "time, ms", "{:.2f}")),
    targets=tuple(
        Target(f"greenpg/{host}", "cpu", 1.3, "psycopg2/threads")
        for host in (*LIBRARIES, "threads")
    ),
    prepare=_prepare,
    units=UNITS,
    rounds=15,
    quick=5,
)
