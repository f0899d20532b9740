"""`conn.deadline(seconds)`: forevery operation, waiting for the lock included."""

from __future__ import annotations

from typing import Final

import greenpg
from greenpg.errors import DeadlineExceeded
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import over_psycopg, raises
from greenpg_conformance.toolkit.internals import set_cancel_timeout
from greenpg_conformance.toolkit.machine import Stopwatch

from ._steps import SHORT, ask, far, finish

SLACK: Final = 1.0


@over_psycopg()
def test_deadline_of_one_task_leaves_the_others_alone(ctx: Context) -> None:
    conn = ctx.connect(autocommit=True)

    tasks = [ctx.spawn(lambda: [ask(conn) for _ in range(20)]) for _ in range(3)]
    with raises(DeadlineExceeded), conn.deadline(SHORT):
        while True:
            ask(conn, "select pg_sleep(0.005)")

    assert finish(tasks) == [[7] * 20] * 3


@over_psycopg()
def test_deadline_of_one_connection_leaves_another_alone(ctx: Context) -> None:
    one, other = ctx.connect(autocommit=True), ctx.connect(autocommit=True)

    with one.deadline(SHORT):
        other.cursor().execute("select pg_sleep(0.1)")
        with raises(DeadlineExceeded):
            one.cursor().execute("select 1")

    assert ask(one) == 7


@over_psycopg()
def test_rollback_has_its_time_past_the_deadline(ctx: Context) -> None:
    conn = far(ctx, 0.1)

    with conn.deadline(SHORT):
        ctx.backend.sleep(SHORT)
        conn.rollback()

    assert conn.info.transaction_status == greenpg.extensions.TRANSACTION_STATUS_IDLE
    ctx.proxy().flow()


@over_psycopg()
def test_commit_that_is_too_slow(ctx: Context) -> None:
    conn = far(ctx, 0.2)

    with raises(DeadlineExceeded), conn.deadline(SHORT):
        conn.commit()

    assert conn.info.transaction_status == greenpg.extensions.TRANSACTION_STATUS_IDLE
    assert ctx.driver.beliefs(conn) == (False, False)
    ctx.proxy().flow()
    assert ask(conn) == 7


@over_psycopg()
def test_frozen_server_costs_the_cancel_timeout(ctx: Context) -> None:
    conn = ctx.connect(ctx.proxy().dsn, autocommit=True)
    set_cancel_timeout(conn, 0.3)
    ctx.proxy().stall()
    watch = Stopwatch()

    with ctx.heartbeat(), raises(DeadlineExceeded), conn.deadline(SHORT):
        conn.cursor().execute("select 1")

    assert watch.seconds() < SHORT + 0.3 + SLACK
    assert conn.closed
