"""No silent loss: what an interrupted transaction, or its interrupted end, allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

from psycopg2 import extensions as ext

from greenpg.errors import InFailedSqlTransaction, QueryCanceled
from greenpg_conformance.harness.tests import each, needs, raises

from ._steps import INTERRUPTS, LONG, SHORT, check_alive, check_doomed, interrupted

if TYPE_CHECKING:
    from greenpg_conformance.harness.context import Context


# No silent loss


@needs("kill")
@each(*INTERRUPTS)
def test_interrupted_transaction_takes_only_a_rollback(ctx: Context, case: str) -> None:
    conn = ctx.connect()
    conn.cursor().execute("select 1")

    interrupted(ctx, case, lambda: conn.cursor().execute(LONG), SHORT)

    check_doomed(conn)
    check_alive(ctx, conn)


@needs("kill")
def test_transaction_is_doomed_also_if_the_server_was_faster(ctx: Context) -> None:
    proxy = ctx.proxy()
    conn = ctx.connect(proxy.dsn)
    conn.cursor().execute("select 1")
    proxy.delay(0.2)  # the answer is there at once, but not here

    interrupted(ctx, "timeout", lambda: conn.cursor().execute("select 1"), SHORT)

    proxy.flow()
    check_doomed(conn)
    check_alive(ctx, conn)


@needs("kill")
def test_end_of_a_named_cursors_block_hides_no_interrupt(ctx: Context) -> None:
    proxy = ctx.proxy()
    conn = ctx.connect(proxy.dsn)
    conn.cursor().execute("select 1")
    proxy.delay(0.2)  # the server will have been faster

    def work() -> None:
        with conn.cursor("fast") as cur:
            cur.execute("select 1")

    interrupted(ctx, "timeout", work, SHORT)

    proxy.flow()
    check_doomed(conn)


@needs("kill")
@each("execute", "executemany")
def test_what_follows_an_interrupted_command_is_not_sent(ctx: Context, case: str) -> None:
    """Neither the statement after its BEGIN nor the next row's."""
    proxy = ctx.proxy()
    name = f"{ctx.name}_numbers"
    ctx.server.ask(f"create sequence {name}")
    conn = ctx.connect(proxy.dsn, autocommit=case == "executemany")
    proxy.delay(0.2)

    def work() -> None:
        count = 1 if case == "execute" else 5
        conn.cursor().executemany("select nextval(%s)", [(name,)] * count)

    interrupted(ctx, "timeout", work, SHORT)

    proxy.flow()
    conn.rollback()
    drawn = ctx.server.ask(f"select last_value * is_called::int from {name}")
    assert drawn == [(0 if case == "execute" else 1,)]
    ctx.server.ask(f"drop sequence {name}")


ENDS: Final[dict[str, Callable[[Any], object]]] = {
    "rollback": lambda conn: conn.rollback(),
    "reset": lambda conn: conn.reset(),
    "set_isolation_level": lambda conn: conn.set_isolation_level(ext.ISOLATION_LEVEL_SERIALIZABLE),
    "commit": lambda conn: conn.commit(),
}


@needs("kill")
@each(*ENDS)
def test_interrupted_end_of_a_transaction_ends_it(ctx: Context, case: str) -> None:
    proxy = ctx.proxy()
    conn = ctx.connect(proxy.dsn)
    conn.cursor().execute("set greenpg.test to 'before'")
    proxy.delay(0.15)

    interrupted(ctx, "timeout", lambda: ENDS[case](conn), SHORT)

    proxy.flow()
    assert conn.info.transaction_status == ext.TRANSACTION_STATUS_IDLE
    assert conn.status == ext.STATUS_READY
    check_alive(ctx, conn)


@needs("kill")
@each("autocommit", "transaction")
def test_interrupted_reset_is_complete(ctx: Context, case: str) -> None:
    proxy = ctx.proxy()
    conn = ctx.connect(proxy.dsn, autocommit=case == "autocommit")
    cur = conn.cursor()
    cur.execute("set greenpg.test to 'before'")
    conn.commit()
    cur.execute("select 1")
    proxy.delay(0.15)

    interrupted(ctx, "timeout", conn.reset, SHORT)

    proxy.flow()
    cur.execute("select coalesce(current_setting('greenpg.test', true), '')")
    assert cur.fetchone() == ("",)


# Two-phase transactions


@contextmanager
def _slow_table(ctx: Context) -> Iterator[str]:
    """Make a table of which a row makes PREPARE and COMMIT take long: a deferred trigger sleeps."""
    ask, name = ctx.server.ask, f"{ctx.name}_slow"
    ask(f"create table {name} (n int)")
    ask(
        f"create function {name}_nap() returns trigger language plpgsql as "
        "'begin perform pg_sleep(30); return null; end'"
    )
    ask(
        f"create constraint trigger nap after insert on {name} deferrable initially deferred "
        f"for each row execute function {name}_nap()"
    )
    try:
        yield name
    finally:
        ask(f"drop table {name}")
        ask(f"drop function {name}_nap()")


@needs("kill")
@each("tpc_prepare", "tpc_commit", "cancelled tpc_prepare", "cancelled tpc_commit")
def test_stopped_end_of_a_two_phase_transaction(ctx: Context, case: str) -> None:
    with _slow_table(ctx) as table, closing(ctx.connect()) as conn:
        conn.tpc_begin(conn.xid(0, ctx.name, ""))
        conn.cursor().execute(f"insert into {table} values (1)")
        end = getattr(conn, case.rpartition(" ")[2])

        if case.startswith("cancelled"):
            task = ctx.spawn(end)
            ctx.busy(conn)
            conn.cancel()
            assert isinstance(task.join(2).error, QueryCanceled)
        else:
            interrupted(ctx, "timeout", end, SHORT)

        _check_two_phase_is_over(ctx, conn, prepared="prepare" in case)
        check_alive(ctx, conn)


def _check_two_phase_is_over(ctx: Context, conn: Any, prepared: bool) -> None:
    if prepared:  # which has failed
        with raises(InFailedSqlTransaction):
            conn.cursor().execute("select 1")
        conn.tpc_rollback()
    assert conn.status == ext.STATUS_READY
    assert ctx.name not in [xid.gtrid for xid in conn.tpc_recover()]
    conn.rollback()
    conn.tpc_begin(conn.xid(0, "again", ""))
    conn.tpc_rollback()


@needs("kill")
def test_prepare_that_was_faster_than_its_interrupt(ctx: Context) -> None:
    proxy = ctx.proxy()
    conn = ctx.connect(proxy.dsn)
    conn.tpc_begin(conn.xid(0, ctx.name, ""))
    conn.cursor().execute("select 1")
    proxy.delay(0.15)

    interrupted(ctx, "timeout", conn.tpc_prepare, SHORT)

    proxy.flow()
    assert conn.status == ext.STATUS_PREPARED
    conn.tpc_rollback()
    check_alive(ctx, conn)
