"""COPY: green, in bounded memory, with the connection to itself."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any, Final

import psycopg2

from greenpg import DeadlineExceeded
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import each, limit, needs, raises
from greenpg_conformance.toolkit.memory import resident

from ._copy_fixtures import BLOCK, ROWS, Half, Sink, Source, row_count, table

SHORT: Final = 0.1
MEGABYTE: Final = 1 << 20
OFFERED: Final = int(os.environ.get("GREENPG_COPY_MEGABYTES", "25"))  # 500 in `make soak`
GRASP: Final = 8 * MEGABYTE  # what a COPY may add to the process


@each("copy_from", "copy_to")
def test_copy_holds_nobody_up(ctx: Context, case: str) -> None:
    cur, sink = table(ctx), Sink()

    with ctx.heartbeat() as pulse:
        if case == "copy_from":
            cur.copy_from(Source(200), "t")
        else:
            cur.copy_expert(ROWS.format(150_000), sink)

    assert cur.rowcount == (200 * BLOCK.count(b"\n") if case == "copy_from" else 150_000)
    assert sink.size == (0 if case == "copy_from" else 150_000 * 100)
    assert pulse.beats


def test_blocks_hold_nobody_up(ctx: Context) -> None:
    cur = table(ctx)

    with ctx.heartbeat() as pulse:
        with cur.copy("copy t from stdin") as copy:
            for _ in range(100):
                copy.write(BLOCK)
        with cur.copy("copy t to stdout") as copy:
            size = sum(map(len, copy))

    assert size == 100 * len(BLOCK)
    assert pulse.beats


def test_rows_hold_nobody_up(ctx: Context) -> None:
    cur = table(ctx)

    with ctx.heartbeat():
        with cur.copy("copy t from stdin") as copy:
            for number in range(50_000):
                copy.write_row([number])
        with cur.copy("copy t to stdout") as copy:
            rows = sum(1 for _ in copy.rows())

    assert rows == 50_000


def test_other_tasks_wait_for_the_blocks_end(ctx: Context) -> None:
    cur, order = table(ctx), list[str]()

    def intrude() -> None:
        cur.connection.cursor().execute("select 1")
        order.append("intruder")

    with cur.copy("copy t from stdin") as copy:
        intruder = ctx.spawn(intrude)
        ctx.backend.sleep(SHORT)
        copy.write(BLOCK)
        order.append("copy")
    intruder.result()

    assert order == ["copy", "intruder"]


@each("execute", "commit", "copy", "lobject")
def test_block_has_the_connection_to_itself(ctx: Context, case: str) -> None:
    cur = table(ctx)
    uses: dict[str, Callable[[], object]] = {
        "execute": lambda: cur.execute("select 1"),
        "commit": cur.connection.commit,
        "copy": lambda: cur.copy("copy t to stdout").__enter__(),
        "lobject": cur.connection.lobject,
    }

    with cur.copy("copy t from stdin") as copy:
        with raises(psycopg2.ProgrammingError, words="copy() or pipeline() block"):
            uses[case]()
        copy.write("one\n")

    assert row_count(cur) == 1


def test_block_belongs_to_its_task(ctx: Context) -> None:
    cur = table(ctx)

    with cur.copy("copy t from stdin") as copy:
        thief = ctx.spawn(copy.write, "one\n").join()

    assert isinstance(thief.error, psycopg2.ProgrammingError)
    assert row_count(cur) == 0


@needs("hub")
def test_hub_is_refused(ctx: Context) -> None:
    cur = table(ctx)

    for use in (
        lambda: cur.copy_from(Source(1), "t"),
        lambda: cur.copy("copy t from stdin").__enter__(),
    ):
        with raises(psycopg2.ProgrammingError, words="event loop"):
            ctx.in_hub(use)

    assert row_count(cur) == 0


def _growth(ctx: Context, fn: Callable[..., object], *args: object) -> int:
    """Run a job and return how far the process grows until it has ended."""
    before = peak = resident()
    job = ctx.spawn(fn, *args)
    while not job.ended:
        peak = max(peak, resident())
        ctx.backend.sleep(0.005)
    job.result()
    return peak - before


def _copying(source: Source, cur: Any) -> None:
    with raises(DeadlineExceeded), cur.connection.deadline(10 * SHORT):
        cur.copy_from(source, "t")


def test_stalled_server_bounds_memory(ctx: Context) -> None:
    half, source = Half(ctx), Source()

    growth = _growth(ctx, _copying, source, half.conn.cursor())

    assert growth < GRASP
    assert source.taken < 2 * GRASP


@limit(30 + OFFERED)
@each("copy_from", "write")
def test_slow_server_bounds_memory(ctx: Context, case: str) -> None:
    cur = table(ctx, ctx.proxy().dsn)
    ctx.proxy().drip(65536, 0.001, "up")

    def write() -> None:
        with cur.copy("copy t from stdin") as copy:
            for _ in range(OFFERED * 16):
                copy.write(BLOCK)

    growth = _growth(
        ctx, *((write,) if case == "write" else (cur.copy_from, Source(OFFERED * 16), "t"))
    )

    assert growth < GRASP
    assert row_count(cur) == OFFERED * 16 * BLOCK.count(b"\n")
    cur.connection.rollback()  # dropping 500 MB takes longer than a session may outlive


@limit(30 + OFFERED)
@each("copy_to", "read")
def test_slow_reader_bounds_memory(ctx: Context, case: str) -> None:
    cur, query = ctx.connect().cursor(), ROWS.format(OFFERED * 10_000)
    sink = Sink(lambda: ctx.backend.sleep(0.0005))

    def read() -> None:
        with cur.copy(query) as copy:
            for block in copy:
                sink.write(block)

    growth = _growth(ctx, *((read,) if case == "read" else (cur.copy_expert, query, sink)))

    assert growth < GRASP
    assert sink.size == OFFERED * 1_000_000


@each("copy_from", "write")
def test_flood_of_notices_does_not_deadlock(ctx: Context, case: str) -> None:
    cur = table(ctx, ctx.proxy().dsn)
    cur.execute(
        """
        create function pg_temp.shout() returns trigger language plpgsql as
        $$ begin raise notice '%', repeat('x', 2000); return new; end $$;
        create trigger shout before insert on t
        for each row execute function pg_temp.shout()
        """
    )
    text = "".join(f"{number}\n" for number in range(10_000))
    ctx.proxy().drip(4 * MEGABYTE, 0.001, "both")

    if case == "copy_from":
        cur.copy_from(io.StringIO(text), "t", size=1000)
    else:
        with cur.copy("copy t from stdin") as copy:
            for line in text.splitlines(keepends=True):
                copy.write(line)

    assert cur.rowcount == 10_000
    assert cur.connection.notices[-1] == f"NOTICE:  {'x' * 2000}\n"
