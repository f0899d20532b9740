"""Ctrl-C wherever CPython checks for signals, from an operation's first call to its last."""

from __future__ import annotations

import os
import sys
import traceback

import pytest
from psycopg2.extensions import make_dsn, parse_dsn

import greenpg
from greenpg._psycopg2.attempt import Request, current_request
from greenpg._session import lock as _lock
from greenpg.pool import ConnectionPool
from tests.db.strikes import Alarm, CtrlC, Strike, struck

STEP = 12  # one test uses every twelfth place: all places take long
STEP_OF_TWO = 9


def execute(conn):
    conn.cursor().execute("select pg_sleep(0.01)")


def commit(conn):
    conn.commit()


def cancel(conn):
    conn.cancel()


def block(conn):
    with conn.exclusive():
        conn.cursor().execute("select 1")


def pipeline(conn):
    with conn.pipeline() as pipe:
        result = pipe.execute("select 1")
    assert result.fetchone() == (1,)


def copy_in(conn):
    with conn.cursor().copy("copy t from stdin") as copy:
        copy.write("1\n")
        copy.write_row((2,))


def copy_out(conn):
    with conn.cursor().copy("copy (values (1), (2)) to stdout") as copy:
        assert sum(1 for _ in copy.rows()) == 2


def copy_a_part(conn):
    with conn.cursor().copy("copy (select repeat('x', 100000)) to stdout") as copy:
        assert copy.read()


def executemany(conn):
    conn.cursor().executemany("insert into t values (%s)", [(n,) for n in range(5)])


def answer(conn):
    """Use the connection as another task, if it is open."""
    if conn.closed:
        return 42
    conn.rollback()
    cur = conn.cursor()
    cur.execute("select 42")
    found = cur.fetchone()[0]
    conn.rollback()
    return found


OPERATIONS = [execute, commit, block, cancel, pipeline, executemany, copy_in, copy_out, copy_a_part]


SPARING = dict.fromkeys([block, pipeline, executemany], "__exit__")  # where it prevents the end


@pytest.fixture
def fire(connect, spawn, monkeypatch):
    """Strike at every `step`th place of an operation; the connection must be right or closed."""
    monkeypatch.setattr(_lock, "_LOOK", 0.02)

    def fired(operation, nth, step, again=None):
        while True:
            conn = connect()
            conn.cursor().execute("create temp table t (id int)")
            strike = Strike(nth, again, SPARING.get(operation, ""))
            came_out = struck(operation, conn, strike)
            if not strike.place:
                return nth
            assert came_out, strike.place
            assert spawn(answer, conn).result() == 42, strike.place
            assert answer(conn) == 42, strike.place
            conn.close()
            nth += step

    return fired


@pytest.mark.parametrize("nth", range(STEP))
@pytest.mark.parametrize("operation", OPERATIONS)
def test_lock_is_free_and_the_connection_right_or_closed(fire, operation, nth):
    places = fire(operation, nth, STEP)

    assert places > STEP


@pytest.mark.parametrize("again", [0, 1, 4, 18])
@pytest.mark.parametrize("operation", [copy_in, copy_a_part])
def test_twice_in_a_copy_block(fire, operation, again):
    places = fire(operation, again, STEP_OF_TWO, again)

    assert places > STEP_OF_TWO


def loan(pool):
    with pool.connection():
        pass


@pytest.mark.filterwarnings("ignore:pool 'struck'.* was never given back:ResourceWarning")
@pytest.mark.parametrize("nth", range(STEP))
def test_a_pools_lock_is_free(dsn, nth):
    while True:
        pool = ConnectionPool(dsn, min_size=1, name="struck")
        pool.wait()
        strike = Strike(nth)

        struck(loan, pool, strike)

        pool.drain()  # refused where the lock is still held
        pool.close(0)
        if not strike.place:
            break
        nth += STEP
    assert nth > STEP


@pytest.mark.parametrize("nth", range(STEP))
@pytest.mark.parametrize("operation", [pipeline, executemany])
def test_what_a_signal_handler_raises_is_not_swallowed(fire, monkeypatch, operation, nth):
    monkeypatch.setattr(Strike, "error", Alarm)

    places = fire(operation, nth, STEP)

    assert places > STEP


def open_at_the_error(operation, strike):
    """Run the operation under fire; return the descriptors left open, and the place of Ctrl-C.

    Descriptors that the traceback keeps count, if the connection was still being made.
    """
    before = os.listdir("/dev/fd")
    sys._getframe().f_trace_opcodes = True
    sys.settrace(strike.enter)
    try:
        operation()
        return 0, strike.place
    except CtrlC as error:
        sys.settrace(None)
        strike.forget()
        names = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
        if "_make" in names:
            return len(os.listdir("/dev/fd")) - len(before), strike.place
    finally:
        sys.settrace(None)
        strike.forget()
    return len(os.listdir("/dev/fd")) - len(before), strike.place


@pytest.mark.parametrize("nth", range(STEP))
@pytest.mark.parametrize("hosts", [1, 2])
def test_a_connect_leaves_neither_socket_nor_request(dsn, hosts, nth):
    target = make_dsn(dsn, host=",".join([parse_dsn(dsn)["host"]] * hosts))
    greenpg.connect(target, backend="threads").close()

    while True:
        left, place = open_at_the_error(
            lambda: greenpg.connect(target, backend="threads").close(), Strike(nth)
        )
        if not place:
            break
        assert left == 0, place
        assert current_request() == Request(), place
        nth += STEP
    assert nth > STEP
