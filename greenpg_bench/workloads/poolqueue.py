"""64 tasks share 8 pooled connections; beside it the same work without a pool.

That is 64 tasks that take turns on 8 connections, query by query. "8 tasks", each with a
connection of its own, shows what is left where nobody ever waits for another.
"""

from __future__ import annotations

import time
from statistics import quantiles
from typing import Any

from greenpg_bench.drivers import connector
from greenpg_bench.hosts import HOSTS, crew
from greenpg_bench.meter import meter
from greenpg_bench.model import Contender, Job, Lap, Metric, Sample, Target, Workload
from greenpg_bench.pools import lender

TASKS, SIZE = 64, 8
TIMES = 50
UNITS = TASKS * TIMES
SHARED = "no pool"
ALONE = "8 tasks"


def _ask(conn: Any) -> None:
    cursor = conn.cursor()
    cursor.execute("select 1")
    cursor.fetchone()
    cursor.close()


def _poolless(job: Job) -> Lap:
    connect = connector(job.contender)
    conns = [connect(job.dsn) for _ in range(SIZE)]
    size = SIZE if job.contender.variant == ALONE else TASKS
    tasks = crew(HOSTS[job.contender.host], size)

    def work(conn: Any) -> None:
        for _ in range(UNITS // size):
            _ask(conn)

    def measure() -> Sample:
        with meter() as reading:
            for number in range(size):
                tasks.start(work, conns[number % SIZE])
            tasks.finish()
        return {"cpu": reading.cpu / UNITS * 1e6}

    return measure


def _together(job: Job) -> Lap:
    lend = lender(job.contender, job.dsn, SIZE)
    tasks = crew(HOSTS[job.contender.host], TASKS)
    waits: list[float] = []
    clock = time.perf_counter

    def work(times: int) -> None:
        for _ in range(times):
            began = clock()
            with lend() as conn:
                waits.append(clock() - began)
                _ask(conn)

    def lap(times: int) -> None:
        for _ in range(TASKS):
            tasks.start(work, times)
        tasks.finish()

    def measure() -> Sample:
        lap(1)  # the first loans after a rest cost a ping
        waits.clear()
        with meter() as reading:
            lap(TIMES)
        hundredths = quantiles(waits, n=100)
        middle = hundredths[49]
        spread = {"p50": middle * 1e3, "p99": hundredths[98] / middle, "max": max(waits) / middle}
        return {"cpu": reading.cpu / UNITS * 1e6, **spread}

    return measure


def _prepare(job: Job) -> Lap:
    measure = (_poolless if job.contender.variant else _together)(job)
    measure()
    return measure


def _group(host: str, *peers: str) -> tuple[Contender, ...]:
    ours = (Contender("greenpg", host, variant) for variant in ("", SHARED, ALONE))
    return (*ours, *(Contender(peer, host) for peer in peers))


def _targets(host: str) -> tuple[Target, ...]:
    name = f"greenpg/{host}"
    return (
        Target(name, "cpu", 6.0, f"{name} {SHARED}", against="difference"),
        Target(name, "p99", 4.0),
        Target(name, "max", 10.0),
    )


WORKLOAD = Workload(
    name="poolqueue",
    title=f"select 1 by {TASKS} tasks over {SIZE} connections",
    groups=(
        _group("gevent", "psycopg_pool", "QueuePool", "example"),
        _group("eventlet", "QueuePool", "db_pool"),
    ),
    metrics=(
        Metric("cpu", "client CPU, us/query"),
        Metric("p50", "median wait, ms", "{:.2f}"),
        Metric("p99", "p99 / median"),
        Metric("max", "longest / median"),
    ),
    targets=(*_targets("gevent"), *_targets("eventlet")),
    prepare=_prepare,
    units=UNITS,
    rounds=15,
    quick=5,
    pinned=True,
)
