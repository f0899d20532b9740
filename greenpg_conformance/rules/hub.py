"""In the event loop's own task nothing may wait, so nothing is sent from there."""

from __future__ import annotations

from typing import Any, Final

import greenpg
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.operations import OPERATIONS, Stage
from greenpg_conformance.harness.tests import each, needs, raises
from greenpg_conformance.toolkit.machine import clock

from .asking import asked

NEED_NO_WAIT: Final = ("fetch", "cursor close", "autocommit", "isolation_level", "poll")
ENDS: Final = ("rollback", "reset", "close", "with conn")
REFUSED: Final = tuple(name for name in OPERATIONS if name not in (*ENDS, *NEED_NO_WAIT))
SESSION: Final = "select query, query_start, state_change from pg_stat_activity where pid = %s"
AT_ONCE: Final = 0.2


@needs("hub")
@each(*REFUSED)
def test_refused_before_anything_is_sent(ctx: Context, case: str) -> None:
    stage = Stage.prepared(ctx.connect(), began=True)
    pid = stage.conn.info.backend_pid
    before = ctx.server.ask(SESSION, pid)

    with raises(greenpg.ProgrammingError, words="green thread"):
        ctx.in_hub(lambda: OPERATIONS[case](stage))

    assert ctx.server.ask(SESSION, pid) == before
    assert asked(stage.conn, 7) == 7
    stage.conn.commit()


@needs("hub")
@each(*REFUSED, "rollback", "reset")
def test_refused_while_a_task_uses_the_connection(ctx: Context, case: str) -> None:
    stage = Stage.prepared(ctx.connect(), began=True)
    query = ctx.spawn(asked, stage.conn, 7, 0.1)
    ctx.busy(stage.conn)

    with raises(greenpg.ProgrammingError):
        ctx.in_hub(lambda: OPERATIONS[case](stage))

    assert query.result() == 7
    stage.conn.commit()


@needs("hub")
def test_refused_while_a_task_holds_the_lock(ctx: Context) -> None:
    conn = ctx.connect()

    with conn.exclusive(), raises(greenpg.ProgrammingError):
        ctx.in_hub(lambda: asked(conn, 7))

    assert asked(conn, 7) == 7


@needs("hub")
@each("rollback", "reset", "close")
def test_what_ends_a_connection_closes_it_without_a_wait(ctx: Context, case: str) -> None:
    stage = Stage.prepared(ctx.connect(), began=True)
    pid = stage.conn.info.backend_pid

    took = ctx.in_hub(lambda: _timed(OPERATIONS[case], stage))

    assert took < AT_ONCE
    assert stage.conn.closed
    ctx.wait_until(lambda: not ctx.server.exists(pid), "the session has ended")


@needs("hub")
def test_close_interrupts_the_task_that_waits(ctx: Context) -> None:
    conn = ctx.connect()
    pid = conn.info.backend_pid
    query = ctx.spawn(asked, conn, 7, 10)
    ctx.busy(conn)

    took = ctx.in_hub(lambda: _timed(conn.close))

    assert took < AT_ONCE
    assert isinstance(query.join().error, (greenpg.InterfaceError, greenpg.OperationalError))
    assert conn.closed
    ctx.wait_until(lambda: not ctx.server.exists(pid), "the session has ended")


@needs("hub")
def test_close_meets_those_who_wait_for_their_turn(ctx: Context) -> None:
    conn = ctx.connect()
    jobs = [ctx.spawn(asked, conn, 7, 10) for _ in range(3)]
    ctx.busy(conn)

    ctx.in_hub(conn.close)

    for job in jobs:
        assert isinstance(job.join().error, (greenpg.InterfaceError, greenpg.OperationalError))


@needs("hub")
def test_finalizer_that_rolls_back(ctx: Context) -> None:
    class Session:
        def __init__(self, conn: Any) -> None:
            self.conn = conn

        def __del__(self) -> None:
            self.conn.rollback()

    conn = ctx.connect()
    assert asked(conn, 7) == 7
    kept = [Session(conn)]

    ctx.in_hub(kept.clear)

    assert conn.closed


@needs("hub")
def test_connecting_is_refused(ctx: Context) -> None:
    with raises(greenpg.ProgrammingError):
        ctx.in_hub(lambda: greenpg.connect(ctx.dsn))

    assert asked(ctx.connect(), 7) == 7


@needs("hub")
def test_connection_can_be_made_ready_and_looked_at(ctx: Context) -> None:
    conn = ctx.connect()
    conn.cursor().execute("select 1")

    def look() -> tuple[int, str, int]:
        cur = conn.cursor()
        cur.close()
        return conn.status, conn.encoding, conn.closed

    assert ctx.in_hub(look) == (greenpg.extensions.STATUS_BEGIN, "UTF8", 0)


def _timed(fn: Any, *args: object) -> float:
    began = clock()
    fn(*args)
    return clock() - began
