"""Interrupts: the same object propagates, the query is cancelled, the connection lives."""

from __future__ import annotations

from typing import Any, Final

import psycopg2

from greenpg.errors import DeadlineExceeded
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import each, needs, over_psycopg, raises
from greenpg_conformance.toolkit.internals import set_cancel_timeout
from greenpg_conformance.toolkit.machine import Stopwatch

from ._steps import (
    INTERRUPTS,
    LIBPQS,
    LONG,
    SHORT,
    WAYS,
    WAYS_OF_PSYCOPG,
    ask,
    check_alive,
    in_a_block,
    interrupted,
    libpq,
    way,
)

# What propagates, and what becomes of the query


@needs("kill")
@each(*(f"{name}, {version}" for name in WAYS for version in LIBPQS))
@over_psycopg(*(f"{name}, {version}" for name in WAYS_OF_PSYCOPG for version in LIBPQS))
def test_timeout_comes_out_as_itself(ctx: Context, case: str) -> None:
    conn, (name, version) = ctx.connect(autocommit=True), case.split(", ")

    with libpq(ctx, version), ctx.heartbeat():
        interrupted(ctx, "timeout", lambda: way(ctx, name)(conn), SHORT)

    check_alive(ctx, conn)


@needs("kill")
@each(*WAYS)
@over_psycopg(*WAYS_OF_PSYCOPG)
def test_kill_cancels_the_query(ctx: Context, case: str) -> None:
    conn = ctx.connect()

    with ctx.heartbeat():
        interrupted(ctx, "kill", lambda: way(ctx, case)(conn), SHORT)

    conn.rollback()
    check_alive(ctx, conn)


@over_psycopg()
def test_cancel_that_overtakes_its_query_is_repeated(ctx: Context) -> None:
    conn = ctx.connect(ctx.proxy().dsn, autocommit=True)
    ctx.proxy().stall(way="up", scope="present")  # the request to cancel goes by a new connection
    watch = Stopwatch()

    def flow() -> None:
        ctx.backend.sleep(3 * SHORT)
        ctx.proxy().flow()

    later = ctx.spawn(flow)
    with raises(DeadlineExceeded), conn.deadline(SHORT):
        conn.cursor().execute(LONG)

    later.result()
    assert watch.seconds() < 2
    check_alive(ctx, conn)


@needs("kill")
@each(*(f"with {version}" for version in LIBPQS))
@over_psycopg()
def test_late_cancel_hits_no_later_query(ctx: Context, case: str) -> None:
    conn, hits = ctx.connect(autocommit=True), 0
    for _ in range(40):
        seconds = 0.01 + ctx.random.uniform(-0.003, 0.003)
        with libpq(ctx, case):
            hits += _hit(ctx, conn, seconds)

        assert ask(conn, "select 7 from pg_sleep(0.002)") == 7

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
@over_psycopg()
def test_exit_beats_a_timeout(ctx: Context, case: str) -> None:
    conn = ctx.connect(ctx.proxy().dsn, autocommit=True)
    first, second = (SHORT, 2 * SHORT) if case == "after the timeout" else (2 * SHORT, SHORT)

    def work() -> None:
        with ctx.timeout(first):
            conn.cursor().execute(LONG)

    ctx.proxy().delay(0.3)  # the answer to the first one's cancel: the second one comes meanwhile
    task = ctx.spawn(work)
    ctx.backend.sleep(second)
    task.kill()
    task.join()

    assert isinstance(task.error, ctx.backend.exits)
    ctx.proxy().flow()
    check_alive(ctx, conn)


@needs("kill")
@each(*INTERRUPTS)
def test_plain_connection_is_closed_and_its_query_cancelled(ctx: Context, case: str) -> None:
    """psycopg2's own class, as of a connection made before the patch."""
    conn: Any = psycopg2._psycopg._connect(ctx.dsn, None, False)  # type: ignore[no-untyped-call]  # a C function
    pid = conn.info.backend_pid

    try:
        interrupted(ctx, case, lambda: conn.cursor().execute(LONG), SHORT)

        assert conn.closed
        ctx.wait_until(lambda: not ctx.server.exists(pid), "the session has ended")
    finally:
        conn.close()


@needs("kill")
@over_psycopg()
def test_block_over_a_lost_connection_raises_the_interrupt(ctx: Context) -> None:
    conn = ctx.connect(ctx.proxy().dsn)
    set_cancel_timeout(conn, 0.3)
    pid = conn.info.backend_pid
    ctx.proxy().stall()

    interrupted(ctx, "timeout", lambda: in_a_block(conn), SHORT)

    assert conn.closed
    ctx.server.terminate(pid)


@each("keep", "drop")
@over_psycopg()
def test_unreachable_server_costs_no_more_than_the_cancel_timeout(ctx: Context, case: str) -> None:
    before = ctx.descriptors()
    conn = ctx.connect(ctx.proxy().dsn, autocommit=True)
    set_cancel_timeout(conn, 0.3)
    conn.cursor().execute("select 1")
    ctx.proxy().stall(scope="all" if case == "keep" else "present")
    watch = Stopwatch()

    with raises(DeadlineExceeded) as kept, conn.deadline(SHORT):  # as a log may keep an error
        conn.cursor().execute("select 1")

    assert watch.seconds() < 2
    assert conn.closed
    assert ctx.descriptors() == before
    assert kept.error.__traceback__ is not None


@each("autocommit", "transaction")
@over_psycopg()
def test_keyboard_interrupt_stops_a_query(ctx: Context, case: str) -> None:
    done = ctx.python(
        *CTRL_C,
        f"conn.autocommit = {case == 'autocommit'}",
        "try:",
        "    conn.cursor().execute('select pg_sleep(60)')",  # longer than a test may take
        "except KeyboardInterrupt:",
        "    print('interrupted')",
        *AFTERWARDS,
    )

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
