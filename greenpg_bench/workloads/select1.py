"""`select 1` over 32 connections, one task each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from psycopg2.extensions import parse_dsn

from greenpg_bench.drivers import Cursor, connector
from greenpg_bench.hosts import HOSTS, crew
from greenpg_bench.meter import meter
from greenpg_bench.model import CALLS, LOOPS, Job, Lap, Metric, Sample, Target, Workload, contenders

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    class AsyncConnection(Protocol):
        """What is used of an asyncpg connection."""

        async def fetchval(self, query: str, /) -> object: ...


TASKS = 32
WARM_UP = 20
UNITS = TASKS * 100
ASYNCPG_NAMES = {"dbname": "database"} | {
    name: name for name in ("host", "port", "user", "password", "passfile")
}


def _ask(cursor: Cursor, times: int) -> None:
    for _ in range(times):
        cursor.execute("select 1")
        cursor.fetchone()


def _blocking(job: Job) -> Callable[[int], None]:
    connect = connector(job.contender)
    connections = [connect(job.dsn) for _ in range(TASKS)]
    cursors = [connection.cursor() for connection in connections]
    tasks = crew(HOSTS[job.contender.host], TASKS)

    def lap(times: int) -> None:
        for cursor in cursors:
            tasks.start(_ask, cursor, times)
        tasks.finish()

    return lap


async def _ask_async(connection: AsyncConnection, times: int) -> None:
    for _ in range(times):
        await connection.fetchval("select 1")


def asynchronous(job: Job) -> Callable[[int], None]:
    """Return what asks so many times on each connection, with asyncpg."""
    parsed = parse_dsn(job.dsn)
    options = {ours: parsed[libpqs] for libpqs, ours in ASYNCPG_NAMES.items() if libpqs in parsed}
    connect = import_module("asyncpg").connect
    loop: AbstractEventLoop = import_module("uvloop").new_event_loop()
    connections = [loop.run_until_complete(connect(**options)) for _ in range(TASKS)]

    async def together(times: int) -> None:
        await asyncio.gather(*(_ask_async(one, times) for one in connections))

    return lambda times: loop.run_until_complete(together(times))


def _prepare(job: Job) -> Lap:
    lap = (asynchronous if job.contender.driver == "asyncpg" else _blocking)(job)
    lap(WARM_UP)

    def measure() -> Sample:
        with meter() as reading:
            lap(UNITS // TASKS)
        return {"cpu": reading.cpu / UNITS * 1e6, "rate": UNITS / reading.wall}

    return measure


WORKLOAD = Workload(
    name="select1",
    title=f"select 1 over {TASKS} connections, one task each",
    groups=(
        contenders("greenpg/threads", "psycopg2/threads"),
        contenders(
            *("greenpg/gevent", "psycogreen/gevent", "asyncpg/uvloop", "psycopg/gevent"),
            *("greenpg3/gevent", "greenpg3/eventlet"),
        ),
        *(contenders(f"greenpg/{host}", f"psycogreen/{host}") for host in LOOPS[1:]),
    ),
    metrics=(Metric("cpu", "client CPU, us/query"), Metric("rate", "queries/s", "{:,.0f}"), *CALLS),
    targets=(
        Target("greenpg/gevent", "cpu", 0.95, "psycogreen/gevent", 0.88),
        Target("greenpg/gevent-libuv", "cpu", 0.60, "psycogreen/gevent-libuv", 0.55),
        Target("greenpg/eventlet", "cpu", 0.80, "psycogreen/eventlet", 0.75),
        Target("greenpg/eventlet-asyncio", "cpu", 0.60, "psycogreen/eventlet-asyncio", 0.50),
        Target("greenpg/gevent", "cpu", 0.85, "asyncpg/uvloop"),
        Target("greenpg/gevent", "cpu", 0.40, "psycopg/gevent"),
        Target("greenpg3/gevent", "cpu", 0.60, "psycopg/gevent", 0.50),
        Target("greenpg3/eventlet", "cpu", 0.75, "psycopg/gevent"),
        # One send and one recv; the rest is room for what loops and allocators do now and then.
        *(Target(f"greenpg/{host}", "calls", 2.1) for host in LOOPS),
    ),
    prepare=_prepare,
    units=UNITS,
    rounds=30,
    quick=10,
    pinned=True,
)
