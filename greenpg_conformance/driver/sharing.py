"""Tasks that share a connection: any two operations, their order, and closing."""

from __future__ import annotations

from contextlib import closing, suppress
from datetime import datetime
from typing import Any, Final

import psycopg2
from psycopg2 import extensions as ext

import greenpg
from greenpg.patch import patcher
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.drivers import PSYCOPG2
from greenpg_conformance.harness.operations import (
    OF_PSYCOPG,
    OPERATIONS,
    Stage,
    operations,
)
from greenpg_conformance.harness.tests import each, limit, needs, over_psycopg, raises
from greenpg_conformance.toolkit.internals import waiting_tasks

from ._steps import ask, finish, spawn_busy

SLOW: Final = "select pg_sleep(0.1)"
PREPARED: Final = """
    select gid from pg_prepared_xacts
    where database = current_database() and gid like %s
"""


@limit(60)
@each(*OPERATIONS)
@over_psycopg(*OF_PSYCOPG)
def test_any_two_operations(ctx: Context, case: str) -> None:
    conn = ctx.connect()
    try:
        for other in operations(ctx.driver):
            for began in (True, False):
                ctx.note(f"{case} and {other}, {'inside' if began else 'outside'} a transaction")
                conn = ctx.connect() if conn.closed else conn
                _run_pair(ctx, conn, case, other, began)
    finally:
        _forget_prepared(ctx)


def _run_pair(ctx: Context, conn: Any, one: str, other: str, began: bool) -> None:
    stage = Stage.prepared(conn, began)

    known = operations(ctx.driver)
    jobs = [ctx.spawn(known[name], stage) for name in (one, other)]

    for job in jobs:
        job.join()
        if job.error is not None and not isinstance(job.error, ctx.driver.error):
            raise job.error
    if "close" not in (one, other):
        assert not conn.closed
        assert _works(ctx, conn)


def _works(ctx: Context, conn: Any) -> bool:
    if ctx.driver is not PSYCOPG2:  # psycopg 3 lets a statement after PREPARE begin a transaction
        with suppress(ctx.driver.error):
            conn.execute("rollback")
    with suppress(ctx.driver.error):
        conn.tpc_rollback()  # of a transaction that the other task left there
    (conn.reset if ctx.driver is PSYCOPG2 else conn.rollback)()
    conn.autocommit = False
    return bool(ask(conn) == 7)


def _forget_prepared(ctx: Context) -> None:
    for (gid,) in ctx.server.ask(PREPARED, f"{ctx.name}%"):
        ctx.server.ask("rollback prepared %s", gid)


@limit(60)
@over_psycopg()
def test_storm_of_operations(ctx: Context) -> None:
    known = operations(ctx.driver)
    calm = [known[name] for name in known if name != "close"]
    conn = ctx.connect()

    def work() -> None:
        for _ in range(30):
            with suppress(ctx.driver.error):
                ctx.random.choice(calm)(stage)

    stage = Stage.prepared(conn, began=True)
    jobs = [ctx.spawn(work) for _ in range(8)]
    for job in jobs:
        job.result(40)
    _forget_prepared(ctx)

    assert _works(ctx, conn)


@over_psycopg()
def test_operations_of_a_transaction_stay_in_order(ctx: Context) -> None:
    conn, served = ctx.connect(), list[tuple[datetime, str]]()

    def ask(name: str) -> None:
        with conn.cursor() as cur:
            cur.execute("select clock_timestamp(), %s", (name,))
            served.append(cur.fetchone())

    jobs = []
    with conn.exclusive():
        for name in "abcde":
            jobs.append(ctx.spawn(ask, name))
            ctx.wait_until(lambda: waiting_tasks(conn) == len(jobs), "it waits for its turn")
    finish(jobs)

    assert [name for _, name in sorted(served)] == list("abcde")


@over_psycopg()
def test_holder_does_not_overtake_those_who_wait(ctx: Context) -> None:
    conn, order = ctx.connect(), list[str]()

    def once() -> None:
        conn.cursor().execute("select 1")
        order.append("waiter")

    def often() -> None:
        ask(conn, SLOW)
        ask(conn)
        order.append("holder")

    holder = spawn_busy(ctx, conn, often)
    waiter = ctx.spawn(once)
    waiter.result()
    holder.result()

    assert order == ["waiter", "holder"]


@over_psycopg()
def test_shared_connection_holds_nobody_else_up(ctx: Context) -> None:
    conn = ctx.connect()

    with ctx.heartbeat() as pulse:
        finish([ctx.spawn(lambda: conn.cursor().execute(SLOW)) for _ in range(3)])

    assert pulse.beats > 10


@needs("kill")
@limit(30)
@over_psycopg()
def test_storm_of_kills_leaves_the_lock_free(ctx: Context) -> None:
    conn, inside = ctx.connect(autocommit=True), list[int]()

    def use() -> None:
        with conn.exclusive():
            inside.append(1)
            assert len(inside) == 1, "two tasks hold the lock"
            try:
                ctx.backend.sleep(ctx.random.random() * 0.002)
            finally:
                inside.pop()

    for _ in range(30):
        jobs = [ctx.spawn(use) for _ in range(12)]
        for _ in range(8):
            ctx.backend.sleep(ctx.random.random() * 0.002)
            ctx.random.choice(jobs).kill()
        for job in jobs:
            job.join()
            assert job.error is None or isinstance(job.error, ctx.backend.exits), job.error

    assert not greenpg.ConnectionLock(conn).locked()
    conn.cursor().execute("select 1")


@over_psycopg()
def test_close_while_another_task_holds_the_lock(ctx: Context) -> None:
    conn = ctx.connect()

    with conn.exclusive():
        ctx.spawn(conn.close).result()

        with raises(Exception) as caught:
            conn.cursor().execute("select 1")
        assert ctx.driver.closed(caught.error)

    assert conn.closed


def test_cursor_of_greenpg_extensions_waits_its_turn(ctx: Context) -> None:
    conn = ctx.connect()

    _check_turns(ctx, conn, greenpg.extensions.cursor(conn))


def test_cursor_of_psycopg2_waits_its_turn_once_patched(ctx: Context) -> None:
    patch, unpatch = patcher(ctx.backend)
    patch()
    try:
        conn = psycopg2.connect(ctx.dsn)
        cur = ext.cursor(conn)
        _check_turns(ctx, conn, cur)
        assert isinstance(conn, greenpg.Connection)
        assert isinstance(cur, ext.cursor)
        conn.close()
    finally:
        unpatch()
        greenpg.use(ctx.backend)
    with closing(psycopg2.connect(ctx.dsn)) as plain:
        assert not isinstance(plain, greenpg.Connection)


def _check_turns(ctx: Context, conn: Any, cur: Any) -> None:
    slow = spawn_busy(ctx, conn, lambda: conn.cursor().execute(SLOW))
    with ctx.heartbeat():
        cur.execute("select 1")
    assert cur.fetchall() == [(1,)]
    slow.result()


def test_rows_for_executemany_may_come_from_the_same_connection(ctx: Context) -> None:
    conn = ctx.connect()
    named = conn.cursor("source")
    named.itersize = 2
    named.execute("select generate_series(1, 7)")
    conn.cursor().execute("create temporary table copies (n int)")

    conn.cursor().executemany("insert into copies values (%s)", named)

    assert ask(conn, "select array[count(*), sum(n)]::int[] from copies") == [7, 28]
