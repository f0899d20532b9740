"""RecursionError and MemoryError in an operation or in its repair: never half a repair."""

from __future__ import annotations

import gc
import sys
from contextlib import nullcontext, suppress

import psycopg2
import pytest

import greenpg
from greenpg._session import lock as _lock
from greenpg.backend import current
from tests.db.session.test_ctrl_c_anywhere import answer
from tests.db.strikes import PACKAGES, Strike, struck

STEP = 12  # one test uses every twelfth place: all places take long
DEPTHS = 90  # calls below the operation's own


def executemany(conn):
    conn.cursor().executemany("insert into t values (%s)", [(n,) for n in range(9)])


def pipeline(conn):
    with conn.pipeline() as pipe:
        results = [pipe.execute("select %s", (n,)) for n in range(3)]
        assert [result.fetchone() for result in results] == [(0,), (1,), (2,)]


def interrupted_pipeline(conn):
    with suppress(greenpg.DeadlineExceeded), conn.pipeline() as pipe:
        pipe.execute("select pg_sleep(1)")  # goes on if its cancel breaks
        pipe.execute("select 1").fetchone()


def interrupted_executemany(conn):
    query = "insert into t select 1 from (select pg_sleep(%s)) s"
    with suppress(greenpg.DeadlineExceeded):
        conn.cursor().executemany(query, [(0,), (1,), (0,), (0,), (0,), (0,)])


class Break(Strike):
    """Spares the backends: what they keep in the hub is their own matter."""

    def enter(self, frame, event, arg):
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGES[0]) or code.co_name == "wait_once":
            return None
        return super().enter(frame, event, arg)


OPERATIONS = [executemany, pipeline, interrupted_executemany, interrupted_pipeline]


def limit(operation, conn):
    """Return the deadline that interrupts an operation."""
    return conn.deadline(0.01) if operation in OPERATIONS[2:] else nullcontext()


@pytest.fixture
def prepared(connect, monkeypatch):
    """Make a connection for each attempt; a lock that was left is free after a moment."""
    monkeypatch.setattr(_lock, "_LOOK", 0.02)

    def prepare():
        conn = connect()
        conn._greenpg_state.cancel_timeout = 1
        conn.cursor().execute("create temp table t (n int)")
        return conn

    return prepare


def use(conn, spawn):
    """Use the connection as another task, and as this one."""
    found = []
    for _ in range(2):  # the first operation may find out that a repair has failed
        with suppress(psycopg2.Error):
            found = [spawn(answer, conn).result(), answer(conn)]
    return found


@pytest.mark.parametrize("nth", range(STEP))
@pytest.mark.parametrize("operation", OPERATIONS)
def test_connection_is_right_or_closed_wherever_it_is_raised(
    prepared, spawn, monkeypatch, operation, nth
):
    monkeypatch.setattr(Break, "error", (RecursionError, MemoryError)[nth % 2])

    while True:
        conn, strike = prepared(), Break(nth, sparing="__exit__")  # where it prevents the end
        with suppress(psycopg2.Error), limit(operation, conn):
            struck(operation, conn, strike)
        if not strike.place:
            break
        assert use(conn, spawn) == [42, 42], strike.place
        conn.close()
        nth += STEP
    assert nth > STEP


def lowest_limit():
    """Return the lowest recursion limit that is allowed in this task."""
    usual = sys.getrecursionlimit()
    for lowest in range(1, usual):
        with suppress(RecursionError):
            sys.setrecursionlimit(lowest)
            sys.setrecursionlimit(usual)
            return lowest
    raise AssertionError("the stack is full")


def at_depth(operation, conn, depth):
    """Run the operation under a recursion limit; return True if that sufficed."""
    usual = sys.getrecursionlimit()
    with limit(operation, conn):
        gc.disable()  # finalizers of other tests' garbage need a stack too
        sys.setrecursionlimit(depth)
        try:
            operation(conn)
        except Exception:  # ctypes replaces a RecursionError by one of its own
            return False
        finally:
            sys.setrecursionlimit(usual)
            gc.enable()
    return True


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # from __del__
@pytest.mark.skipif("hub" in current().capabilities, reason="the hub itself needs a stack")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_connection_is_right_or_closed_with_any_depth_left(prepared, spawn, operation):
    lowest, ends = lowest_limit(), set()

    for spare in range(2, DEPTHS):
        conn = prepared()
        ends.add(at_depth(operation, conn, lowest + spare))

        assert use(conn, spawn) == [42, 42], spare
        conn.close()

    assert ends == {True, False}
