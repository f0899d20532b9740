"""Interrupts: the same object comes out, the query is cancelled, the connection lives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from io import StringIO
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import psycopg2
from psycopg2 import extensions as ext

from greenpg.errors import DeadlineExceeded, InFailedSqlTransaction, QueryCanceled

from ._older import older_libpq
from ._tests import each, limit, needs, raises

if TYPE_CHECKING:
    from ._context import Context

SHORT: Final = 0.05
LONG: Final = "select pg_sleep(30)"
INTERRUPTS: Final = ("timeout", "kill")

WAYS: Final[dict[str, Callable[[Any], object]]] = {
    "execute": lambda conn: conn.cursor().execute(LONG),
    "executemany": lambda conn: conn.cursor().executemany("select pg_sleep(%s)", [(0,), (30,)]),
    "callproc": lambda conn: conn.cursor().callproc("pg_sleep", (30,)),
    "named cursor": lambda conn: _fetch_by_name(conn),
    "with conn": lambda conn: _in_a_block(conn),
    "copy": lambda conn: conn.cursor().copy_expert(f"copy ({LONG}) to stdout", StringIO()),
}


def _fetch_by_name(conn: Any) -> None:
    with conn.cursor("slow", withhold=conn.autocommit) as cur:
        cur.execute(LONG)
        cur.fetchone()


def _in_a_block(conn: Any) -> None:
    with conn, conn.cursor() as cur:
        cur.execute(LONG)


def _stopped(ctx: Context, pid: int) -> None:
    ctx.wait_until(lambda: not ctx.server.is_busy(pid), "the query has ended", 1)


def _check_alive(ctx: Context, conn: Any) -> None:
    """Fail unless the server has stopped the query and the connection does the next one."""
    pid = conn.info.backend_pid
    _stopped(ctx, pid)
    with conn.cursor() as cur:
        cur.execute("select 7")
        assert cur.fetchall() == [(7,)]
    assert conn.info.backend_pid == pid


def _check_doomed(conn: Any) -> None:
    """Fail unless the interrupted transaction takes nothing but a rollback."""
    for refused in (conn.commit, lambda: conn.cursor().execute("select 1"), conn.tpc_recover):
        with raises(InFailedSqlTransaction):
            refused()
    with raises(InFailedSqlTransaction), conn:
        pass
    conn.rollback()


def _interrupted(ctx: Context, how: str, work: Callable[[], object], seconds: float) -> None:
    """Run something in a task and interrupt it; the very exception must come out."""
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


# What comes out, and what becomes of the query


@needs("kill")
@each(*WAYS)
def test_timeout_comes_out_as_itself(ctx: Context, case: str) -> None:
    conn = ctx.connect(autocommit=True)

    with ctx.heartbeat():
        _interrupted(ctx, "timeout", lambda: WAYS[case](conn), SHORT)

    _check_alive(ctx, conn)


@needs("kill")
@each(*WAYS)
def test_kill_cancels_the_query(ctx: Context, case: str) -> None:
    conn = ctx.connect()

    with ctx.heartbeat():
        _interrupted(ctx, "kill", lambda: WAYS[case](conn), SHORT)

    conn.rollback()
    _check_alive(ctx, conn)


@needs("kill")
@each(*WAYS)
def test_older_libpq_cancels_too(ctx: Context, case: str) -> None:
    conn = ctx.connect(autocommit=True)

    with older_libpq(), ctx.heartbeat():
        _interrupted(ctx, "timeout", lambda: WAYS[case](conn), SHORT)

    _check_alive(ctx, conn)


def test_cancel_that_overtakes_its_query_is_repeated(ctx: Context) -> None:
    proxy = ctx.proxy()
    conn = ctx.connect(proxy.dsn, autocommit=True)
    proxy.stall(way="up", scope="present")  # the request to cancel goes by a new connection
    began = monotonic()

    def flow() -> None:
        ctx.backend.sleep(3 * SHORT)
        proxy.flow()

    later = ctx.spawn(flow)
    with raises(DeadlineExceeded), conn.deadline(SHORT):
        conn.cursor().execute(LONG)

    later.result()
    assert monotonic() - began < 2
    _check_alive(ctx, conn)


@needs("kill")
@each("with libpq 17", "with libpq 16")
@limit(30)
def test_late_cancel_hits_no_later_query(ctx: Context, case: str) -> None:
    conn, hits = ctx.connect(autocommit=True), 0
    for _ in range(40):
        seconds = 0.01 + ctx.random.uniform(-0.003, 0.003)
        if case == "with libpq 16":
            with older_libpq():
                hits += _hit(ctx, conn, seconds)
        else:
            hits += _hit(ctx, conn, seconds)

        with conn.cursor() as cur:
            cur.execute("select 7 from pg_sleep(0.002)")
            assert cur.fetchall() == [(7,)]

    assert hits


def _hit(ctx: Context, conn: Any, seconds: float) -> bool:
    timeout: Any = ctx.timeout(seconds)
    try:
        with timeout:
            conn.cursor().execute("select pg_sleep(0.01)")
    except type(timeout):
        return True
    return False


@needs("kill")
@each("after the timeout", "before the timeout")
def test_exit_beats_a_timeout(ctx: Context, case: str) -> None:
    proxy = ctx.proxy()
    conn = ctx.connect(proxy.dsn, autocommit=True)
    first, second = (SHORT, 2 * SHORT) if case == "after the timeout" else (2 * SHORT, SHORT)

    def work() -> None:
        with ctx.timeout(first):
            conn.cursor().execute(LONG)

    task = ctx.spawn(work)
    ctx.backend.pause()
    proxy.delay(0.3)  # the answer to the first one's cancel: the second one comes meanwhile
    ctx.backend.sleep(second)
    task.kill()
    task.join(3)

    assert isinstance(task.error, ctx.backend.exits)
    proxy.flow()
    _check_alive(ctx, conn)


@needs("kill")
@each(*INTERRUPTS)
def test_plain_connection_is_closed_and_its_query_cancelled(ctx: Context, case: str) -> None:
    """psycopg2's own class, as of a connection made before the patch."""
    conn: Any = psycopg2._psycopg._connect(ctx.dsn, None, False)  # type: ignore[no-untyped-call]  # a C function
    pid = conn.info.backend_pid

    try:
        _interrupted(ctx, case, lambda: conn.cursor().execute(LONG), SHORT)

        assert conn.closed
        ctx.wait_until(lambda: not ctx.server.exists(pid), "the session has ended", 1)
    finally:
        conn.close()


@needs("kill")
@limit(30)
def test_block_over_a_lost_connection_raises_the_interrupt(ctx: Context) -> None:
    proxy = ctx.proxy()
    conn = ctx.connect(proxy.dsn)
    conn._state.cancel_timeout = 0.3
    pid = conn.info.backend_pid
    proxy.stall()

    _interrupted(ctx, "timeout", lambda: _in_a_block(conn), SHORT)

    assert conn.closed
    ctx.server.terminate(pid)


# No silent loss


@needs("kill")
@each(*INTERRUPTS)
def test_interrupted_transaction_takes_only_a_rollback(ctx: Context, case: str) -> None:
    conn = ctx.connect()
    conn.cursor().execute("select 1")

    _interrupted(ctx, case, lambda: WAYS["execute"](conn), SHORT)

    _check_doomed(conn)
    _check_alive(ctx, conn)


@needs("kill")
def test_transaction_is_doomed_also_if_the_server_was_faster(ctx: Context) -> None:
    proxy = ctx.proxy()
    conn = ctx.connect(proxy.dsn)
    conn.cursor().execute("select 1")
    proxy.delay(0.2)  # the answer is there at once, but not here

    _interrupted(ctx, "timeout", lambda: conn.cursor().execute("select 1"), SHORT)

    proxy.flow()
    _check_doomed(conn)
    _check_alive(ctx, conn)


@needs("kill")
def test_end_of_a_named_cursors_block_hides_no_interrupt(ctx: Context) -> None:
    proxy = ctx.proxy()
    conn = ctx.connect(proxy.dsn)
    conn.cursor().execute("select 1")
    proxy.delay(0.2)  # the server will have been faster

    def work() -> None:
        with conn.cursor("fast") as cur:
            cur.execute("select 1")

    _interrupted(ctx, "timeout", work, SHORT)

    proxy.flow()
    _check_doomed(conn)


@needs("kill")
def test_rollback_to_a_savepoint_heals(ctx: Context) -> None:
    conn = ctx.connect()
    cur = conn.cursor()
    cur.execute("create temporary table kept (n int); insert into kept values (1); savepoint s")

    _interrupted(ctx, "timeout", lambda: conn.cursor().execute(LONG), SHORT)

    with raises(InFailedSqlTransaction):
        cur.execute("insert into kept values (2)")
    cur.execute(" /* undo */ ROLLBACK TO SAVEPOINT s")
    cur.execute("insert into kept values (3)")
    conn.commit()
    cur.execute("select array_agg(n order by n) from kept")
    assert cur.fetchone() == ([1, 3],)


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

    _interrupted(ctx, "timeout", work, SHORT)

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

    _interrupted(ctx, "timeout", lambda: ENDS[case](conn), SHORT)

    proxy.flow()
    assert conn.info.transaction_status == ext.TRANSACTION_STATUS_IDLE
    assert conn.status == ext.STATUS_READY
    _check_alive(ctx, conn)


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

    _interrupted(ctx, "timeout", conn.reset, SHORT)

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
            _interrupted(ctx, "timeout", end, SHORT)

        _check_two_phase_is_over(ctx, conn, prepared="prepare" in case)
        _check_alive(ctx, conn)


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

    _interrupted(ctx, "timeout", conn.tpc_prepare, SHORT)

    proxy.flow()
    assert conn.status == ext.STATUS_PREPARED
    conn.tpc_rollback()
    _check_alive(ctx, conn)


# An unreachable server


@limit(30)
@each("keep", "drop")
def test_unreachable_server_costs_no_more_than_the_cancel_timeout(ctx: Context, case: str) -> None:
    proxy = ctx.proxy()
    conn = ctx.connect(proxy.dsn, autocommit=True)
    conn._state.cancel_timeout = 0.3
    conn.cursor().execute("select 1")
    proxy.stall(scope="all" if case == "keep" else "present")
    began = monotonic()

    with raises(DeadlineExceeded), conn.deadline(SHORT):
        conn.cursor().execute("select 1")

    assert monotonic() - began < 2
    assert conn.closed


# Ctrl-C


@each("autocommit", "transaction")
def test_keyboard_interrupt_stops_a_query(ctx: Context, case: str) -> None:
    began = monotonic()

    done = ctx.python(
        *CTRL_C,
        f"conn.autocommit = {case == 'autocommit'}",
        "try:",
        "    conn.cursor().execute('select pg_sleep(8)')",
        "except KeyboardInterrupt:",
        "    print('interrupted')",
        *AFTERWARDS,
    )

    assert monotonic() - began < 6
    assert done.stdout.split() == ["interrupted", "7"], done.stdout + done.stderr


CTRL_C: Final = (
    "import signal",
    "conn = connect()",
    "signal.signal(signal.SIGALRM, signal.default_int_handler)",
    "signal.setitimer(signal.ITIMER_REAL, 0.2)",
)
AFTERWARDS: Final = (
    "def works():",
    "    try:",
    "        backend().sleep(0.01)",
    "    except RuntimeError:",
    "        return 7  # the library's loop does not survive Ctrl-C: nothing can wait any more",
    "    conn.rollback()",
    "    cur = conn.cursor()",
    "    cur.execute('select 7')",
    "    return cur.fetchone()[0]",
    "print(works())",
)
