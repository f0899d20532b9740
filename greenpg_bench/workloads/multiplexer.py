"""The multiplexer: `select 1` by many tasks, at once and 10 ms away, and a join again and again."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, TypeAlias

from greenpg_bench.c_client import client
from greenpg_bench.drivers import connector
from greenpg_bench.far import away
from greenpg_bench.hosts import HOSTS, crew
from greenpg_bench.meter import meter
from greenpg_bench.model import Job, Lap, Metric, Sample, Target, Workload, contenders
from greenpg_bench.pools import lender

from . import select1
from .queries import JOIN, QUERIES

FAR: Final = "10 ms away"
TASKS: Final = {"": select1.TASKS, FAR: 1000, JOIN: 1}
TIMES: Final = {"": 100, FAR: 1, JOIN: 100}
DISTANCE: Final = 0.01
SIZE: Final = 4
UNITS: Final = TASKS[""] * TIMES[""]
Ask: TypeAlias = Callable[[str, Any], object]
Do: TypeAlias = Callable[[int], None]  # so many statements by each task


def _multiplexed(job: Job) -> Do:
    connector(job.contender)
    made = import_module("greenpg").Multiplexer(job.dsn, max_size=SIZE)

    def ask(query: str, parameters: Any) -> object:
        return made.execute(query, parameters).fetchone()

    return _by_tasks(job, [ask] * TASKS[job.contender.variant])


def _pooled(job: Job) -> Do:
    lend = lender(job.contender, job.dsn, SIZE)

    def ask(query: str, parameters: Any) -> object:
        with lend() as conn:
            return _asked(conn.cursor(), query, parameters)

    return _by_tasks(job, [ask] * TASKS[job.contender.variant])


def _one_each(job: Job) -> Do:
    connect = connector(job.contender)
    cursors: list[Any] = [connect(job.dsn).cursor() for _ in range(TASKS[job.contender.variant])]
    return _by_tasks(
        job, [lambda *args, cursor=cursor: _asked(cursor, *args) for cursor in cursors]
    )


def _asked(cursor: Any, query: str, parameters: Any) -> object:
    cursor.execute(query, parameters)
    return cursor.fetchone()


def _by_tasks(job: Job, asks: list[Ask]) -> Do:
    query, parameters = QUERIES.get(job.contender.variant, ("select 1", None))
    tasks = crew(HOSTS[job.contender.host], len(asks))

    def work(ask: Ask, times: int) -> None:
        for _ in range(times):
            ask(query, parameters)

    def do(times: int) -> None:
        for ask in asks:
            tasks.start(work, ask, times)
        tasks.finish()

    return do


def _in_c(job: Job) -> Do:
    connect = connector(job.contender)
    return client([connect(job.dsn) for _ in range(TASKS[""])])


def _found(job: Job) -> Do:
    driver, variant = job.contender.driver, job.contender.variant
    if variant == FAR:
        job = Job(job.contender, away(job.dsn, DISTANCE))
    if driver == "multiplexer":
        return _multiplexed(job)
    if driver == "asyncpg":
        return select1.asynchronous(job)
    if driver == "C":
        return _in_c(job)
    return (_pooled if variant == FAR else _one_each)(job)


def _prepare(job: Job) -> Lap:
    variant, do = job.contender.variant, _found(job)
    do(TIMES[variant])

    def measure() -> Sample:
        count = TASKS[variant] * TIMES[variant]
        with meter() as reading:
            do(TIMES[variant])
        return {"cpu": reading.cpu / count * 1e6, "rate": count / reading.wall}

    return measure


WORKLOAD = Workload(
    name="multiplexer",
    title=f"select 1 by {TASKS['']} tasks; by {TASKS[FAR]:,} tasks, {FAR}; a join by one task",
    groups=(
        contenders("multiplexer/gevent", "greenpg/gevent", "asyncpg/uvloop", "C/epoll"),
        contenders("multiplexer/eventlet", "greenpg/eventlet"),
        contenders("multiplexer/gevent", "greenpg/gevent", variant=FAR),
        contenders("multiplexer/gevent", "psycopg2/threads", variant=JOIN),
    ),
    metrics=(Metric("cpu", "client CPU, us/query"), Metric("rate", "queries/s", "{:,.0f}")),
    targets=(
        Target("multiplexer/gevent", "cpu", 0.70, "greenpg/gevent", 0.50),
        Target("multiplexer/gevent", "cpu", 0.55, "asyncpg/uvloop"),
        Target("multiplexer/gevent", "cpu", 2.2, "C/epoll"),
        Target("multiplexer/gevent", "rate", 2.0, "greenpg/gevent", at_least=True),
        Target("multiplexer/eventlet", "cpu", 0.75, "greenpg/eventlet"),
        Target(f"multiplexer/gevent {FAR}", "rate", 20, f"greenpg/gevent {FAR}", 50, at_least=True),
        Target(
            f"multiplexer/gevent {JOIN}", "rate", 2.2, f"psycopg2/threads {JOIN}", at_least=True
        ),
    ),
    prepare=_prepare,
    units=UNITS,
    rounds=30,
    quick=10,
)
