"""`conn.cancel()`."""

from __future__ import annotations

import pytest

from greenpg.backend import current
from greenpg_conformance.toolkit.heartbeat import heartbeat


def one(conn, query="select 1"):
    cur = conn.cursor()
    cur.execute(query)
    return cur.fetchone()[0]


def test_cancel_stops_what_another_task_runs(db, conn, gate, spawn):
    job = spawn(one, conn, gate.sql)
    gate.wait_for()

    with heartbeat(current()):
        conn.cancel()

    with pytest.raises(db.errors.QueryCanceled):
        job.result()
    gate.wait_for(0)
    conn.rollback()
    assert one(conn) == 1


def test_cancelled_statement_fails_its_transaction_as_in_psycopg2(db, conn, gate, spawn):
    job = spawn(one, conn, gate.sql)
    gate.wait_for()
    conn.cancel()
    job.join()

    with pytest.raises(db.errors.InFailedSqlTransaction):
        one(conn)

    conn.rollback()


def test_cancel_of_an_idle_connection_stops_nothing(auto):
    for number in range(30):
        auto.cancel()
        assert one(auto, f"select {number} from pg_sleep(0.001)") == number


def test_cancel_leaves_the_waiting_tasks_alone(db, auto, gate, spawn):
    running = spawn(one, auto, gate.sql)
    gate.wait_for()
    queued = [spawn(one, auto, f"select {number}") for number in range(3)]

    auto.cancel()

    with pytest.raises(db.errors.QueryCanceled):
        running.result()
    assert [job.result() for job in queued] == [0, 1, 2]


def test_cancel_of_a_closed_connection_is_an_interface_error(db, connect):
    conn = connect()
    conn.close()

    with pytest.raises(db.InterfaceError, match="already closed"):
        conn.cancel()


def test_cancel_of_a_prepared_transaction_is_refused(db, conn):
    conn.tpc_begin("greenpg-test-cancel")
    conn.tpc_prepare()

    with pytest.raises(db.ProgrammingError, match="prepared two-phase"):
        conn.cancel()

    conn.tpc_rollback()
