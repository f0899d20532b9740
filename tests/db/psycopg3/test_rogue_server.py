"""A server whose answers never end: an interrupt ends the operation, and closes the connection."""

from __future__ import annotations

import psycopg
import pytest

import greenpg
from greenpg_conformance.toolkit.fake_server import message
from greenpg_conformance.toolkit.machine import Stopwatch
from tests.db.session.test_rogue_server import COLUMNS, COPY_OUT, FLOODS, ROW

SECONDS = 0.2
PARSED = message(b"1") + message(b"2")


@pytest.fixture
def rogue(fake, connect):
    conn = connect(fake.dsn, autocommit=True)
    conn._greenpg_state.cancel_timeout = SECONDS
    return conn


def execute(conn):
    conn.execute("insert into t values (1)")


def in_pipeline(conn):
    with conn.pipeline():
        conn.execute("insert into t values (1)").fetchall()


def executemany(conn):
    conn.cursor().executemany("insert into t values (%s)", [(n,) for n in range(9)])


def stream(conn):
    for _ in conn.cursor().stream("insert into t values (1)"):
        pass


def copy_out(conn):
    with conn.cursor().copy("copy t to stdout") as copy:
        while copy.read():
            pass


def ends_at_the_deadline(conn, operation):
    watch = Stopwatch()

    with pytest.raises(greenpg.DeadlineExceeded), conn.deadline(SECONDS):
        operation(conn)

    assert watch.seconds() < 10 * SECONDS
    assert conn.closed
    assert conn._greenpg_state.holder is None


IN_PIPELINES = [in_pipeline, executemany]
CASES = [
    (operation, case)
    for operation in (execute, stream, *IN_PIPELINES)
    for case in FLOODS
    if operation not in IN_PIPELINES or case != "results"
]


@pytest.mark.parametrize(("operation", "case"), CASES)
def test_flood_ends_at_the_deadline(fake, rogue, operation, case):
    reply, flood = FLOODS[case]
    begun = b"" if operation is execute else PARSED
    fake.answer(b"insert", begun + reply, flood=flood * 100)

    ends_at_the_deadline(rogue, operation)


@pytest.mark.parametrize("operation", IN_PIPELINES)
def test_results_that_no_statement_asked_for_close_the_connection(fake, rogue, operation):
    reply, flood = FLOODS["results"]
    fake.answer(b"insert", PARSED + reply, flood=flood * 100)

    with pytest.raises(psycopg.Error):
        operation(rogue)

    assert rogue.closed


def test_copy_without_an_end_ends_at_the_deadline(fake, rogue):
    fake.answer(b"copy", COPY_OUT, flood=message(b"d", b"row\n") * 100)

    ends_at_the_deadline(rogue, copy_out)


class Failed(Exception):
    """The program's own error."""


def test_programs_error_is_not_hidden_by_its_clean_up(fake, rogue):
    def copy_out_that_fails():
        with rogue.cursor().copy("copy t to stdout") as copy:
            copy.read()
            raise Failed

    fake.answer(b"copy", COPY_OUT, flood=message(b"d", b"row\n") * 100)

    with pytest.raises(Failed):
        copy_out_that_fails()

    assert rogue.closed


def test_stream_that_its_reader_gives_up_ends(fake, rogue):
    fake.answer(b"insert", PARSED + COLUMNS, flood=ROW * 100)
    rows = rogue.cursor().stream("insert into t values (1)")
    next(rows)

    rows.close()

    assert rogue.closed
