"""What a program leaves unfinished when it ends: Python finalizes it where no task can wait."""

from __future__ import annotations

import pytest

from tests import programs
from tests.green.__main__ import MONKEY

LEFT = """
import sys
from contextlib import closing

import greenpg
greenpg.use(library)
dsn, series = sys.argv[1], "select generate_series(1, 9000)"

def stream(conn):
    yield from conn.cursor().stream(series)

def stream_that_is_closed(conn):
    with closing(conn.cursor().stream(series)) as rows:
        yield from rows

def named_cursor(conn):
    with conn.cursor("named", withhold=True) as cur:
        cur.execute(series)
        yield from cur

def transaction(conn):
    conn.autocommit = False
    with conn, conn.cursor() as cur:
        cur.execute("select 1")
        yield

def rollback(conn):
    conn.autocommit = False
    conn.cursor().execute("select 1")
    try:
        yield
    finally:
        conn.rollback()
        conn.reset()
        conn.autocommit = True
        conn.close()

def large_object(conn):
    conn.autocommit = False
    with closing(conn.lobject()) as large:
        large.write("large")
        yield

def pipeline(conn):
    with conn.pipeline() as queue:
        queue.execute("select 1")
        yield

def copy_to(conn):
    with conn.cursor().copy(f"copy ({series}) to stdout") as copy:
        yield from copy

def copy_from(conn):
    conn.cursor().execute("create temp table made (n int)")
    with conn.cursor().copy("copy made from stdin") as copy:
        copy.write("1\\n")
        yield

def listening(conn):
    with conn.listen("orders"):
        yield

def block(conn):
    with conn.exclusive(), conn.deadline(9):
        yield from conn.cursor().stream(series)

def loan(conn):
    with pool.connection() as lent:
        yield from lent.cursor().stream(series)

def begun(function):
    conns.append(greenpg.connect(dsn, options="-c client_connection_check_interval=100"))
    conns[-1].autocommit = True
    generator = function(conns[-1])
    next(generator)
    return generator

conns = []
pool = greenpg.ConnectionPool(dsn, min_size=1, max_size=2)
functions = (
    stream, stream_that_is_closed, named_cursor, transaction, rollback, large_object, pipeline,
    copy_to, copy_from, listening, block, loan,
)
"""
AT_REST = "left = list(map(begun, functions))\n"
IN_USE = """
from greenpg.backend import current

left = list(map(begun, functions[:6]))
jobs = [current().spawn(conn.cursor().execute, "select pg_sleep(60)") for conn in conns]
while not all(conn._greenpg_state.in_driver for conn in conns):
    current().sleep(0.01)
"""


@pytest.mark.parametrize("end", [AT_REST, IN_USE], ids=["at rest", "in use"])
@pytest.mark.parametrize("mode", ["patched", "explicit"])
@pytest.mark.parametrize("library", MONKEY)
def test_what_is_unfinished_ends_without_a_word(dsn, library, mode, end):
    head = MONKEY[library] if mode == "patched" else ""

    done = programs.run(f"{head}\nlibrary = {library!r}\n{LEFT}{end}print('end')", dsn)

    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_what_is_unfinished_on_threads_ends_without_a_word(dsn):
    done = programs.run(f"library = 'threads'\n{LEFT}{AT_REST}print('end')", dsn)

    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")
