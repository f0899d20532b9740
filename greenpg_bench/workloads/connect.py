"""Connecting and closing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from greenpg_bench.drivers import plain_connector
from greenpg_bench.meter import meter
from greenpg_bench.model import Contender, Job, Metric, Target, Workload

UNITS = 100
LOOPS = ("gevent", "eventlet")


def _prepare(job: Job) -> Callable[[], Mapping[str, float]]:
    connect = plain_connector(job.contender)

    def lap(times: int) -> None:
        for _ in range(times):
            connect(job.dsn).close()

    def measure() -> Mapping[str, float]:
        with meter() as reading:
            lap(UNITS)
        return {"cpu": reading.cpu / UNITS * 1e6, "wall": reading.wall / UNITS * 1e3}

    lap(UNITS // 5)
    return measure


WORKLOAD = Workload(
    name="connect",
    title="connect and close",
    groups=(
        (
            *(Contender("greenpg", host) for host in (*LOOPS, "threads")),
            Contender("psycopg2", "threads"),
            *(Contender("psycogreen", host) for host in LOOPS),
        ),
    ),
    metrics=(Metric("cpu", "client CPU, us", "{:,.0f}"), Metric("wall", "ms", "{:.2f}")),
    targets=tuple(
        Target(f"greenpg/{host}", "cpu", 1.3, "psycopg2/threads") for host in (*LOOPS, "threads")
    ),
    prepare=_prepare,
    units=UNITS,
    rounds=15,
    quick=5,
)
