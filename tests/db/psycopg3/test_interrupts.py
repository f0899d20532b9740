"""An interrupt cancels the query, leaves the connection usable, and only a rollback may follow."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.errors import InFailedSqlTransaction
from psycopg.pq import PipelineStatus, TransactionStatus

import greenpg
from greenpg.backend import current
from tests.db.conftest import until

SHORT = 0.05
LONG = "select pg_sleep(600)"
ROWS = "select repeat('x', 1000), pg_sleep(0.001) from generate_series(1, 100000)"


def execute(conn):
    conn.execute(LONG)


def stream(conn):
    for _ in conn.cursor().stream(ROWS):
        pass


def server_cursor(conn):
    with conn.cursor("named") as cur:
        cur.execute(LONG)
        cur.fetchall()


def executemany(conn):
    conn.cursor().executemany("select pg_sleep(%s)", [(600,)] * 10)


def executemany_returning(conn):
    conn.cursor().executemany("select pg_sleep(%s)", [(600,)] * 10, returning=True)


def pipeline(conn):
    with conn.pipeline():
        conn.execute("select 1")
        conn.execute(LONG)
        conn.execute("select 2").fetchone()


def nested_pipelines(conn):
    with conn.pipeline(), conn.transaction(), conn.pipeline():
        conn.execute(LONG)


def transaction(conn):
    with conn.transaction(), conn.transaction():
        conn.execute(LONG)


def copy_out(conn):
    with conn.cursor().copy(f"copy ({ROWS}) to stdout") as copy:
        for _ in copy:
            pass


def copy_out_that_does_not_begin(conn):
    with conn.cursor().copy(f"copy ({LONG}) to stdout") as copy:
        copy.read()


def copy_in(conn):
    conn.execute("create temp table rows (text text)")
    with conn.cursor().copy("copy rows from stdin") as copy:
        while True:
            copy.write_row(("x" * 1000,))


OPERATIONS = [
    execute, stream, server_cursor, executemany, executemany_returning, pipeline, nested_pipelines,
    transaction, copy_out, copy_out_that_does_not_begin, copy_in,
]  # fmt: skip


def is_at_rest(conn, observer):
    pid = conn.info.backend_pid
    until(lambda: not observer.is_busy(pid), "the query has ended")
    return (
        not conn.closed
        and conn.pgconn.pipeline_status == PipelineStatus.OFF
        and conn.info.transaction_status != TransactionStatus.ACTIVE
    )


@pytest.mark.parametrize("operation", OPERATIONS)
def test_deadline_stops_the_operation_and_leaves_the_connection(conn, observer, operation):
    with pytest.raises(greenpg.DeadlineExceeded) as caught, conn.deadline(SHORT):
        operation(conn)

    assert isinstance(caught.value, psycopg.errors.QueryCanceled)
    assert is_at_rest(conn, observer)
    conn.rollback()
    assert conn.execute("select 7").fetchone() == (7,)


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one is not server_cursor])
def test_under_autocommit_the_connection_is_usable_at_once(auto, observer, operation):
    with suppress(greenpg.DeadlineExceeded), auto.deadline(SHORT):
        operation(auto)

    assert is_at_rest(auto, observer)
    assert auto.execute("select 7").fetchone() == (7,)


@pytest.mark.green
@pytest.mark.parametrize("operation", OPERATIONS)
def test_kill_stops_the_operation_and_leaves_the_connection(conn, observer, spawn, operation):
    job = spawn(operation, conn)
    until(lambda: observer.is_busy(conn.info.backend_pid), "the operation runs")

    job.kill()

    assert isinstance(job.join().error, current().exits)
    assert is_at_rest(conn, observer)
    conn.rollback()
    assert conn.execute("select 7").fetchone() == (7,)


@pytest.mark.green
def test_killed_executemany_asks_for_no_more_rows(auto, spawn):
    asked: list[int] = []
    jobs: list[Any] = []

    def rows():
        for number in range(10):
            asked.append(number)
            if number == 1:
                spawn(jobs[0].kill)  # lands in the wait for this row
            yield (0,)

    jobs.append(spawn(auto.cursor().executemany, "select pg_sleep(%s)", rows()))
    jobs[0].join()

    assert asked == [0, 1]
    assert auto.execute("select 7").fetchone() == (7,)


def declare(conn):
    with conn.cursor("named") as cur:
        cur.execute("select 1")


@pytest.mark.parametrize(
    "operation",
    [
        lambda conn: conn.commit(),
        lambda conn: conn.execute("select 1"),
        lambda conn: psycopg.ClientCursor(conn).execute("select 1"),
        declare,
        lambda conn: conn.cursor().executemany("select %s", [(1,)]),
        lambda conn: list(conn.cursor().stream("select 1")),
        lambda conn: conn.cursor().copy("copy (select 1) to stdout").__enter__(),
        lambda conn: conn.transaction().__enter__(),
    ],
)
def test_nothing_but_a_rollback_is_accepted(conn, create, operation, connect):
    table = create("(n int)")
    conn.execute(f"insert into {table} values (1)")
    with suppress(greenpg.DeadlineExceeded), conn.deadline(SHORT):
        conn.execute(LONG)

    with pytest.raises(InFailedSqlTransaction, match="interrupted; roll back"):
        operation(conn)

    conn.rollback()
    assert connect().execute(f"select count(*) from {table}").fetchone() == (0,)


@pytest.mark.parametrize(
    "statement", ["rollback", b" /* why */ abort", psycopg.sql.SQL("rollback")]
)
def test_rollback_in_sql_ends_the_transaction(conn, statement):
    with suppress(greenpg.DeadlineExceeded), conn.deadline(SHORT):
        conn.execute(LONG)

    conn.execute(statement)

    assert conn.execute("select 7").fetchone() == (7,)


@pytest.mark.parametrize("kind", [psycopg.ClientCursor, psycopg.Cursor, psycopg.RawCursor])
def test_cursor_made_by_its_class_may_roll_back(conn, kind):
    with suppress(greenpg.DeadlineExceeded), conn.deadline(SHORT):
        conn.execute(LONG)

    kind(conn).execute("rollback")

    assert kind(conn).execute("select 7").fetchone() == (7,)


def test_close_of_a_cursor_admits_no_more(conn, create, connect):
    table = create("(n int)")
    conn.execute(f"insert into {table} values (1)")
    conn._greenpg_state.note_outside(conn)

    for kind in (conn.cursor, partial(psycopg.ClientCursor, conn)):
        with pytest.raises(InFailedSqlTransaction):
            kind().execute("CLOSE ALL; COMMIT")

    conn.rollback()
    assert connect().execute(f"select count(*) from {table}").fetchone() == (0,)


def swallow(conn):
    with suppress(greenpg.DeadlineExceeded), conn.deadline(SHORT):
        conn.execute(LONG)


def test_block_that_swallows_an_interrupt_rolls_back_and_says_so(conn, create, connect):
    table = create("(n int)")

    def block():
        with conn.transaction():
            conn.execute(f"insert into {table} values (1)")
            swallow(conn)

    with pytest.raises(InFailedSqlTransaction, match="interrupted"):
        block()

    assert conn.info.transaction_status == TransactionStatus.IDLE
    assert connect().execute(f"select count(*) from {table}").fetchone() == (0,)


def test_connection_block_that_swallows_an_interrupt_rolls_back_and_says_so(connect, create):
    table, conn = create("(n int)"), connect()

    def block():
        with conn:
            conn.execute(f"insert into {table} values (1)")
            swallow(conn)

    with pytest.raises(InFailedSqlTransaction, match="interrupted"):
        block()

    assert conn.closed
    assert connect().execute(f"select count(*) from {table}").fetchone() == (0,)


def test_nested_block_undoes_what_was_interrupted_in_it(conn, create, connect):
    table = create("(n int)")

    with conn.transaction():
        conn.execute(f"insert into {table} values (1)")
        with suppress(greenpg.DeadlineExceeded), conn.transaction(), conn.deadline(SHORT):
            conn.execute(f"insert into {table} values (2)")
            conn.execute(LONG)
        conn.execute(f"insert into {table} values (3)")

    rows = connect().execute(f"select n from {table} order by n").fetchall()
    assert rows == [(1,), (3,)]


@pytest.mark.green
def test_timeout_while_rows_are_built_dooms_the_transaction(conn, spawn):
    cur = conn.execute("select generate_series(1, 1000000)")
    job = spawn(cur.fetchall)
    until(lambda: job.began, "it fetches")

    job.kill()

    assert isinstance(job.join().error, current().exits)
    with pytest.raises(InFailedSqlTransaction):
        conn.commit()
    conn.rollback()
