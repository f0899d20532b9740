"""Large results: fetched and streamed while others run, in bounded memory."""

from __future__ import annotations

from typing import Any, Final

from greenpg import DeadlineExceeded
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import each, needs, raises
from greenpg_conformance.toolkit.memory import resident

from ._steps import ask, check_killed, finish, spawn_busy

SHORT: Final = 0.2
ROWS: Final = 300_000
SERIES: Final = "select n, 'some text' from generate_series(1, %s) n"
GRASP: Final = 5_000_000


def _cursors(conn: Any) -> Any:
    return ask(conn, "select count(*) from pg_cursors")


@each("fetchall", "fetchmany")
def test_fetch_holds_nobody_up(ctx: Context, case: str) -> None:
    cur = ctx.connect().cursor()

    with ctx.heartbeat() as pulse:
        cur.execute(SERIES, (ROWS,))
        rows = cur.fetchall() if case == "fetchall" else cur.fetchmany(ROWS)

    assert len(rows) == ROWS
    assert pulse.beats


@each("transaction", "autocommit")
def test_stream_holds_nobody_up(ctx: Context, case: str) -> None:
    cur = ctx.connect(autocommit=case == "autocommit").cursor()

    with ctx.heartbeat() as pulse:
        total = sum(number for number, _ in cur.stream(SERIES, (ROWS,)))

    assert total == ROWS * (ROWS + 1) // 2
    assert pulse.beats


def test_stream_takes_little_memory(ctx: Context) -> None:
    cur = ctx.connect().cursor()
    for _ in cur.stream(SERIES, (20_000,)):
        pass
    before, peak = resident(), 0

    for number, _ in cur.stream(SERIES, (ROWS,)):
        if number % 5000 == 0:
            peak = max(peak, resident() - before)

    assert peak < GRASP


def test_tasks_stream_from_one_connection(ctx: Context) -> None:
    conn = ctx.connect()

    def read() -> list[int]:
        return [number for number, _ in conn.cursor().stream(SERIES, (3000,))]

    assert finish([ctx.spawn(read) for _ in range(4)]) == [list(range(1, 3001))] * 4
    assert _cursors(conn) == 0


def test_deadline_stops_a_stream(ctx: Context) -> None:
    conn = ctx.connect()
    query = "select case when n = 900 then pg_sleep(60)::text end from generate_series(1, 999) n"

    with raises(DeadlineExceeded), conn.deadline(SHORT):
        list(conn.cursor().stream(query))

    conn.rollback()
    assert _cursors(conn) == 0


@needs("kill")
def test_kill_stops_a_stream(ctx: Context) -> None:
    conn = ctx.connect(autocommit=True)
    reader = spawn_busy(ctx, conn, lambda: list(conn.cursor().stream("select pg_sleep(60)")))

    check_killed(ctx, reader)

    assert _cursors(conn) == 0
