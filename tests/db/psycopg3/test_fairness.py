"""psycopg 3's long operations: other tasks have their turns meanwhile."""

from __future__ import annotations

import gc

import pytest

from greenpg.backend import current
from greenpg_conformance.toolkit.heartbeat import heartbeat

ROWS = 200_000
SERIES = f"select n, n::text, now() from generate_series(1, {ROWS}) n"


def all_at_once(conn):
    return len(conn.execute(SERIES).fetchall())


def all_of_a_held_result(conn):
    cur = conn.execute(SERIES)
    cur.fetchone()
    return len(cur.fetchmany(ROWS)) + 1


def one_by_one(conn):
    cur = conn.execute(SERIES)
    return sum(1 for _ in iter(cur.fetchone, None))


def by_iteration(conn):
    return sum(1 for _ in conn.execute(SERIES))


def from_a_server_cursor(conn):
    with conn.transaction(), conn.cursor("numbers") as cur:
        return len(cur.execute(SERIES).fetchall())


def in_chunks_from_a_server_cursor(conn):
    with conn.transaction(), conn.cursor("numbers") as cur:
        cur.itersize = ROWS // 2
        return sum(1 for _ in cur.execute(SERIES))


def streamed(conn):
    return sum(1 for _ in conn.cursor().stream(SERIES))


def copied_out(conn):
    with conn.cursor().copy(f"copy ({SERIES}) to stdout") as copy:
        return sum(bytes(block).count(b"\n") for block in copy)


def copied_out_in_rows(conn):
    with conn.cursor().copy(f"copy ({SERIES}) to stdout") as copy:
        return sum(1 for _ in copy.rows())


def copied_in(conn):
    conn.execute("create temp table copied (n int, t text)")
    with conn.cursor().copy("copy copied from stdin") as copy:
        for n in range(ROWS):
            copy.write_row((n, "text"))
    return conn.execute("select count(*) from copied").fetchone()[0]


def copied_in_at_once(conn):
    conn.execute("create temp table copied (n int)")
    with conn.cursor().copy("copy copied from stdin") as copy:
        copy.write("1\n" * ROWS)
    return conn.execute("select count(*) from copied").fetchone()[0]


def inserted(conn):
    conn.execute("create temp table many (n int)")
    conn.cursor().executemany("insert into many values (%s)", [(n,) for n in range(ROWS // 10)])
    return conn.execute("select count(*) from many").fetchone()[0] * 10


def inserted_returning(conn):
    conn.execute("create temp table many (n int)")
    cur, rows = conn.cursor(), [(n,) for n in range(ROWS // 10)]
    cur.executemany("insert into many values (%s) returning n", rows, returning=True)
    return (1 + sum(1 for _ in iter(cur.nextset, None))) * 10


def piped(conn):
    with conn.pipeline():
        found = [conn.execute("select %s", (n,)) for n in range(ROWS // 100)]
    return sum(cur.fetchone()[0] >= 0 for cur in found) * 100


def all_from_a_pipeline(conn):
    with conn.pipeline():
        return len(conn.execute(SERIES).fetchall())


OPERATIONS = (
    all_at_once, all_of_a_held_result, one_by_one, by_iteration, from_a_server_cursor,
    in_chunks_from_a_server_cursor, streamed, copied_out, copied_out_in_rows, copied_in,
    copied_in_at_once, inserted, inserted_returning, piped, all_from_a_pipeline,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _no_collector():
    """Leave Python's collector out, which stops all tasks for as long as it has objects."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_others_run_meanwhile(auto, operation):
    with heartbeat(current()):
        assert operation(auto) == ROWS
