"""`conn.cancel()`: never holds up the others, and never hits a later query."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, Final

from psycopg2 import InterfaceError, ProgrammingError

from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import each, needs, over_psycopg, raises
from greenpg_conformance.toolkit.internals import set_cancel_timeout
from greenpg_conformance.toolkit.machine import Stopwatch

from ._steps import LIBPQS, ask, libpq

FAR: Final = 0.1  # seconds to the server


def _connected(ctx: Context) -> Any:
    conn = ctx.connect(ctx.proxy().dsn, autocommit=True)
    conn.cursor().execute("select 1")
    return conn


def _sleeper(ctx: Context, conn: Any, seconds: float = 30) -> Any:
    pid = conn.info.backend_pid
    query = ctx.spawn(lambda: conn.cursor().execute("select pg_sleep(%s)", (seconds,)))
    ctx.wait_until(lambda: query.ended or ctx.server.is_busy(pid), "the query runs, or is over")
    return query


def _answers(conn: Any, number: int) -> None:
    assert ask(conn, "select %s from pg_sleep(0.02)", number) == number


def _answers_until(conn: Any, over: Any) -> None:
    """Run statements that a stray cancel would hit."""
    for number in count():
        _answers(conn, number)
        if over.ended:
            return


@each(*LIBPQS)
@over_psycopg()
def test_cancel_holds_up_nobody(ctx: Context, case: str) -> None:
    conn = _connected(ctx)
    query = _sleeper(ctx, conn)
    ctx.proxy().delay(FAR, way="both")

    with libpq(ctx, case), ctx.heartbeat():
        conn.cancel()
        query.join()

    assert type(query.error) is ctx.driver.cancelled
    ctx.proxy().flow()
    _answers(conn, 7)


@each(*LIBPQS)
@over_psycopg()
def test_cancel_that_travels_long_hits_no_later_query(ctx: Context, case: str) -> None:
    _late_cancel(ctx, case, lambda cancel: None).result()


@needs("kill")
@each(*LIBPQS)
@over_psycopg()
def test_killed_canceller_lets_its_request_hit_no_later_query(ctx: Context, case: str) -> None:
    cancel = _late_cancel(ctx, case, lambda cancel: cancel.kill())

    assert isinstance(cancel.error, ctx.backend.exits)


def _late_cancel(ctx: Context, case: str, meanwhile: Callable[[Any], object]) -> Any:
    """Return an ended task whose request to cancel a query arrived after the query's end."""
    conn, holder = _connected(ctx), ctx.connect(autocommit=True)
    pid, lock = conn.info.backend_pid, holder.info.backend_pid
    ask(holder, "select pg_advisory_lock(%s)", lock)
    query = ctx.spawn(ask, conn, "select pg_advisory_lock(%s)", lock)
    ctx.wait_until(lambda: ctx.server.is_busy(pid), "the query waits for the lock")
    ctx.proxy().stall(scope="coming")

    with libpq(ctx, case):
        cancel = ctx.spawn(conn.cancel)
        ctx.wait_until(lambda: cancel.began, "the request is under way")
        meanwhile(cancel)
        ask(holder, "select pg_advisory_unlock(%s)", lock)
        ctx.spawn(_flow_later, ctx)
        query.join()
        _answers_until(conn, cancel)
    return cancel.join()


def _flow_later(ctx: Context) -> None:
    ctx.backend.sleep(FAR)
    ctx.proxy().flow()


@each(*LIBPQS)
@over_psycopg()
def test_cancels_of_many_tasks_hit_no_later_query(ctx: Context, case: str) -> None:
    conn = _connected(ctx)
    for number in range(3):
        query = _sleeper(ctx, conn, 0.02)
        ctx.proxy().delay(0.03, way="both", scope="coming")

        with libpq(ctx, case):
            cancels = [ctx.spawn(conn.cancel) for _ in range(4)]
            query.join()
            for cancel in cancels:
                cancel.result()
        _answers(conn, number)


@each(*LIBPQS)
@over_psycopg()
def test_frozen_server_takes_no_cancel(ctx: Context, case: str) -> None:
    conn = _connected(ctx)
    set_cancel_timeout(conn, 0.4)
    query = _sleeper(ctx, conn)
    ctx.proxy().stall()
    pid, watch = conn.info.backend_pid, Stopwatch()

    with libpq(ctx, case), ctx.heartbeat(), raises(ctx.driver.operational, words="cancel"):
        conn.cancel()
    query.join()

    assert watch.seconds() < 2
    assert ctx.driver.closed(query.error)
    assert conn.closed
    ctx.server.terminate(pid)


@each(*LIBPQS, "idle connection")
@over_psycopg()
def test_cancel_that_cannot_be_delivered_closes(ctx: Context, case: str) -> None:
    conn = _connected(ctx)
    pid = conn.info.backend_pid
    query = None if case == "idle connection" else _sleeper(ctx, conn)
    ctx.proxy().refuse()

    try:
        with libpq(ctx, case), raises(ctx.driver.operational, words="cancel"):
            conn.cancel()
        assert query is None or ctx.driver.closed(query.join().error)
    finally:
        ctx.proxy().admit()

    assert conn.closed
    ctx.server.terminate(pid)


@over_psycopg()
def test_cancel_keeps_a_query_from_starting_while_it_is_under_way(ctx: Context) -> None:
    conn = _connected(ctx)
    ctx.proxy().delay(FAR, way="both", scope="coming")

    cancel = ctx.spawn(conn.cancel)
    ctx.wait_until(lambda: cancel.began, "the request is under way")
    _answers_until(conn, cancel)

    cancel.result()


def test_cancel_where_there_is_nothing_to_cancel(ctx: Context) -> None:
    conn = _connected(ctx)
    with raises(InterfaceError):
        closed = ctx.connect()
        closed.close()
        closed.cancel()
    with raises(ProgrammingError):
        conn.autocommit = False
        conn.tpc_begin(conn.xid(0, ctx.name, ""))
        conn.tpc_prepare()
        conn.cancel()

    conn.tpc_rollback()
    _answers(conn, 7)
