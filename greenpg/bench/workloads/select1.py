"""`select 1` over 32 connections, one task each."""

from __future__ import annotations

import asyncio
from importlib import import_module
from statistics import median
from typing import TYPE_CHECKING

from psycopg2.extensions import parse_dsn

from greenpg.bench._drivers import connector
from greenpg.bench._hosts import HOSTS, crew
from greenpg.bench._meter import Reading, meter
from greenpg.bench._model import CALLS, Contender, Job, Metric, Target, Workload

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from greenpg.bench._drivers import Cursor

    class AsyncConnection(Protocol):
        """What is used of an asyncpg connection."""

        async def fetchval(self, query: str, /) -> object: ...


TASKS = 32
WARM_UP = 20
LAPS = 5
ASYNCPG_NAMES = {name: name for name in ("host", "port", "user", "password")} | {
    "dbname": "database"
}
LOOPS = ("gevent", "gevent-libuv", "eventlet", "eventlet-asyncio")


def _ask(cursor: Cursor, times: int) -> None:
    for _ in range(times):
        cursor.execute("select 1")
        cursor.fetchone()


def _blocking(job: Job) -> list[Reading]:
    connect = connector(job.contender)
    connections = [connect(job.dsn) for _ in range(TASKS)]
    cursors = [connection.cursor() for connection in connections]
    tasks = crew(HOSTS[job.contender.host], TASKS)

    def lap(times: int) -> None:
        for cursor in cursors:
            tasks.start(_ask, cursor, times)
        tasks.finish()

    lap(WARM_UP)
    readings = []
    for _ in range(LAPS):
        with meter() as reading:
            lap(job.size // TASKS // LAPS)
        readings.append(reading)
    for connection in connections:
        connection.close()
    return readings


async def _ask_async(connection: AsyncConnection, times: int) -> None:
    for _ in range(times):
        await connection.fetchval("select 1")


async def _async(job: Job) -> list[Reading]:
    parsed = parse_dsn(job.dsn)
    options = {ours: parsed[libpqs] for libpqs, ours in ASYNCPG_NAMES.items() if libpqs in parsed}
    connect = import_module("asyncpg").connect
    connections = [await connect(**options) for _ in range(TASKS)]
    await asyncio.gather(*(_ask_async(one, WARM_UP) for one in connections))
    readings = []
    for _ in range(LAPS):
        with meter() as reading:
            await asyncio.gather(
                *(_ask_async(one, job.size // TASKS // LAPS) for one in connections)
            )
        readings.append(reading)
    for connection in connections:
        await connection.close()
    return readings


def _measure(job: Job) -> Mapping[str, float]:
    if job.contender.driver == "asyncpg":
        readings: list[Reading] = import_module("uvloop").run(_async(job))
    else:
        readings = _blocking(job)
    queries = job.size // TASKS // LAPS * TASKS
    return {
        "cpu": median(reading.cpu for reading in readings) / queries * 1e6,
        "rate": queries / median(reading.wall for reading in readings),
    }


def _against(peer: str, limit: float, aim: float | None, *, host: str) -> Target:
    return Target(f"greenpg/{host}", "cpu", limit, peer, aim)


def _calls(host: str) -> Target:
    # One send and one recv; the rest is room for what loops and allocators do now and then.
    return Target(f"greenpg/{host}", "unshared", 2.1)


WORKLOAD = Workload(
    name="select1",
    title=f"select 1 over {TASKS} connections, one task each",
    contenders=(
        # Those that are compared stand side by side: the machine changes least between them.
        Contender("psycopg2", "threads"),
        Contender("greenpg", "threads"),
        Contender("psycopg", "gevent"),
        Contender("asyncpg", "uvloop"),
        *(Contender(driver, host) for host in LOOPS for driver in ("greenpg", "psycogreen")),
    ),
    metrics=(
        Metric("cpu", "client CPU, us/query"),
        Metric("rate", "queries/s", "{:,.0f}"),
        *CALLS,
    ),
    targets=(
        _against("psycogreen/gevent", 0.95, 0.88, host="gevent"),
        _against("psycogreen/gevent-libuv", 0.60, 0.55, host="gevent-libuv"),
        _against("psycogreen/eventlet", 0.80, 0.75, host="eventlet"),
        _against("psycogreen/eventlet-asyncio", 0.60, 0.50, host="eventlet-asyncio"),
        _against("asyncpg/uvloop", 0.85, None, host="gevent"),
        _against("psycopg/gevent", 0.40, None, host="gevent"),
        *(_calls(host) for host in LOOPS),
    ),
    measure=_measure,
    size=16_000,
    quick=4_800,
)
