"""No silent loss: what an interrupted transaction, or its interrupted end, allows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

from psycopg2 import extensions as ext

from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import each, needs, over_psycopg, raises

from ._steps import (
    INTERRUPTS,
    LONG,
    SHORT,
    ask,
    check_alive,
    check_doomed,
    far,
    interrupted,
    spawn_busy,
)


@needs("kill")
@each(*INTERRUPTS)
@over_psycopg()
def test_interrupted_transaction_takes_only_a_rollback(ctx: Context, case: str) -> None:
    conn = ctx.connect()
    conn.cursor().execute("select 1")

    interrupted(ctx, case, lambda: conn.cursor().execute(LONG), SHORT)

    check_doomed(ctx, conn)
    check_alive(ctx, conn)


def _by_name(conn: Any) -> None:
    with conn.cursor("fast") as cur:
        cur.execute("select 1")


@needs("kill")
@each("execute", "named cursor")
@over_psycopg()
def test_transaction_is_doomed_also_if_the_server_was_faster(ctx: Context, case: str) -> None:
    conn = far(ctx, 0.2)  # the answer is there at once, but not here

    interrupted(ctx, "timeout", lambda: (ask if case == "execute" else _by_name)(conn), SHORT)

    ctx.proxy().flow()
    check_doomed(ctx, conn)
    check_alive(ctx, conn)


@needs("kill")
@each("execute", "executemany")
@over_psycopg("execute")
def test_what_follows_an_interrupted_command_is_not_sent(ctx: Context, case: str) -> None:
    """Neither the statement after its BEGIN nor the next row's."""
    name = f"{ctx.name}_numbers"
    ctx.server.ask(f"create sequence {name}")
    conn = far(ctx, 0.2, None, autocommit=case == "executemany")
    rows = [(name,)] * (1 if case == "execute" else 5)

    interrupted(
        ctx, "timeout", lambda: conn.cursor().executemany("select nextval(%s)", rows), SHORT
    )

    ctx.proxy().flow()
    conn.rollback()
    drawn = ctx.server.ask(f"select last_value * is_called::int from {name}")
    assert drawn == [(0 if case == "execute" else 1,)]
    ctx.server.ask(f"drop sequence {name}")


@needs("kill")
@each("rollback", "reset", "set_isolation_level", "commit")
@over_psycopg("rollback", "commit")
def test_interrupted_end_of_a_transaction_ends_it(ctx: Context, case: str) -> None:
    conn = far(ctx, 0.15, "set greenpg.test to 'before'")
    arguments = [ext.ISOLATION_LEVEL_SERIALIZABLE] * (case == "set_isolation_level")

    interrupted(ctx, "timeout", partial(getattr(conn, case), *arguments), SHORT)

    ctx.proxy().flow()
    assert conn.info.transaction_status == ext.TRANSACTION_STATUS_IDLE
    assert ctx.driver.beliefs(conn) == (False, False)
    check_alive(ctx, conn)


@needs("kill")
@each("autocommit", "transaction")
def test_interrupted_reset_is_complete(ctx: Context, case: str) -> None:
    conn = ctx.connect(ctx.proxy().dsn, autocommit=case == "autocommit")
    conn.cursor().execute("set greenpg.test to 'before'")
    conn.commit()
    ask(conn)
    ctx.proxy().delay(0.15)

    interrupted(ctx, "timeout", conn.reset, SHORT)

    ctx.proxy().flow()
    assert ask(conn, "select coalesce(current_setting('greenpg.test', true), '')") == ""


@contextmanager
def _slow_table(ctx: Context) -> Iterator[str]:
    """Make a table of which a row makes PREPARE and COMMIT take long: a deferred trigger sleeps."""
    name = f"{ctx.name}_slow"
    ctx.server.ask(
        f"create table {name} (n int);"
        f"create function {name}_nap() returns trigger language plpgsql as "
        "'begin perform pg_sleep(30); return null; end';"
        f"create constraint trigger nap after insert on {name} deferrable initially deferred "
        f"for each row execute function {name}_nap()"
    )
    try:
        yield name
    finally:
        ctx.server.ask(f"drop table {name}; drop function {name}_nap()")


@needs("kill")
@each("tpc_prepare", "tpc_commit", "cancelled tpc_prepare", "cancelled tpc_commit")
@over_psycopg()
def test_stopped_end_of_a_two_phase_transaction(ctx: Context, case: str) -> None:
    with _slow_table(ctx) as table, closing(ctx.connect()) as conn:
        conn.tpc_begin(conn.xid(0, ctx.name, ""))
        conn.cursor().execute(f"insert into {table} values (1)")
        end = getattr(conn, case.rpartition(" ")[2])

        if case.startswith("cancelled"):
            task = spawn_busy(ctx, conn, end)
            conn.cancel()
            assert isinstance(task.join().error, ctx.driver.cancelled)
        else:
            interrupted(ctx, "timeout", end, SHORT)

        _check_two_phase_is_over(ctx, conn, prepared="prepare" in case)
        check_alive(ctx, conn)


def _check_two_phase_is_over(ctx: Context, conn: Any, prepared: bool) -> None:
    if prepared:  # which has failed
        with raises(ctx.driver.failed_transaction):
            conn.cursor().execute("select 1")
        conn.tpc_rollback()
    assert ctx.driver.beliefs(conn) == (False, False)
    assert ctx.name not in [xid.gtrid for xid in conn.tpc_recover()]
    conn.rollback()
    conn.tpc_begin(conn.xid(0, "again", ""))
    conn.tpc_rollback()


@needs("kill")
@over_psycopg()
def test_prepare_that_was_faster_than_its_interrupt(ctx: Context) -> None:
    conn = ctx.connect(ctx.proxy().dsn)
    conn.tpc_begin(conn.xid(0, ctx.name, ""))
    ask(conn)
    ctx.proxy().delay(0.15)

    interrupted(ctx, "timeout", conn.tpc_prepare, SHORT)

    ctx.proxy().flow()
    assert ctx.driver.beliefs(conn) == (False, True)
    conn.tpc_rollback()
    check_alive(ctx, conn)
