"""`conn.deadline(seconds)`: forevery operation, waiting for the lock included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import greenpg
from greenpg.errors import DeadlineExceeded
from greenpg_conformance.harness.tests import raises
from greenpg_conformance.toolkit.internals import set_cancel_timeout
from greenpg_conformance.toolkit.machine import Stopwatch

if TYPE_CHECKING:
    from greenpg_conformance.harness.context import Context

SHORT: Final = 0.05
SLACK: Final = 1.0
LONG: Final = "select pg_sleep(10)"


def _many(conn: Any) -> None:
    with conn.cursor() as cur:
        while True:
            cur.execute("select pg_sleep(0.005)")


def _answers(conn: Any) -> None:
    with conn.cursor() as cur:
        cur.execute("select 7")
        assert cur.fetchall() == [(7,)]


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
    set_cancel_timeout(conn, 0.3)
    proxy.stall()
    watch = Stopwatch()

    with ctx.heartbeat(), raises(DeadlineExceeded), conn.deadline(SHORT):
        conn.cursor().execute("select 1")

    assert watch.seconds() < SHORT + 0.3 + SLACK
    assert conn.closed
