"""Few descriptors are left: a clear error, nobody held up, and all is well once there are more."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from os import listdir
from posix import close, dup  # gevent's os.close() may defer to the loop
from typing import Any, Final

from psycopg2 import InterfaceError, OperationalError
from psycopg2.errors import QueryCanceled
from psycopg2.extensions import make_dsn

import greenpg
from greenpg.errors import DeadlineExceeded, PoolTimeout
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import each, needs, raises
from greenpg_conformance.toolkit.machine import Patience

from ._steps import INTERRUPTS, SHORT, ask, interrupted

SLOW: Final = "select 7 from pg_sleep(1)"
LEFT: Final = tuple(map(str, range(6)))
SPARE: Final = 16
HERE: Final = "127.0.0.1"
CLEAR: Final = ("connected", "Too many open files", "could not translate host name")


@contextmanager
def left(case: str) -> Iterator[None]:
    """Leave the process that many descriptors for the length of the block."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, listdir("/dev/fd")))
    kept: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + SPARE, limits[1]))
        with suppress(OSError):
            while True:
                kept.append(dup(0))
        for _ in range(int(case)):
            close(kept.pop())
        yield
    finally:
        for fd in kept:
            close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@each(*LEFT)
def test_query_needs_no_descriptor(ctx: Context, case: str) -> None:
    conn = ctx.connect(autocommit=True)

    with left(case):
        assert ask(conn, "select 7 from pg_sleep(0.1)") == 7

    assert ask(conn) == 7


@each(*LEFT)
def test_deadline_comes_out_in_time(ctx: Context, case: str) -> None:
    conn = ctx.connect(autocommit=True)

    with ctx.heartbeat(), left(case), raises(DeadlineExceeded), conn.deadline(SHORT):
        ask(conn, SLOW)

    _check_spent(ctx, conn)


@needs("kill")
@each(*(f"{how}, {case}" for how in INTERRUPTS for case in LEFT))
def test_interrupt_comes_out_in_time(ctx: Context, case: str) -> None:
    how, count = case.split(", ")
    conn = ctx.connect(autocommit=True)

    with ctx.heartbeat(), left(count):
        interrupted(ctx, how, lambda: ask(conn, SLOW), SHORT)

    _check_spent(ctx, conn)


@each(*LEFT)
def test_cancel_by_another_task(ctx: Context, case: str) -> None:
    conn = ctx.connect(autocommit=True)
    query = ctx.spawn(ask, conn, SLOW)
    ctx.busy(conn)

    with ctx.heartbeat(), left(case):
        with suppress(OperationalError):
            conn.cancel()
        query.join()

    assert isinstance(query.error, (QueryCanceled, InterfaceError)), repr(query.error)
    _check_spent(ctx, conn)


def _check_spent(ctx: Context, conn: Any) -> None:
    """Fail unless the connection is usable, or closed since nothing could be cancelled."""
    assert conn.closed or ask(conn) == 7
    conn.close()
    ctx.wait_until(lambda: not ctx.server.sessions(ctx.name), "the query is over")


@each("an address", "a name", "two hosts", "a socket")
def test_connect_says_what_is_missing(ctx: Context, case: str) -> None:
    hosts = {"an address": HERE, "a name": "localhost", "two hosts": f"{HERE},{HERE}"}
    dsn = make_dsn(ctx.dsn, host=hosts[case]) if case in hosts else ctx.dsn
    ctx.connect(dsn).close()  # what a library makes once

    for count in LEFT:
        with ctx.heartbeat(), left(count):
            said = _said(ctx, dsn)
        assert any(words in said for words in CLEAR), said

    assert ask(ctx.connect(dsn)) == 7


def _said(ctx: Context, dsn: str) -> str:
    try:
        greenpg.connect(dsn, backend=ctx.backend).close()
    except OperationalError as error:
        return str(error)
    return "connected"


@each(*LEFT)
def test_pool_is_whole_afterwards(ctx: Context, case: str) -> None:
    pool = greenpg.ConnectionPool(ctx.dsn, min_size=1, max_size=3, backend=ctx.backend)
    with closing(pool):
        pool.open(wait=True)
        with ctx.heartbeat(), left(case):
            with raises(DeadlineExceeded), pool.connection() as conn, conn.deadline(SHORT):
                ask(conn, SLOW)
            with suppress(PoolTimeout):
                assert ask(pool.getconn(timeout=SHORT)) == 7

        patience = Patience(5)
        lent = [pool.getconn(timeout=patience.left()) for _ in range(2)]

        assert [ask(conn) for conn in lent] == [7, 7]
        assert pool.get_stats()["pool_size"] <= 3
    ctx.wait_until(lambda: not ctx.server.sessions(ctx.name), "its sessions are over")
