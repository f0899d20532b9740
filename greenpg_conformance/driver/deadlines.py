"""`conn.deadline(seconds)`: for every operation, waiting for the lock included."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import greenpg
from greenpg.errors import DeadlineExceeded, InFailedSqlTransaction, QueryCanceled
from greenpg_conformance.harness.tests import each, raises
from greenpg_conformance.toolkit.machine import Stopwatch

if TYPE_CHECKING:
    from greenpg_conformance.harness.context import Context

SHORT: Final = 0.05
SLACK: Final = 1.0
LONG: Final = "select pg_sleep(10)"
STATEMENTS: Final[dict[str, Callable[[Any], object]]] = {
    "execute": lambda conn: conn.cursor().execute(LONG),
    "executemany": lambda conn: conn.cursor().executemany("select pg_sleep(%s)", [(0,), (10,)]),
    "callproc": lambda conn: conn.cursor().callproc("pg_sleep", (10,)),
    "many statements": lambda conn: _many(conn),
    "named cursor": lambda conn: _declare(conn),
    "with conn": lambda conn: _block(conn),
    "copy": lambda conn: conn.cursor().copy_expert(f"copy ({LONG}) to stdout", StringIO()),
}


def _many(conn: Any) -> None:
    with conn.cursor() as cur:
        while True:
            cur.execute("select pg_sleep(0.005)")


def _declare(conn: Any) -> None:
    with conn.cursor("slow") as cur:
        cur.execute(LONG)
        cur.fetchall()


def _block(conn: Any) -> None:
    with conn, conn.cursor() as cur:
        cur.execute(LONG)


def _end(conn: Any) -> None:
    with conn:
        pass


def _idle(ctx: Context, conn: Any) -> None:
    pid = conn.info.backend_pid
    ctx.wait_until(lambda: not ctx.server.is_busy(pid), "the query has ended", 1)


def _answers(conn: Any) -> None:
    with conn.cursor() as cur:
        cur.execute("select 7")
        assert cur.fetchall() == [(7,)]


@each(*STATEMENTS)
def test_deadline_is_a_cancelled_query_and_an_operational_error(ctx: Context, case: str) -> None:
    conn = ctx.connect()
    began, watch = monotonic(), Stopwatch()

    with raises(DeadlineExceeded) as witness, conn.deadline(SHORT):
        STATEMENTS[case](conn)

    assert monotonic() - began >= SHORT
    assert watch.seconds() < SHORT + SLACK
    assert isinstance(witness.error, QueryCanceled)
    assert isinstance(witness.error, greenpg.OperationalError)
    _idle(ctx, conn)
    conn.rollback()
    _answers(conn)


@each("outer", "inner")
def test_nearest_of_nested_deadlines_counts(ctx: Context, case: str) -> None:
    conn = ctx.connect(autocommit=True)
    outer, inner = (SHORT, 5) if case == "outer" else (5, SHORT)
    watch = Stopwatch()

    with raises(DeadlineExceeded), conn.deadline(outer), conn.deadline(inner):
        conn.cursor().execute(LONG)

    assert watch.seconds() < SHORT + SLACK
    _answers(conn)


def test_outer_deadline_counts_again_after_the_inner_one(ctx: Context) -> None:
    conn = ctx.connect(autocommit=True)

    with conn.deadline(10):
        with raises(DeadlineExceeded), conn.deadline(SHORT):
            conn.cursor().execute(LONG)
        _answers(conn)
        with raises(DeadlineExceeded), conn.deadline(SHORT), conn.deadline(5):
            conn.cursor().execute(LONG)
        _answers(conn)


@each("statement", "block", "acquire")
def test_waiting_for_the_lock_counts(ctx: Context, case: str) -> None:
    conn = ctx.connect(autocommit=True)
    over = ctx.backend.event()

    def hold() -> None:
        with conn.exclusive():
            _answers(conn)
            over.wait(5)

    holder = ctx.spawn(hold)
    ctx.wait_until(lambda: greenpg.ConnectionLock(conn).locked(), "the lock is held")
    watch = Stopwatch()

    with raises(DeadlineExceeded), conn.deadline(SHORT):
        _ask(conn, case)

    assert watch.seconds() < SHORT + SLACK
    over.set()
    holder.result()
    _answers(conn)


def _ask(conn: Any, case: str) -> None:
    if case == "statement":
        _answers(conn)
    elif case == "block":
        with conn.exclusive():
            pass
    else:
        greenpg.ConnectionLock(conn).acquire()


def test_deadline_of_one_task_leaves_the_others_alone(ctx: Context) -> None:
    conn = ctx.connect(autocommit=True)

    def work() -> int:
        for _ in range(20):
            _answers(conn)
        return 20

    tasks = [ctx.spawn(work) for _ in range(3)]
    with raises(DeadlineExceeded), conn.deadline(SHORT):
        _many(conn)

    assert [task.result() for task in tasks] == [20] * 3


def test_deadline_of_one_connection_leaves_another_alone(ctx: Context) -> None:
    one, other = ctx.connect(autocommit=True), ctx.connect(autocommit=True)

    with one.deadline(SHORT):
        other.cursor().execute("select pg_sleep(0.1)")
        with raises(DeadlineExceeded):
            one.cursor().execute("select 1")

    _answers(one)


def test_operation_past_the_deadline_is_not_sent(ctx: Context) -> None:
    conn, name = ctx.connect(autocommit=True), f"{ctx.name}_calls"
    ctx.server.ask(f"create sequence {name}")

    with conn.deadline(0), raises(DeadlineExceeded):
        conn.cursor().execute("select nextval(%s)", (name,))

    assert ctx.server.ask(f"select is_called from {name}") == [(False,)]
    ctx.server.ask(f"drop sequence {name}")


def test_interrupted_transaction_takes_only_a_rollback(ctx: Context) -> None:
    conn = ctx.connect()
    conn.cursor().execute("select 1")

    with raises(DeadlineExceeded), conn.deadline(SHORT):
        conn.cursor().execute(LONG)

    for refused in (conn.commit, lambda: _answers(conn), lambda: _end(conn), conn.tpc_recover):
        with raises(InFailedSqlTransaction):
            refused()
    conn.rollback()
    _answers(conn)


def test_rollback_has_its_time_past_the_deadline(ctx: Context) -> None:
    proxy = ctx.proxy()
    conn = ctx.connect(proxy.dsn)
    conn.cursor().execute("select 1")
    proxy.delay(0.1)

    with conn.deadline(SHORT):
        ctx.backend.sleep(SHORT)
        conn.rollback()

    assert conn.info.transaction_status == greenpg.extensions.TRANSACTION_STATUS_IDLE
    proxy.flow()


def test_commit_that_is_too_slow(ctx: Context) -> None:
    proxy = ctx.proxy()
    conn = ctx.connect(proxy.dsn)
    conn.cursor().execute("select 1")
    proxy.delay(0.2)

    with raises(DeadlineExceeded), conn.deadline(SHORT):
        conn.commit()

    assert conn.info.transaction_status == greenpg.extensions.TRANSACTION_STATUS_IDLE
    assert conn.status == greenpg.extensions.STATUS_READY
    proxy.flow()
    _answers(conn)


def test_frozen_server_costs_the_cancel_timeout(ctx: Context) -> None:
    proxy = ctx.proxy()
    conn = ctx.connect(proxy.dsn, autocommit=True)
    conn._state.cancel_timeout = 0.3
    proxy.stall()
    watch = Stopwatch()

    with ctx.heartbeat(), raises(DeadlineExceeded), conn.deadline(SHORT):
        conn.cursor().execute("select 1")

    assert watch.seconds() < SHORT + 0.3 + SLACK
    assert conn.closed


def test_deadline_that_is_no_longer_there_costs_nothing(ctx: Context) -> None:
    conn = ctx.connect(autocommit=True)
    for _ in range(20):
        with conn.deadline(0.2):
            _answers(conn)

    conn.cursor().execute("select pg_sleep(0.3)")

    assert not conn._state.deadlines
