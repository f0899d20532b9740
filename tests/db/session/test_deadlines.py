"""Deadlines of a task on a connection."""

from __future__ import annotations

import itertools
import time
from math import inf

import psycopg2.extensions as ext
import pytest

import greenpg
from greenpg.backend import current
from greenpg_conformance.toolkit.machine import Stopwatch

DeadlineExceeded = greenpg.DeadlineExceeded


def one(conn, query="select 1"):
    cur = conn.cursor()
    cur.execute(query)
    return cur.fetchone()[0]


def test_query_past_the_deadline_is_stopped_on_the_server(auto, gate):
    began, watch = time.monotonic(), Stopwatch()

    with pytest.raises(DeadlineExceeded, match="deadline"), auto.deadline(0.05):
        one(auto, gate.sql)

    assert time.monotonic() - began >= 0.05
    assert watch.seconds() < 1
    gate.wait_for(0)
    assert one(auto) == 1


def test_deadline_error_is_a_cancelled_query(db, auto, gate):
    with pytest.raises(db.errors.QueryCanceled), auto.deadline(0.05):
        one(auto, gate.sql)

    assert issubclass(DeadlineExceeded, db.OperationalError)
    assert greenpg.errors.DeadlineExceeded is DeadlineExceeded


def test_queries_within_the_deadline_are_not_touched(conn):
    with conn.deadline(10):
        found = [one(conn) for _ in range(20)]

    assert found == [1] * 20
    assert one(conn, "select 1 from pg_sleep(0.01)") == 1


def test_deadline_bounds_the_operations_together(auto):
    done = []

    def work():
        while True:
            done.append(one(auto, "select 1 from pg_sleep(0.03)"))

    with pytest.raises(DeadlineExceeded), auto.deadline(0.2):
        work()

    assert 1 <= len(done) <= 6


def test_operation_after_the_deadline_is_not_sent(auto):
    with auto.deadline(0), pytest.raises(DeadlineExceeded, match="before the operation began"):
        one(auto, "create temp table made (n int); select 1")

    assert one(auto, "select to_regclass('made')") is None


def test_nearer_outer_deadline_counts(auto, gate):
    with pytest.raises(DeadlineExceeded), auto.deadline(0.05), auto.deadline(30):
        one(auto, gate.sql)

    assert one(auto) == 1


def test_nearer_inner_deadline_counts_and_ends_with_its_block(auto, gate):
    with auto.deadline(30):
        with pytest.raises(DeadlineExceeded), auto.deadline(0.05):
            one(auto, gate.sql)
        found = one(auto, "select 1 from pg_sleep(0.1)")

    assert found == 1


def test_outer_deadline_counts_again_after_the_inner_block(auto, gate):
    with auto.deadline(0.1):
        with auto.deadline(0.05):
            one(auto)
        with pytest.raises(DeadlineExceeded):
            one(auto, gate.sql)

    assert one(auto) == 1


def test_deadline_counts_while_waiting_for_the_connection(auto, gate, spawn):
    job = spawn(one, auto, gate.sql)
    gate.wait_for()

    with pytest.raises(DeadlineExceeded, match="waiting for the connection"), auto.deadline(0.05):
        one(auto)
    gate.wait_for()
    gate.open()
    job.result()

    assert one(auto) == 1


@pytest.mark.parametrize("lock", [greenpg.ConnectionLock, lambda conn: conn.exclusive()])
def test_deadline_counts_while_waiting_for_a_block(auto, gate, spawn, lock):
    job = spawn(one, auto, gate.sql)
    gate.wait_for()

    with pytest.raises(DeadlineExceeded), auto.deadline(0.05), lock(auto):
        pass
    gate.open()

    job.result()


def test_deadline_is_the_tasks_own(auto, gate, spawn):
    with auto.deadline(0.05):
        job = spawn(one, auto, gate.sql)
        gate.wait_for()
        current().sleep(0.06)
        gate.open()
        found = job.result()

    assert found == ""


def test_rollback_after_expiry_works_inside_the_block(conn, gate):
    with conn.deadline(0.05):
        with pytest.raises(DeadlineExceeded):
            one(conn, gate.sql)
        conn.rollback()
        status = conn.info.transaction_status

    assert status == ext.TRANSACTION_STATUS_IDLE
    assert one(conn) == 1


def test_reset_after_expiry_works_inside_the_block(conn, gate):
    with conn.deadline(0.05):
        with pytest.raises(DeadlineExceeded):
            one(conn, gate.sql)
        conn.reset()

    assert one(conn) == 1


def test_close_after_expiry_works_inside_the_block(connect, gate):
    conn = connect()

    with conn.deadline(0.05):
        with pytest.raises(DeadlineExceeded):
            one(conn, gate.sql)
        conn.close()

    assert conn.closed


def test_commit_after_expiry_is_refused_and_rollback_remains(conn):
    one(conn)

    with conn.deadline(0), pytest.raises(DeadlineExceeded):
        conn.commit()

    assert conn.info.transaction_status == ext.TRANSACTION_STATUS_INTRANS
    conn.rollback()


def test_with_block_that_expires_is_rolled_back(conn, connect, create, gate):
    table = create("(n int)")

    def work():
        with conn.deadline(0.1), conn:
            conn.cursor().execute(f"insert into {table} values (1)")
            one(conn, gate.sql)

    with pytest.raises(DeadlineExceeded):
        work()

    assert conn.info.transaction_status == ext.TRANSACTION_STATUS_IDLE
    assert one(connect(), f"select count(*) from {table}") == 0


@pytest.mark.parametrize(
    "operation",
    [
        lambda conn, gate: conn.cursor().callproc(gate.function, [gate.key]),
        lambda conn, gate: conn.cursor().executemany(f"select {gate.function}(%s)", [(gate.key,)]),
        lambda conn, gate: conn.cursor("named", withhold=True).execute(gate.sql),
    ],
)
def test_every_kind_of_statement_is_stopped(auto, gate, operation):
    with pytest.raises(DeadlineExceeded), auto.deadline(0.05):
        operation(auto, gate)

    gate.wait_for(0)
    assert one(auto) == 1


def test_fetch_of_a_named_cursor_is_stopped(conn, gate):
    cur = conn.cursor("slow")
    cur.execute(gate.sql)

    with pytest.raises(DeadlineExceeded), conn.deadline(0.05):
        cur.fetchone()

    conn.rollback()
    assert one(conn) == 1


ROWS = 100_000
FETCHES = {
    "fetchall": lambda cur: cur.fetchall(),
    "fetchmany": lambda cur: cur.fetchmany(ROWS),
}


@pytest.fixture
def late_in_a_fetch(monkeypatch):
    """A fetch pauses after each slice of rows, and the deadline passes in the third pause."""
    monkeypatch.setattr("greenpg._session.time_slice.SECONDS", 0)

    def patched(conn):
        pauses, pause = itertools.count(1), conn._greenpg_state.backend.pause

        def late():
            if next(pauses) == 3:
                monkeypatch.setattr("greenpg._session.session.monotonic", lambda: inf)
            pause()

        monkeypatch.setattr(conn._greenpg_state.backend, "pause", late)

    return patched


@pytest.mark.parametrize("fetch", FETCHES)
@pytest.mark.parametrize("name", [None, "named"])
def test_fetch_of_a_large_result_ends_between_two_slices(conn, late_in_a_fetch, name, fetch):
    cur = conn.cursor(name)
    cur.execute("select generate_series(1, %s)", (ROWS,))
    late_in_a_fetch(conn)

    with pytest.raises(DeadlineExceeded), conn.deadline(60):
        FETCHES[fetch](cur)

    assert 0 < cur.rownumber < ROWS
    with pytest.raises(greenpg.errors.InFailedSqlTransaction):
        one(conn)
    conn.rollback()
    assert one(conn) == 1


def test_deadline_of_another_task_does_not_end_a_fetch(auto, late_in_a_fetch, spawn):
    cur = auto.cursor()
    cur.execute("select generate_series(1, %s)", (ROWS,))
    late_in_a_fetch(auto)

    with auto.deadline(60):
        rows = spawn(cur.fetchall).result()

    assert len(rows) == ROWS


def test_deadline_leaves_nothing_behind(auto):
    with auto.deadline(0.05):
        pass
    with pytest.raises(LookupError), auto.deadline(10), auto.deadline(5):
        raise LookupError

    assert one(auto, "select 1 from pg_sleep(0.1)") == 1
    assert auto._greenpg_state.deadlines == {}
    assert one(auto) == 1
    assert not auto._greenpg_state.entry_needs_check


def test_object_of_a_deadline_serves_again(auto, gate):
    deadline = auto.deadline(0.05)

    for _ in range(2):
        with pytest.raises(DeadlineExceeded), deadline:
            one(auto, gate.sql)

    assert one(auto) == 1
