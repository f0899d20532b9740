"""Large results: streamed from the server, or fetched in slices."""

from __future__ import annotations

import gc
from typing import Any

import psycopg2
import pytest
from psycopg2.extras import DictCursor, NamedTupleCursor, RealDictCursor

import greenpg
from greenpg._large_results import SLICE_ROWS
from greenpg.backend import current
from greenpg_conformance.toolkit.memory import resident

SERIES = "select generate_series(1, %s)"
CURSORS = "select count(*) from pg_cursors"


def one(conn, query="select 1", args=None):
    cur = conn.cursor()
    cur.execute(query, args)
    return cur.fetchone()[0]


@pytest.fixture(params=[False, True], ids=["transaction", "autocommit"])
def either(request, connect):
    made = connect()
    made.autocommit = request.param
    return made


# stream


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 300, 20_000])
def test_rows_come_in_order(either, count):
    rows = list(either.cursor().stream(SERIES, (count,)))

    assert rows == [(n + 1,) for n in range(count)]
    assert one(either, CURSORS) == 0


def test_rows_are_of_the_cursors_kind(connect):
    conn = connect(cursor_factory=RealDictCursor)

    assert list(conn.cursor().stream("select 1 as a")) == [{"a": 1}]
    assert next(conn.cursor(cursor_factory=DictCursor).stream("select 1 as a"))["a"] == 1
    assert next(conn.cursor(cursor_factory=NamedTupleCursor).stream("select 1 as a")).a == 1


def test_nothing_is_sent_before_the_first_row_is_wanted(auto):
    rows = auto.cursor().stream("select 1 / 0")

    with pytest.raises(psycopg2.errors.DivisionByZero):
        next(rows)
    assert one(auto) == 1


def test_error_half_way_propagates(either):
    got = []

    with pytest.raises(psycopg2.errors.DivisionByZero):
        got.extend(either.cursor().stream("select 1 / (500 - n) from generate_series(1, 900) n"))
    either.rollback()

    assert one(either, CURSORS) == 0


def test_abandoned_half_way(either):
    rows = either.cursor().stream(SERIES, (10_000,))
    assert [next(rows) for _ in range(150)][-1] == (150,)

    rows.close()

    assert one(either, CURSORS) == 0


def test_forgotten_half_way(either):
    rows = either.cursor().stream(SERIES, (10_000,))
    next(rows)

    del rows
    gc.collect()

    assert one(either, CURSORS) == 0


def test_connection_is_usable_meanwhile(either):
    found = [one(either, "select %s", row) for row in either.cursor().stream(SERIES, (300,))]

    assert found == list(range(1, 301))


def test_two_streams_of_one_cursor(either):
    cur = either.cursor()

    pairs = list(zip(cur.stream(SERIES, (500,)), cur.stream(SERIES, (500,)), strict=True))

    assert pairs == [((n,), (n,)) for n in range(1, 501)]


def test_autocommit_outlives_other_statements(auto):
    rows = auto.cursor().stream(SERIES, (5000,))
    next(rows)
    auto.cursor().execute("begin; create temp table made (n int); commit")

    assert len(list(rows)) == 4999


def test_transaction_of_ones_own_under_autocommit(auto):
    auto.cursor().execute("begin")

    assert len(list(auto.cursor().stream(SERIES, (500,)))) == 500
    auto.cursor().execute("commit")
    assert one(auto, CURSORS) == 0


@pytest.mark.parametrize("kind", [None, RealDictCursor])
def test_commit_ends_a_stream(conn, kind):
    rows = conn.cursor(cursor_factory=kind).stream(SERIES, (10_000,))
    next(rows)
    conn.commit()

    with pytest.raises(psycopg2.ProgrammingError):
        list(rows)

    assert conn.status == psycopg2.extensions.STATUS_READY


def test_memory_is_bounded(conn):
    query = "select repeat('x', 1000) from generate_series(1, %s)"
    for _ in conn.cursor().stream(query, (20_000,)):
        pass
    before, peak = resident(), 0

    for number, _ in enumerate(conn.cursor().stream(query, (60_000,))):
        if number % 5000 == 0:
            peak = max(peak, resident() - before)

    assert peak < 5_000_000


def test_deadline_half_way(either):
    query = "select case when n = 900 then pg_sleep(60)::text end from generate_series(1, 999) n"
    rows = either.cursor().stream(query) if not either.autocommit else None
    if rows is None:  # WITH HOLD runs the whole query first
        rows = either.cursor().stream("select pg_sleep(60)")

    with pytest.raises(greenpg.DeadlineExceeded), either.deadline(0.2):
        list(rows)
    either.rollback()

    assert one(either, CURSORS) == 0


@pytest.mark.green
def test_kill_half_way(either, gate, spawn):
    job = spawn(lambda: list(either.cursor().stream(gate.sql)))
    gate.wait_for()

    job.kill()
    job.join()
    either.rollback()

    assert isinstance(job.error, current().exits)
    gate.wait_for(0)
    assert one(either, CURSORS) == 0


def test_close_of_the_connection_half_way(either):
    rows = either.cursor().stream(SERIES, (10_000,))
    next(rows)

    either.close()

    with pytest.raises(psycopg2.InterfaceError):
        list(rows)


# fetchall and fetchmany


@pytest.mark.parametrize("count", [0, 1, SLICE_ROWS - 1, SLICE_ROWS, SLICE_ROWS + 1, 7000])
def test_fetchall_is_complete(conn, count):
    cur = conn.cursor()
    cur.execute(SERIES, (count,))

    assert cur.fetchall() == [(n + 1,) for n in range(count)]
    assert (cur.rowcount, cur.rownumber, cur.fetchall()) == (count, count, [])


@pytest.mark.parametrize("size", [1, SLICE_ROWS, SLICE_ROWS + 1, 5000, 99_999])
def test_fetchmany_is_as_large_as_asked(conn, size):
    cur = conn.cursor()
    cur.execute(SERIES, (7000,))

    first, rest = cur.fetchmany(size), cur.fetchall()

    assert len(first) == min(size, 7000)
    assert first + rest == [(n + 1,) for n in range(7000)]


def test_arraysize_is_the_default(conn):
    cur = conn.cursor()
    cur.arraysize = 3000
    cur.execute(SERIES, (7000,))

    assert len(cur.fetchmany()) == 3000


def test_dict_rows_are_complete(connect):
    cur = connect(cursor_factory=RealDictCursor).cursor()
    cur.execute("select generate_series(1, %s) as n", (7000,))

    assert [row["n"] for row in cur.fetchall()] == list(range(1, 7001))


def test_fetch_without_a_result(conn):
    cur = conn.cursor()
    cur.execute("set local work_mem = '1MB'")

    with pytest.raises(psycopg2.ProgrammingError, match="no results to fetch"):
        cur.fetchall()
    with pytest.raises(psycopg2.ProgrammingError, match="no results to fetch"):
        cur.fetchmany(5000)


def test_error_of_a_cast_propagates(conn):
    cur = conn.cursor()
    cur.execute(
        "select case when n = 5000 then '10000-01-01' else '2000-01-01' end::date"
        " from generate_series(1, 9000) n"
    )

    with pytest.raises(ValueError, match="year"):
        cur.fetchall()
    assert one(conn) == 1


USES = {
    "execute": lambda cur: cur.execute("select 1"),
    "executemany": lambda cur: cur.executemany("select %s", [(1,)]),
    "pipelined": lambda cur: cur.executemany("delete from pg_class where oid = %s", [(0,)] * 9),
    "callproc": lambda cur: cur.callproc("now"),
    "copy": lambda cur: cur.copy("copy pg_class to stdout").__enter__(),
}


@pytest.mark.green
@pytest.mark.parametrize("use", USES)
def test_cursor_being_fetched_refuses_other_tasks(conn, spawn, monkeypatch, use):
    cur, jobs = conn.cursor(), list[Any]()
    cur.execute(SERIES, (200_000,))
    usual = current().pause
    monkeypatch.setattr("greenpg._session.time_slice.SECONDS", 0)

    def pause():
        if not jobs:
            jobs.append(spawn(USES[use], cur))
            current().sleep(0.01)
        usual()

    monkeypatch.setattr(conn._greenpg_state.backend, "pause", pause)
    rows = cur.fetchall()

    assert isinstance(jobs[0].join().error, psycopg2.ProgrammingError)
    assert len(rows) == 200_000


@pytest.mark.green
def test_interrupted_fetch_leaves_the_cursor_between_rows(either, monkeypatch):
    class Struck(BaseException):
        pass

    def pause():
        raise Struck

    cur = either.cursor()
    cur.execute(SERIES, (100_000,))
    monkeypatch.setattr("greenpg._session.time_slice.SECONDS", 0)
    with monkeypatch.context() as patch:
        patch.setattr(either._greenpg_state.backend, "pause", pause)
        with pytest.raises(Struck):
            cur.fetchall()

    at = cur.rownumber
    assert cur.fetchone() == (at + 1,)
    if not either.autocommit:
        with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
            cur.execute("select 1")
        either.rollback()
    cur.execute("select 1")
    assert cur.fetchall() == [(1,)]
