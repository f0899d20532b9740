"""executemany of 10,000 inserts into three columns, here and at 10 ms of round trip."""

from __future__ import annotations

from typing import Any

from greenpg_bench.drivers import connector
from greenpg_bench.far import away
from greenpg_bench.meter import meter
from greenpg_bench.model import LIBRARIES, Job, Lap, Metric, Sample, Target, Workload, contenders

UNITS = 10_000
ROUND_TRIP = 0.01
FAR = "far"


def _prepare(job: Job) -> Lap:
    dsn = away(job.dsn, ROUND_TRIP) if job.contender.variant == FAR else job.dsn
    connection: Any = connector(job.contender)(dsn)
    connection.autocommit = False
    cursor = connection.cursor()
    cursor.execute("create temp table bench_many (id int, name text, price numeric)")
    rows = [(number, f"name {number}", number / 4) for number in range(UNITS)]

    def measure() -> Sample:
        cursor.execute("truncate bench_many")
        with meter() as reading:
            cursor.executemany("insert into bench_many values (%s, %s, %s)", rows)
        connection.commit()
        return {"wall": reading.wall * 1e3, "cpu": reading.cpu / UNITS * 1e6}

    return measure


def _targets(host: str) -> tuple[Target, ...]:
    return (
        Target(f"greenpg/{host}", "wall", 0.35, "psycopg2/threads"),
        Target(f"greenpg/{host}", "wall", 1.0, "psycopg/gevent"),
        Target(f"greenpg/{host} {FAR}", "wall", 200.0),
    )


WORKLOAD = Workload(
    name="many",
    title=f"executemany of {UNITS:,} rows of three columns",
    groups=(
        contenders(
            "greenpg/gevent",
            "greenpg/eventlet",
            "psycopg2/threads",
            "psycopg/gevent",
            "greenpg3/gevent",
        ),
        contenders("greenpg/gevent", "greenpg/eventlet", "psycopg/gevent", variant=FAR),
    ),
    metrics=(Metric("wall", "time, ms"), Metric("cpu", "client CPU, us/row")),
    targets=tuple(target for host in LIBRARIES for target in _targets(host)),
    prepare=_prepare,
    units=UNITS,
    rounds=9,
    quick=3,
)
