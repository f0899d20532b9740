"""The statements that an interrupted transaction still allows."""

from __future__ import annotations

from contextlib import suppress

import psycopg2.extensions as ext
import pytest

import greenpg
from greenpg.backend import current
from tests.db.session.asking import one, stored

DeadlineExceeded = greenpg.DeadlineExceeded


@pytest.fixture
def table(create):
    return create("(n int)")


@pytest.fixture
def doomed(conn, table, gate):
    """A connection that wrote a row, set a savepoint, wrote another and was interrupted."""
    cur = conn.cursor()
    cur.execute(f"insert into {table} values (1)")
    cur.execute("savepoint here")
    cur.execute(f"insert into {table} values (2)")
    with suppress(DeadlineExceeded), conn.deadline(0.05):
        cur.execute(gate.sql)
    return conn


@pytest.mark.parametrize(
    "operation",
    [
        lambda conn: conn.commit(),
        lambda conn: conn.cursor().execute("select 1"),
        lambda conn: conn.cursor().execute(b"commit"),
        lambda conn: conn.cursor().execute("select 'rollback'"),
        lambda conn: conn.cursor().executemany("select %s", [(1,)]),
        lambda conn: conn.cursor().callproc("now"),
        lambda conn: conn.cursor("named").execute("select 1"),
        lambda conn: conn.tpc_prepare(),
        lambda conn: conn.tpc_recover(),
    ],
)
def test_nothing_but_a_rollback_is_accepted(db, doomed, connect, table, operation):
    with pytest.raises(db.errors.InFailedSqlTransaction, match="interrupted; roll back"):
        operation(doomed)

    doomed.rollback()
    assert one(doomed) == 1
    assert stored(connect, table) == []


@pytest.mark.parametrize(
    "statement",
    ["rollback", "ROLLBACK;", b"rollback", " /* why */ abort", "-- why\nrollback work"],
)
def test_rollback_by_statement_ends_it(doomed, connect, table, statement):
    doomed.cursor().execute(statement)

    assert one(doomed) == 1
    doomed.commit()
    assert stored(connect, table) == []


def test_composed_rollback_ends_it(db, doomed):
    doomed.cursor().execute(db.sql.SQL("rollback"))

    assert one(doomed) == 1


@pytest.mark.parametrize("statement", ["rollback to here", "ROLLBACK TO SAVEPOINT here"])
def test_rollback_to_a_savepoint_saves_what_was_before(doomed, connect, table, statement):
    doomed.cursor().execute(statement)

    doomed.cursor().execute(f"insert into {table} values (3)")
    doomed.commit()

    assert stored(connect, table) == [1, 3]


def test_rollback_to_an_unknown_savepoint_changes_nothing(db, doomed):
    with pytest.raises(db.errors.InvalidSavepointSpecification):
        doomed.cursor().execute("rollback to nowhere")

    with pytest.raises(db.errors.InFailedSqlTransaction):
        doomed.commit()
    doomed.rollback()


def test_reset_ends_it(doomed, connect, table):
    doomed.reset()

    assert one(doomed) == 1
    assert stored(connect, table) == []


def test_close_ends_it(doomed, connect, table):
    doomed.close()

    assert stored(connect, table) == []


def test_end_of_a_with_block_refuses_to_commit_in_silence(db, conn, connect, table, gate):
    def work():
        with conn:
            conn.cursor().execute(f"insert into {table} values (1)")
            with suppress(DeadlineExceeded), conn.deadline(0.05):
                conn.cursor().execute(gate.sql)

    with pytest.raises(db.errors.InFailedSqlTransaction):
        work()

    conn.rollback()
    assert stored(connect, table) == []
    with conn:
        conn.cursor().execute(f"insert into {table} values (2)")
    assert stored(connect, table) == [2]


def test_other_tasks_are_refused_too(db, doomed, spawn):
    with pytest.raises(db.errors.InFailedSqlTransaction):
        spawn(one, doomed).result()
    with pytest.raises(db.errors.InFailedSqlTransaction):
        spawn(doomed.commit).result()

    spawn(doomed.rollback).result()
    assert one(doomed) == 1


def test_interrupt_that_comes_before_a_statement_dooms_nothing(conn, connect, table):
    conn.cursor().execute(f"insert into {table} values (1)")

    with conn.deadline(0), pytest.raises(DeadlineExceeded):
        one(conn)
    conn.commit()

    assert stored(connect, table) == [1]


def test_interrupt_while_waiting_for_the_connection_dooms_nothing(conn, connect, table, spawn):
    conn.cursor().execute(f"insert into {table} values (1)")
    held, go = current().event(), current().event()

    def hold():
        with conn.exclusive():
            held.set()
            go.wait(5)

    job = spawn(hold)
    held.wait(5)
    with pytest.raises(DeadlineExceeded), conn.deadline(0.02):
        one(conn)
    go.set()
    job.result()
    conn.commit()

    assert stored(connect, table) == [1]


def test_first_statement_of_a_transaction_may_be_interrupted(conn, gate):
    with suppress(DeadlineExceeded), conn.deadline(0.05):
        conn.cursor().execute(gate.sql)

    conn.rollback()

    assert conn.status == ext.STATUS_READY
    assert one(conn) == 1


def test_autocommit_goes_on_at_once(auto, gate):
    with suppress(DeadlineExceeded), auto.deadline(0.05):
        auto.cursor().execute(gate.sql)

    assert one(auto) == 1
    auto.commit()


def test_transaction_of_the_users_own_under_autocommit_is_doomed(db, auto, gate):
    auto.cursor().execute("begin")
    with suppress(DeadlineExceeded), auto.deadline(0.05):
        auto.cursor().execute(gate.sql)

    with pytest.raises(db.errors.InFailedSqlTransaction):
        one(auto)
    auto.cursor().execute("rollback")

    assert one(auto) == 1


@pytest.mark.green
def test_kill_dooms_as_a_deadline_does(db, conn, connect, table, gate, spawn):
    conn.cursor().execute(f"insert into {table} values (1)")
    job = spawn(conn.cursor().execute, gate.sql)
    gate.wait_for()

    job.kill()
    with pytest.raises(current().exits):
        job.result()

    gate.wait_for(0)
    with pytest.raises(db.errors.InFailedSqlTransaction):
        conn.commit()
    conn.rollback()
    assert one(conn) == 1
    assert stored(connect, table) == []


@pytest.mark.green
def test_killed_task_in_a_with_block_rolls_back(conn, connect, table, gate, spawn):
    def work():
        with conn:
            conn.cursor().execute(f"insert into {table} values (1)")
            conn.cursor().execute(gate.sql)

    job = spawn(work)
    gate.wait_for()
    job.kill()
    job.join()

    assert conn.info.transaction_status == ext.TRANSACTION_STATUS_IDLE
    assert one(conn) == 1
    assert stored(connect, table) == []


def test_named_cursor_whose_begin_was_interrupted_is_closed_quietly(connect, proxy):
    conn = connect(proxy.dsn)
    cur = conn.cursor("never_made")
    proxy.delay(0.3)
    with pytest.raises(DeadlineExceeded), conn.deadline(0.05):
        cur.execute("select 1")

    cur.close()

    assert cur.closed
    conn.rollback()
    assert one(conn) == 1
