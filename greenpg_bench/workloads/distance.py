"""`select 1` by 1 to 10,000 tasks, each again and again: a multiplexer beside a pool.

Both have 4 connections, to a server at 0, 1 or 10 ms of round trip. For tasks that ask all the
time, the mean time of an answer is their number divided by the rate.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from importlib import import_module
from typing import Any, Final

from greenpg.pool import PoolClosed
from greenpg_bench.drivers import connector
from greenpg_bench.far import away
from greenpg_bench.hosts import HOSTS, crew
from greenpg_bench.meter import meter
from greenpg_bench.model import Job, Lap, Metric, Sample, Workload, contenders

TRIPS: Final = (0, 1, 10)  # ms
TASKS: Final = (1, 10, 100, 1000, 10_000)
SIZE: Final = 4
WARM_UP, SECONDS = 0.3, 1.0
PATIENCE: Final = 120.0  # 10,000 tasks wait for half a minute in a pool at 10 ms


def _autocommit(conn: Any) -> None:
    conn.autocommit = True


def _pool(dsn: str) -> tuple[AbstractContextManager[object], Callable[[], object]]:
    make = import_module("greenpg").ConnectionPool
    pool = make(dsn, min_size=SIZE, timeout=PATIENCE, configure=_autocommit)

    def ask() -> None:
        with pool.connection() as conn, conn.cursor() as cur:
            cur.execute("select 1")
            cur.fetchone()

    return pool, ask


def _multiplexer(dsn: str) -> tuple[AbstractContextManager[object], Callable[[], object]]:
    made = import_module("greenpg").Multiplexer(dsn, max_size=SIZE, timeout=PATIENCE)
    return made, lambda: made.execute("select 1").fetchone()


def _prepare(job: Job) -> Lap:
    trip, count = map(int, job.contender.variant.split(" ms, "))
    dsn = away(job.dsn, trip / 1e3) if trip else job.dsn
    connector(job.contender)
    make = _multiplexer if job.contender.driver == "multiplexer" else _pool
    tasks = crew(HOSTS[job.contender.host], count)

    def measure() -> Sample:
        answers = 0
        opened, ask = make(dsn)

        def work() -> None:
            nonlocal answers
            with suppress(PoolClosed):
                while True:
                    ask()
                    answers += 1

        with opened:
            for _ in range(count):
                tasks.start(work)
            tasks.sleep(WARM_UP)
            before = answers
            with meter() as reading:
                tasks.sleep(SECONDS)
            rate = (answers - before) / reading.wall
        tasks.finish()
        return {"rate": rate, "time": count / rate * 1e3}

    return measure


WORKLOAD = Workload(
    name="distance",
    title=f"select 1 by tasks over {SIZE} connections, at ms of round trip",
    groups=tuple(
        contenders("multiplexer/gevent", "pool/gevent", variant=f"{trip} ms, {count}")
        for trip in TRIPS
        for count in TASKS
    ),
    metrics=(
        Metric("rate", "answers/s", "{:,.0f}"),
        Metric("time", "mean time of an answer, ms", "{:,.2f}"),
    ),
    targets=(),
    prepare=_prepare,
    units=1,
    rounds=3,
    quick=1,
    axis="tasks",
)
