"""`conn.close()` from another task: at once, with no query left and a goodbye to the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from psycopg2 import InterfaceError, OperationalError
from psycopg2.extensions import make_dsn

import greenpg
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.drivers import PSYCOPG2
from greenpg_conformance.harness.tests import each, needs, over_psycopg, raises
from greenpg_conformance.toolkit.machine import Stopwatch

from ._steps import LONG, spawn_busy
from ._steps import WAYS as QUERIES
from ._steps import WAYS_OF_PSYCOPG as QUERIES_OF_PSYCOPG
from .connecting import listening

SOON: Final = 0.05
TRIES: Final = 5
LINKS: Final = ("plain", "tls")
RUDE: Final = """
    select coalesce(sum(sessions_abandoned + sessions_fatal + sessions_killed), 0)
    from pg_stat_database where datname = %s
"""
WAYS: Final[dict[str, Callable[[Any], object]]] = {
    **QUERIES,
    "inside a transaction": lambda conn: (conn.cursor().execute("select 1"), _long(conn)),
}


WAYS_OF_PSYCOPG: Final = {
    **QUERIES_OF_PSYCOPG,
    "inside a transaction": WAYS["inside a transaction"],
}


def _ways(ctx: Context) -> dict[str, Callable[[Any], object]]:
    return WAYS if ctx.driver is PSYCOPG2 else WAYS_OF_PSYCOPG


def _long(conn: Any) -> Any:
    return conn.cursor().execute(LONG)


@contextmanager
def _database(ctx: Context) -> Iterator[str]:
    """Make a database for this test, so that its statistics are the test's alone."""
    name = f"{ctx.name}_goodbyes"
    ctx.server.ask(f"create database {name}")
    try:
        yield name
    finally:
        ctx.server.ask(f"drop database {name} with (force)")


def _gone(ctx: Context, pid: int) -> None:
    ctx.wait_until(lambda: not ctx.server.exists(pid), f"session {pid} has ended")


@each(*WAYS)
@over_psycopg(*WAYS_OF_PSYCOPG)
def test_close_ends_the_wait_of_another_task(ctx: Context, case: str) -> None:
    conn = ctx.connect()
    pid = conn.info.backend_pid
    task = spawn_busy(ctx, conn, _ways(ctx)[case], conn)

    with ctx.heartbeat():
        conn.close()
        task.join()

    assert ctx.driver.closed(task.error)
    assert "closed" in str(task.error)
    assert conn.closed
    _gone(ctx, pid)


@each(*LINKS)
@over_psycopg()
def test_close_takes_milliseconds(ctx: Context, case: str) -> None:
    dsn = ctx.proxy(tls=True).dsn if case == "tls" else ctx.dsn

    took = [(_seconds_to_close(ctx, dsn), ctx.soon(SOON, dsn)) for _ in range(TRIES)]

    assert any(seconds < soon for seconds, soon in took), took


def _seconds_to_close(ctx: Context, dsn: str) -> float:
    conn = ctx.connect(dsn)
    task = spawn_busy(ctx, conn, _long, conn)
    watch = Stopwatch()
    conn.close()
    task.join()
    return watch.seconds()


def _wait_until_begun(ctx: Context, task: Any, pid: int) -> None:
    ctx.wait_until(lambda: task.ended or ctx.server.is_busy(pid))


@each(*LINKS)
@over_psycopg()
def test_close_says_goodbye(ctx: Context, case: str) -> None:
    with _database(ctx) as name:
        proxied = ctx.proxy(tls=True).dsn if case == "tls" else ctx.dsn
        for way in (*_ways(ctx).values(), lambda conn: conn.cursor().execute("select 1")):
            conn = ctx.connect(make_dsn(proxied, dbname=name))
            pid = conn.info.backend_pid
            task = ctx.spawn(way, conn)
            _wait_until_begun(ctx, task, pid)

            conn.close()

            task.join()
            _gone(ctx, pid)
        assert ctx.server.ask(RUDE, name) == [(0,)]


@over_psycopg()
def test_close_does_not_wait_for_a_block_in_its_own_code(ctx: Context) -> None:
    conn = ctx.connect(autocommit=True)
    closed, seen = ctx.backend.event(), ctx.backend.event()

    def holder() -> None:
        with conn.exclusive():
            with raises(Exception) as caught:
                conn.cursor().execute(LONG)
            assert ctx.driver.closed(caught.error)
            seen.set()
            assert closed.wait(5), "close() waited for the block"

    task = spawn_busy(ctx, conn, holder)

    conn.close()

    closed.set()
    task.result(2)
    assert seen.is_set()


@needs("kill")
@over_psycopg()
def test_close_of_what_is_being_interrupted(ctx: Context) -> None:
    conn = ctx.connect(ctx.proxy().dsn, autocommit=True)
    pid = conn.info.backend_pid
    task = spawn_busy(ctx, conn, _long, conn)
    ctx.proxy().delay(0.1, way="both")
    task.kill()
    ctx.backend.sleep(SOON)

    conn.close()

    assert task.join().error is not None
    ctx.proxy().flow()
    _gone(ctx, pid)


@over_psycopg()
def test_close_of_a_frozen_server_is_bounded(ctx: Context) -> None:
    conn = ctx.connect(ctx.proxy().dsn, autocommit=True)
    pid = conn.info.backend_pid
    task = spawn_busy(ctx, conn, _long, conn)
    ctx.proxy().stall()
    watch = Stopwatch()

    with ctx.heartbeat():
        conn.close()
        task.join()

    assert watch.seconds() < 2
    assert ctx.driver.closed(task.error)
    ctx.server.terminate(pid)


@each("task", "hub")
def test_close_ends_a_connect(ctx: Context, case: str) -> None:
    made: list[Any] = []

    class Seen(greenpg.extensions.connection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append(self)
            super().__init__(*args, **kwargs)

    descriptors = ctx.descriptors()
    with listening() as port:
        dsn = make_dsn(ctx.dsn, host="127.0.0.1", port=port)
        task = ctx.spawn(lambda: ctx.connect(dsn, connection_factory=Seen))
        ctx.wait_until(lambda: bool(made), "it connects")

        if case == "hub" and "hub" in ctx.backend.capabilities:
            ctx.in_hub(made[0].close)
        else:
            made[0].close()

        assert isinstance(task.join().error, InterfaceError)
    assert made.pop().closed
    ctx.wait_until(lambda: ctx.descriptors() == descriptors, "its socket is closed")


@needs("hub")
@over_psycopg()
def test_close_in_the_hub_ends_the_wait(ctx: Context) -> None:
    conn = ctx.connect(autocommit=True)
    pid = conn.info.backend_pid
    task = spawn_busy(ctx, conn, _long, conn)

    ctx.in_hub(conn.close)

    assert ctx.driver.closed(task.join().error)
    assert conn.closed
    _gone(ctx, pid)


def test_close_interrupts_what_waits_for_an_asynchronous_connection(ctx: Context) -> None:
    conn = ctx.connect(async_=True)
    greenpg.wait(conn)
    conn.cursor().execute("select pg_sleep(1)")
    task = ctx.spawn(greenpg.wait, conn)
    ctx.wait_until(lambda: task.began, "it waits")

    conn.close()

    assert isinstance(task.join().error, (InterfaceError, OperationalError))
