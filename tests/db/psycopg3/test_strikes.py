"""What a signal handler raises, wherever it may land in psycopg's and greenpg's code."""

from __future__ import annotations

import os
import sys

import psycopg
import pytest
from psycopg.pq import PipelineStatus

import greenpg.psycopg3
from greenpg._session import lock as _lock
from greenpg.backend import current
from tests.db.strikes import PACKAGES, Alarm, CtrlC, Strike, struck

STEP = 12  # one test uses every twelfth place: all places take long
SKIPPED = 12  # of these in green threads, where signals land in the hub as a rule


class StrikeInPsycopg(Strike):
    packages = (PACKAGES[0], os.path.dirname(psycopg.__file__) + "/")  # not the backends


def execute(conn):
    conn.execute("select pg_sleep(0.01)")


def cancel(conn):
    conn.cancel()


def transaction(conn):
    with conn.transaction():
        conn.execute("insert into t values (1)")


def pipeline(conn):
    with conn.pipeline():
        for number in range(3):
            conn.execute("insert into t values (%s)", (number,))


def executemany(conn):
    conn.cursor().executemany("insert into t values (%s)", [(n,) for n in range(5)])


def copy_in(conn):
    with conn.cursor().copy("copy t from stdin") as copy:
        copy.write_row((1,))
        copy.write_row((2,))


def copy_out(conn):
    with conn.cursor().copy("copy (values (1), (2)) to stdout") as copy:
        assert len(list(copy.rows())) == 2


def answer(conn):
    """Use the connection as another task, if it is open."""
    if conn.closed:
        return 42
    assert conn.pgconn.pipeline_status == PipelineStatus.OFF
    conn.rollback()
    found = conn.execute("select 42").fetchone()[0]
    conn.rollback()
    return found


OPERATIONS = [execute, cancel, transaction, pipeline, executemany, copy_in, copy_out]


@pytest.mark.parametrize("nth", range(STEP))
@pytest.mark.parametrize("error", [CtrlC, Alarm])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_a_signal_handler_raises_comes_out(connect, spawn, monkeypatch, operation, error, nth):
    monkeypatch.setattr(_lock, "_LOOK", 0.02)
    monkeypatch.setattr(StrikeInPsycopg, "error", error)
    first, step = nth, STEP * (SKIPPED if "hub" in current().capabilities else 1)
    while True:
        conn = connect(autocommit=True)
        conn.execute("create temp table t (id int)")
        strike = StrikeInPsycopg(nth, sparing="__exit__")  # which would prevent the end
        came_out = struck(operation, conn, strike)
        if not strike.place:
            break
        assert came_out, strike.place
        assert spawn(answer, conn).result() == 42, strike.place
        assert answer(conn) == 42, strike.place
        conn.close()
        nth += step
    assert nth > first, "none was struck"


def descriptors_at_the_error(dsn, strike):
    """Connect under fire; return how many descriptors are open while the error is held."""
    sys._getframe().f_trace_opcodes = True  # Python 3.12 requires one before it traces any
    sys.settrace(strike.enter)
    try:
        conn = greenpg.psycopg3.connect(dsn, backend="threads")
        sys.settrace(None)
        conn.close()
    except CtrlC:
        sys.settrace(None)
        return len(os.listdir("/dev/fd"))
    finally:
        sys.settrace(None)
        strike.forget()
    return len(os.listdir("/dev/fd"))


@pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning")
@pytest.mark.parametrize("nth", range(STEP))
def test_a_connect_leaves_no_socket(dsn, nth):
    before = descriptors_at_the_error(dsn, StrikeInPsycopg(sys.maxsize))
    first = nth
    while True:
        strike = StrikeInPsycopg(nth)
        left = descriptors_at_the_error(dsn, strike)
        if not strike.place:
            break
        assert left == before, strike.place
        nth += STEP
    assert nth > first, "none was struck"
