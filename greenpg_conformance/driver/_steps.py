"""Interrupts, and what must hold after them: shared by the modules of the suite."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from greenpg.errors import InFailedSqlTransaction
from greenpg_conformance.harness.tests import raises

if TYPE_CHECKING:
    from greenpg_conformance.harness.context import Context

SHORT: Final = 0.05
LONG: Final = "select pg_sleep(30)"
INTERRUPTS: Final = ("timeout", "kill")


def check_stopped(ctx: Context, pid: int) -> None:
    ctx.wait_until(lambda: not ctx.server.is_busy(pid), "the query has ended", 1)


def check_alive(ctx: Context, conn: Any) -> None:
    """Fail unless the server has stopped the query and the connection does the next one."""
    pid = conn.info.backend_pid
    check_stopped(ctx, pid)
    with conn.cursor() as cur:
        cur.execute("select 7")
        assert cur.fetchall() == [(7,)]
    assert conn.info.backend_pid == pid


def check_doomed(conn: Any) -> None:
    """Fail unless the interrupted transaction takes nothing but a rollback."""
    for refused in (conn.commit, lambda: conn.cursor().execute("select 1"), conn.tpc_recover):
        with raises(InFailedSqlTransaction):
            refused()
    with raises(InFailedSqlTransaction), conn:
        pass
    conn.rollback()


def interrupted(ctx: Context, how: str, work: Callable[[], object], seconds: float) -> None:
    """Run something in a task and interrupt it; the very exception must propagate."""
    timeouts: list[Any] = []

    def bounded() -> None:
        timeouts.append(ctx.timeout(seconds))
        with timeouts[0]:
            work()

    task = ctx.spawn(bounded if how == "timeout" else work)
    if how == "kill":
        ctx.backend.sleep(seconds)
        task.kill()
    task.join(3)
    if how == "timeout":
        assert task.error is timeouts[0], repr(task.error)
    else:
        assert isinstance(task.error, ctx.backend.exits), repr(task.error)
