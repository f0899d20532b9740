"""Interrupts that land in an operation while it is outside the driver doom the transaction."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg2.extensions as ext
import pytest
from psycopg2.extras import DictCursor

from greenpg._session.input_wait import wait_for_input
from greenpg.backend import current
from tests.db.session.asking import one, stored

SERIES = "select generate_series(1, 9000)"


class Struck(BaseException):
    pass


class Expired(Exception):
    """What gevent.Timeout(0.2, Expired) raises."""


class Deaf:
    """A parameter, a row source and a collector in whose code an interrupt lands."""

    def __conform__(self, protocol):
        return self

    def getquoted(self):
        raise Struck

    __len__ = __getitem__ = append = lambda self, *_: self.getquoted()


class Rows(list[Any]):
    def __iter__(self):
        yield from super().__iter__()
        raise Struck


@pytest.fixture
def table(create):
    return create("(n int)")


@pytest.fixture
def written(conn, table):
    """A connection with a row in its open transaction."""
    conn.cursor().execute(f"insert into {table} values (1)")
    return conn


@pytest.fixture
def strike(monkeypatch):
    """Make the connection's next pause between two slices raise an exception."""

    def struck(conn, error, before=lambda: None):
        def pause():
            before()
            patch.undo()
            raise error

        patch = pytest.MonkeyPatch()
        patches.append(patch)
        patch.setattr(conn._greenpg_state.backend, "pause", pause, raising=False)

    patches = list[Any]()
    monkeypatch.setattr("greenpg._session.time_slice.SECONDS", 0)
    yield struck
    for patch in patches:
        patch.undo()


def fetch(method, *args, **options):
    def work(conn):
        cur = conn.cursor(**options)
        cur.execute(SERIES)
        getattr(cur, method)(*args)

    return work


def pipelined(conn):
    with conn.pipeline() as pipe:
        pipe.execute(SERIES).fetchall()


def pipelined_before(conn):
    with conn.pipeline() as pipe:
        result = pipe.execute(SERIES)
        assert result.rowcount == 9000
    result.fetchall()


FETCHES = {
    "fetchall": fetch("fetchall"),
    "fetchmany": fetch("fetchmany", 5000),
    "fetchall of dicts": fetch("fetchall", cursor_factory=DictCursor),
    "fetchall of a pipeline": pipelined,
    "fetchall after a pipeline": pipelined_before,
}


@pytest.mark.parametrize("error", [Struck, Expired])
@pytest.mark.parametrize("name", FETCHES)
def test_interrupt_between_two_slices_dooms(db, written, connect, table, strike, name, error):
    strike(written, error)

    with pytest.raises(error):
        FETCHES[name](written)

    with pytest.raises(db.errors.InFailedSqlTransaction, match="interrupted; roll back"):
        written.commit()
    written.rollback()
    assert one(written) == 1
    assert stored(connect, table) == []


@pytest.mark.parametrize("name", FETCHES)
def test_under_autocommit_nothing_is_doomed(auto, strike, name):
    strike(auto, Struck)

    with pytest.raises(Struck):
        FETCHES[name](auto)

    assert one(auto) == 1


def swallowed_in_a_copy(conn):
    with conn.cursor().copy("copy pg_temp.t from stdin") as copy:
        copy.write_row((1,))
        with suppress(Struck):
            copy.write_row((Deaf(),))
    raise Struck


def swallowed_in_a_pipeline(conn):
    with conn.pipeline() as pipe, suppress(Struck):
        pipe.execute("insert into pg_temp.t values (%s)", (Deaf(),))
    raise Struck


def cast(conn, name=None):
    def strikes(text, cur):
        raise Struck

    cur = conn.cursor(name)
    ext.register_type(ext.new_type((23,), "STRUCK", strikes), cur)
    cur.execute(SERIES)
    cur.fetchmany(3)


INSERT = "insert into pg_temp.t values (%s)"
IN_CODE = {
    "row of executemany": lambda conn: conn.cursor().executemany(INSERT, Rows([(1,), (2,)])),
    "rows of executemany": lambda conn: conn.cursor().executemany(INSERT, Rows([(1,)] * 99)),
    "generator": lambda conn: conn.cursor().executemany(INSERT, iter(Rows([(1,), (2,)]))),
    "adapter": lambda conn: conn.cursor().execute(INSERT, (Deaf(),)),
    "adapter in callproc": lambda conn: conn.cursor().callproc("abs", (Deaf(),)),
    "adapter in executemany": lambda conn: conn.cursor().executemany(
        INSERT, [*[(1,)] * 9, (Deaf(),), (2,)]
    ),
    "typecaster": cast,
    "typecaster of a named cursor": lambda conn: cast(conn, "named"),
    "copy": swallowed_in_a_copy,
    "pipeline": swallowed_in_a_pipeline,
}


@pytest.mark.parametrize("name", IN_CODE)
def test_interrupt_in_the_programs_code_dooms(db, conn, name):
    conn.cursor().execute("create temp table t (n int)")
    conn.commit()
    conn.cursor().execute("insert into t values (0)")

    with pytest.raises(Struck):
        IN_CODE[name](conn)

    with pytest.raises(db.errors.InFailedSqlTransaction):
        conn.commit()
    conn.rollback()
    cur = conn.cursor()
    cur.execute("select count(*) from t")
    assert cur.fetchone() == (0,)


def test_interrupt_in_a_collector_dooms(db, conn, connect, table):
    conn.cursor().execute("listen here")
    conn.commit()
    conn.notifies = Deaf()
    other = connect()
    other.cursor().execute("notify here")
    other.commit()
    assert wait_for_input(conn, 5)

    with pytest.raises(Struck):
        conn.cursor().execute(f"insert into {table} values (1)")

    with pytest.raises(db.errors.InFailedSqlTransaction):
        conn.commit()
    conn.rollback()
    assert stored(connect, table) == []


def test_error_of_the_programs_code_dooms_nothing(conn, connect, table):
    def rows():
        yield (1,)
        raise KeyError

    with pytest.raises(KeyError):
        conn.cursor().executemany(f"insert into {table} values (%s)", rows())
    conn.commit()

    assert stored(connect, table) == [1]


def test_interrupt_of_an_iteration_over_notifications_dooms(db, conn, connect, table, strike):
    conn.commit()
    notes = conn.listen("orders")
    other = connect()
    other.cursor().execute("notify orders, 'a'; notify orders, 'b'")
    other.commit()
    assert next(notes).payload == "a"
    conn.cursor().execute(f"insert into {table} values (1)")

    strike(conn, Struck)
    with pytest.raises(Struck):
        next(notes)

    with pytest.raises(db.errors.InFailedSqlTransaction):
        conn.commit()
    conn.rollback()
    assert stored(connect, table) == []


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_another_tasks_operation_settles_it_at_its_end(
    db, written, connect, table, gate, spawn, strike, end
):
    jobs = []

    def run_another():
        jobs.append(spawn(written.cursor().execute, gate.sql))
        gate.wait_for()

    strike(written, Struck, run_another)
    with pytest.raises(Struck):
        FETCHES["fetchall"](written)
    gate.open()
    jobs[0].result()

    if end == "commit":
        with pytest.raises(db.errors.InFailedSqlTransaction):
            written.commit()
    written.rollback()
    assert one(written) == 1
    written.rollback()
    assert stored(connect, table) == []


def test_another_tasks_rollback_settles_it(written, connect, table, strike):
    strike(written, Struck, written.rollback)

    with pytest.raises(Struck):
        FETCHES["fetchall"](written)

    written.cursor().execute(f"insert into {table} values (2)")
    written.commit()
    assert stored(connect, table) == [2]


def test_another_tasks_block_is_refused_too(db, written, connect, table, spawn, strike):
    held, go, jobs = current().event(), current().event(), []

    def hold():
        with written.exclusive():
            held.set()
            go.wait(5)
            written.commit()

    def start():
        jobs.append(spawn(hold))
        held.wait(5)

    strike(written, Struck, start)
    with pytest.raises(Struck):
        FETCHES["fetchall"](written)
    go.set()

    with pytest.raises(db.errors.InFailedSqlTransaction):
        jobs[0].result()
    written.rollback()
    assert stored(connect, table) == []


@pytest.mark.green
def test_kill_of_a_fetch_dooms(db, written, connect, table, monkeypatch, spawn):
    cur, started = written.cursor(), current().event()
    cur.execute("select generate_series(1, 300000)")
    monkeypatch.setattr("greenpg._session.time_slice.SECONDS", 0)

    def work():
        started.set()
        return len(cur.fetchall())

    job = spawn(work)
    started.wait(5)
    job.kill()

    with pytest.raises(current().exits):
        job.result()
    with pytest.raises(db.errors.InFailedSqlTransaction):
        written.commit()
    written.rollback()
    assert stored(connect, table) == []
