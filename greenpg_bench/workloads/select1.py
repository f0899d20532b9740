"""`select 1` over 32 connections, one task each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from psycopg2.extensions import parse_dsn

from greenpg_bench.drivers import Cursor, connector
from greenpg_bench.hosts import HOSTS, crew
from greenpg_bench.meter import meter
from greenpg_bench.model import CALLS, Contender, Job, Metric, Target, Workload

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    class AsyncConnection(Protocol):
        """What is used of an asyncpg connection."""

        async def fetchval(self, query: str, /) -> object: ...


TASKS = 32
WARM_UP = 20
UNITS = TASKS * 100
ASYNCPG_NAMES = {name: name for name in ("host", "port", "user", "password")} | {
    "dbname": "database"
}
LOOPS = ("gevent", "gevent-libuv", "eventlet", "eventlet-asyncio")


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


def _async(job: Job) -> Callable[[int], None]:
    parsed = parse_dsn(job.dsn)
    options = {ours: parsed[libpqs] for libpqs, ours in ASYNCPG_NAMES.items() if libpqs in parsed}
    connect = import_module("asyncpg").connect
    loop: AbstractEventLoop = import_module("uvloop").new_event_loop()
    connections = [loop.run_until_complete(connect(**options)) for _ in range(TASKS)]

    async def together(times: int) -> None:
        await asyncio.gather(*(_ask_async(one, times) for one in connections))

    return lambda times: loop.run_until_complete(together(times))


def _prepare(job: Job) -> Callable[[], Mapping[str, float]]:
    lap = (_async if job.contender.driver == "asyncpg" else _blocking)(job)
    lap(WARM_UP)

    def measure() -> Mapping[str, float]:
        with meter() as reading:
            lap(UNITS // TASKS)
        return {"cpu": reading.cpu / UNITS * 1e6, "rate": UNITS / reading.wall}

    return measure


def _against(peer: str, limit: float, aim: float | None, *, host: str) -> Target:
    return Target(f"greenpg/{host}", "cpu", limit, peer, aim)


def _calls(host: str) -> Target:
    # One send and one recv; the rest is room for what loops and allocators do now and then.
    return Target(f"greenpg/{host}", "calls", 2.1)


WORKLOAD = Workload(
    name="select1",
    title=f"select 1 over {TASKS} connections, one task each",
    groups=(
        (Contender("greenpg", "threads"), Contender("psycopg2", "threads")),
        (
            Contender("greenpg", "gevent"),
            Contender("psycogreen", "gevent"),
            Contender("asyncpg", "uvloop"),
            Contender("psycopg", "gevent"),
        ),
        *((Contender("greenpg", host), Contender("psycogreen", host)) for host in LOOPS[1:]),
    ),
    metrics=(Metric("cpu", "client CPU, us/query"), Metric("rate", "queries/s", "{:,.0f}"), *CALLS),
    targets=(
        _against("psycogreen/gevent", 0.95, 0.88, host="gevent"),
        _against("psycogreen/gevent-libuv", 0.60, 0.55, host="gevent-libuv"),
        _against("psycogreen/eventlet", 0.80, 0.75, host="eventlet"),
        _against("psycogreen/eventlet-asyncio", 0.60, 0.50, host="eventlet-asyncio"),
        _against("asyncpg/uvloop", 0.85, None, host="gevent"),
        _against("psycopg/gevent", 0.40, None, host="gevent"),
        *(_calls(host) for host in LOOPS),
    ),
    prepare=_prepare,
    units=UNITS,
    rounds=30,
    quick=10,
    pinned=True,
)
