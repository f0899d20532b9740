"""1,000,000 rows: execute and fetchall, and one by one from the server."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from itertools import count
from typing import Any

from greenpg_bench.drivers import connector
from greenpg_bench.hosts import HOSTS, crew
from greenpg_bench.meter import meter
from greenpg_bench.model import LIBRARIES, Job, Lap, Metric, Sample, Target, Workload, contenders
from greenpg_bench.ticker import stall
from greenpg_conformance.toolkit.memory import resident

ROWS = 1_000_000
QUERY = f"select generate_series(1, {ROWS})"
LOOK = 50_000  # rows between two looks at the memory
GREEN = ("greenpg/gevent", "greenpg/eventlet")
GREEN3 = ("greenpg3/gevent", "greenpg3/eventlet")
ALL, STREAM, NAMED = "all", "stream", "named"
_numbers = count(1)


def _fetch_all(connection: Any) -> tuple[object, object]:
    cursor = connection.cursor()
    cursor.execute(QUERY)
    return cursor, cursor.fetchall()


def _stream(connection: Any) -> Any:
    return connection.cursor().stream(QUERY)


def _named(connection: Any) -> Any:
    cursor = connection.cursor(f"bench_rows_{next(_numbers)}")
    cursor.itersize = 2000
    cursor.execute(QUERY)
    return cursor


def _read(rows: Iterable[object]) -> None:
    for _ in rows:
        pass


def _growth(rows: Iterable[object]) -> int:
    gc.collect()
    before, peak = resident(), 0
    for number, _ in enumerate(rows):
        if number % LOOK == 0:
            peak = max(peak, resident() - before)
    return peak


def _prepare(job: Job) -> Lap:
    variant = job.contender.variant
    connection: Any = connector(job.contender)(job.dsn)
    connection.autocommit = False
    tasks = crew(HOSTS[job.contender.host], 1)
    sources = {STREAM: _stream, NAMED: _named}
    kept: list[object] = []  # to free a million rows takes tens of ms, whoever made them

    def work() -> None:
        if variant == ALL:
            kept.append(_fetch_all(connection))
        else:
            _read(sources[variant](connection))

    def measure() -> Sample:
        with meter() as reading:
            work()
        kept.clear()
        sample = {"wall": reading.wall * 1e3, "cpu": reading.cpu * 1e3}
        sample["stall"] = stall(tasks, work) * 1e3
        kept.clear()
        if variant != ALL:
            sample["memory"] = _growth(sources[variant](connection)) / 1e6
        connection.rollback()
        return sample

    return measure


def _targets(host: str) -> tuple[Target, ...]:
    return (
        Target(f"greenpg/{host} {ALL}", "stall", 10.0),
        Target(f"greenpg/{host} {ALL}", "wall", 1.1, f"psycopg2/threads {ALL}"),
        Target(f"greenpg3/{host} {ALL}", "stall", 10.0),
        Target(f"greenpg/{host} {STREAM}", "stall", 10.0),
        Target(f"greenpg/{host} {STREAM}", "memory", 5.0),
        Target(f"greenpg/{host} {STREAM}", "wall", 1.1, f"psycopg2/threads {NAMED}"),
    )


WORKLOAD = Workload(
    name="rows",
    title=f"a result of {ROWS:,} rows",
    groups=(
        contenders(*GREEN, *GREEN3, "psycopg2/threads", "psycopg2/gevent", variant=ALL),
        contenders(*GREEN, variant=STREAM) + contenders("psycopg2/threads", variant=NAMED),
    ),
    metrics=(
        Metric("wall", "time, ms"),
        Metric("cpu", "client CPU, ms"),
        Metric("stall", "longest stall above idle, ms"),
        Metric("memory", "memory added, MB"),
    ),
    targets=tuple(target for host in LIBRARIES for target in _targets(host)),
    prepare=_prepare,
    units=ROWS,
    rounds=9,
    quick=2,
)
