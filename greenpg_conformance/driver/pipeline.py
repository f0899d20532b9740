"""Pipeline mode and executemany: other tasks run on, and a block's end leaves nothing behind."""

from __future__ import annotations

from typing import Any, Final

import psycopg2

from greenpg import DeadlineExceeded
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import each, needs, raises

from ._copy_fixtures import check_nothing_loaded, row_count, table
from ._steps import ask, check_killed, interrupted, spawn_busy

SHORT: Final = 0.1
STATEMENTS: Final = 5000
ROWS: Final = 20_000
LARGE: Final = 200_000


class Sleeper:
    """An executemany at whose second row the server falls asleep."""

    def __init__(self, ctx: Context) -> None:
        self.cur = table(ctx)
        self.conn = self.cur.connection
        self.conn.commit()

    def run(self) -> None:
        nap = "case when n = 1 then pg_sleep(60)::text end"
        query = f"insert into t select {nap} from (select %s) x(n)"
        self.cur.executemany(query, [(n,) for n in range(100)])


def test_statements_hold_nobody_up(ctx: Context) -> None:
    conn = ctx.connect()

    with ctx.heartbeat() as pulse:
        with conn.pipeline() as p:
            results = [p.execute("select %s", (n,)) for n in range(STATEMENTS)]
        total = sum(result.fetchall()[0][0] for result in results)

    assert total == sum(range(STATEMENTS))
    assert pulse.beats


def test_results_read_one_by_one_hold_nobody_up(ctx: Context) -> None:
    conn = ctx.connect(autocommit=True)

    with ctx.heartbeat() as pulse, conn.pipeline() as p:
        for n in pulse.enough():
            assert p.execute("select %s", (n,)).fetchone() == (n,)


def test_large_result_holds_nobody_up(ctx: Context) -> None:
    conn = ctx.connect()

    with ctx.heartbeat() as pulse, conn.pipeline() as p:
        result = p.execute("select generate_series(1, %s)", (LARGE,))
        assert result.rowcount == LARGE
        assert len(result.fetchall()) == LARGE

    assert pulse.beats


@each("plain", "lower")
def test_executemany_holds_nobody_up(ctx: Context, case: str) -> None:
    """The values of the second statement are written by psycopg2."""
    cur, value = table(ctx), "%s" if case == "plain" else "lower(%s)"

    with ctx.heartbeat() as pulse:
        cur.executemany(f"insert into t values ({value})", [(str(n),) for n in range(ROWS)])

    assert cur.rowcount == row_count(cur) == ROWS
    assert pulse.beats


def test_slow_server_holds_nobody_up(ctx: Context) -> None:
    cur = table(ctx, ctx.proxy().dsn)
    ctx.proxy().drip(65536, 0.01, "both")

    with ctx.heartbeat() as pulse:
        cur.executemany("insert into t values (%s)", [("x" * 1000,) for _ in range(2000)])

    assert row_count(cur) == 2000
    assert pulse.beats > 10


def test_block_has_the_connection_to_itself(ctx: Context) -> None:
    conn, order = ctx.connect(), list[str]()

    def intrude() -> None:
        ask(conn)
        order.append("intruder")

    with conn.pipeline() as p:
        intruder = ctx.spawn(intrude)
        ctx.backend.sleep(SHORT)
        with raises(psycopg2.ProgrammingError, words="pipeline() block"):
            ask(conn)
        assert p.execute("select 2").fetchone() == (2,)
        order.append("block")
    intruder.result()

    assert order == ["block", "intruder"]


@needs("hub")
def test_hub_is_refused(ctx: Context) -> None:
    conn = ctx.connect()

    with raises(psycopg2.ProgrammingError, words="event loop"):
        ctx.in_hub(lambda: conn.pipeline().__enter__())

    assert ask(conn) == 7


def _sleep_in_a_block(conn: Any) -> None:
    with conn.pipeline() as p:
        p.execute("select pg_sleep(60)").fetchone()


def test_deadline_ends_a_block(ctx: Context) -> None:
    conn = ctx.connect(autocommit=True)

    with raises(DeadlineExceeded), conn.deadline(SHORT), conn.pipeline() as p:
        for _ in range(1000):
            p.execute("select pg_sleep(60)")
        p.execute("select 1").fetchone()

    assert ask(conn) == 7


def test_deadline_stops_executemany(ctx: Context) -> None:
    sleeper = Sleeper(ctx)

    with raises(DeadlineExceeded), sleeper.conn.deadline(SHORT):
        sleeper.run()

    check_nothing_loaded(sleeper.cur)


@needs("kill")
def test_kill_ends_a_block(ctx: Context) -> None:
    conn = ctx.connect(autocommit=True)
    worker = spawn_busy(ctx, conn, _sleep_in_a_block, conn)

    check_killed(ctx, worker)

    assert ask(conn) == 7


@needs("kill")
def test_kill_stops_executemany(ctx: Context) -> None:
    sleeper = Sleeper(ctx)
    worker = spawn_busy(ctx, sleeper.conn, sleeper.run)

    check_killed(ctx, worker)

    check_nothing_loaded(sleeper.cur)


@needs("kill")
def test_timeout_comes_out_of_a_block_as_itself(ctx: Context) -> None:
    conn = ctx.connect()

    interrupted(ctx, "timeout", lambda: _sleep_in_a_block(conn), SHORT)

    conn.rollback()
    assert ask(conn) == 7


def test_close_ends_a_block(ctx: Context) -> None:
    conn = ctx.connect()
    worker = spawn_busy(ctx, conn, _sleep_in_a_block, conn)

    conn.close()

    assert isinstance(worker.join().error, psycopg2.InterfaceError)
