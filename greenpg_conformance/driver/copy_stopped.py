"""COPYs that are ended half-way: by interrupts, by others, by errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import psycopg2

from greenpg import DeadlineExceeded
from greenpg.errors import BadCopyFileFormat
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import each, needs, raises

from ._copy_fixtures import BLOCK, ROWS, WAYS, Half, Sink, row_count, table
from ._steps import ask, check_doomed, check_killed

SHORT: Final = 0.1


@each(*WAYS)
def test_deadline_half_way(ctx: Context, case: str) -> None:
    half = Half(ctx)

    with raises(DeadlineExceeded), half.conn.deadline(5 * SHORT):
        WAYS[case](half)

    half.check()


def test_deadline_within_the_block(ctx: Context) -> None:
    half = Half(ctx)

    with (
        raises(DeadlineExceeded),
        half.conn.cursor().copy("copy t from stdin") as copy,
        half.conn.deadline(5 * SHORT),
    ):
        while True:
            copy.write(BLOCK)

    half.check()


def _half_way(ctx: Context, case: str) -> tuple[Half, Any]:
    """Return a COPY that is half-way, and its job."""
    half = Half(ctx)
    job = ctx.spawn(WAYS[case], half)
    half.wait()
    return half, job


@needs("kill")
@each(*WAYS)
def test_kill_half_way(ctx: Context, case: str) -> None:
    half, job = _half_way(ctx, case)

    check_killed(ctx, job)

    half.check()


@needs("kill")
@each(*WAYS)
def test_timeout_half_way_comes_out_as_itself(ctx: Context, case: str) -> None:
    half, timeout = Half(ctx), ctx.timeout(5 * SHORT)

    with raises(BaseException) as caught, timeout:
        WAYS[case](half)

    assert caught.error is timeout
    half.check()


@each(*WAYS)
def test_cancel_half_way(ctx: Context, case: str) -> None:
    half, job = _half_way(ctx, case)

    half.conn.cancel()
    if case in ("copy_from", "write"):  # an endless source notices nothing
        ctx.backend.sleep(SHORT)
        half.conn.close()

    assert isinstance(job.join().error, psycopg2.Error)


@each(*WAYS)
def test_close_half_way(ctx: Context, case: str) -> None:
    half, job = _half_way(ctx, case)

    half.conn.close()

    assert isinstance(job.join().error, psycopg2.InterfaceError)


@each(*WAYS)
def test_server_gone_half_way(ctx: Context, case: str) -> None:
    half, job = _half_way(ctx, case)

    ctx.server.terminate(half.conn.info.backend_pid)

    assert isinstance(job.join().error, psycopg2.OperationalError)
    assert half.conn.closed


class _StuckFile:
    def __init__(self, ctx: Context) -> None:
        self.began, self._never = ctx.backend.event(), ctx.backend.event()

    def read(self, _size: int) -> bytes:
        self.began.set()
        self._never.wait()
        return b""

    write = read


@needs("kill")
@each("copy t from stdin", "copy (select 1) to stdout")
def test_kill_within_the_file_bars_a_commit(ctx: Context, case: str) -> None:
    cur, file = table(ctx), _StuckFile(ctx)
    job = ctx.spawn(cur.copy_expert, case, file)
    file.began.wait()

    check_killed(ctx, job)

    check_doomed(ctx, cur.connection)


def test_error_in_a_files_write_bars_a_commit(ctx: Context) -> None:
    def fail() -> None:
        raise OSError("disk full")

    cur = table(ctx)

    with raises(OSError):
        cur.copy_expert("copy (select 1) to stdout", Sink(fail))

    check_doomed(ctx, cur.connection)


def test_error_in_the_block_loads_nothing(ctx: Context) -> None:
    cur = table(ctx)
    cur.connection.commit()

    with raises(ZeroDivisionError), cur.copy("copy t from stdin") as copy:
        copy.write(BLOCK)
        raise ZeroDivisionError

    cur.connection.rollback()
    assert row_count(cur) == 0


@each("autocommit", "in a transaction")
def test_block_may_end_before_the_data(ctx: Context, case: str) -> None:
    conn = ctx.connect(autocommit=case == "autocommit")

    with conn.cursor().copy(ROWS.format(100_000)) as copy:
        first = copy.read_row()

    assert first == ("x" * 99,)
    assert ask(conn) == 7


def test_abandoned_block_closes_the_connection(ctx: Context) -> None:
    conn = ctx.connect()

    def rows() -> Iterator[Any]:
        with conn.cursor().copy(ROWS.format(100_000)) as copy:
            yield from copy.rows()

    started = [rows()]
    ctx.spawn(lambda: next(started[0])).result()
    started.clear()  # here, in another task than the block's

    assert conn.closed
    with raises(psycopg2.InterfaceError):
        conn.cursor()


@each("at its begin", "later")
def test_close_while_the_block_is_busy_elsewhere(ctx: Context, case: str) -> None:
    cur, began, closed = table(ctx), ctx.backend.event(), ctx.backend.event()

    def copy() -> None:
        with cur.copy("copy t from stdin") as copy:
            copy.write(BLOCK)
            began.set()
            closed.wait()

    job = ctx.spawn(copy)
    if case == "later":
        began.wait()
    else:
        ctx.busy(cur.connection)
    cur.connection.close()
    closed.set()

    assert cur.connection.closed
    assert isinstance(job.join().error, psycopg2.InterfaceError)


def test_bad_row_in_the_middle(ctx: Context) -> None:
    cur = table(ctx)
    cur.connection.commit()

    with raises(BadCopyFileFormat) as caught, cur.copy("copy t from stdin") as copy:
        for block in (BLOCK, b"two\tfields\n", *[BLOCK] * 20):
            copy.write(block)

    assert caught.error.diag.context.startswith(f"COPY t, line {BLOCK.count(10) + 1}")
    cur.connection.rollback()
    assert row_count(cur) == 0
