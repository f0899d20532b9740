"""Transactions, and the with block of a connection."""

from __future__ import annotations

from contextlib import suppress

import psycopg2.extensions as ext
import pytest


@pytest.fixture
def table(create):
    return create("(n int)")


def insert(conn, table, number=1):
    conn.cursor().execute(f"insert into {table} values (%s)", (number,))


def stored(connect, table):
    conn = connect()
    cur = conn.cursor()
    cur.execute(f"select n from {table} order by n")
    return [row[0] for row in cur.fetchall()]


def test_first_statement_begins_a_transaction(conn, table):
    before = conn.status, conn.info.transaction_status

    insert(conn, table)

    assert before == (ext.STATUS_READY, ext.TRANSACTION_STATUS_IDLE)
    assert conn.status == ext.STATUS_BEGIN
    assert conn.info.transaction_status == ext.TRANSACTION_STATUS_INTRANS


def test_commit_stores_and_rollback_forgets(conn, connect, table):
    insert(conn, table, 1)
    conn.commit()
    insert(conn, table, 2)
    conn.rollback()

    assert stored(connect, table) == [1]
    assert conn.status == ext.STATUS_READY


def test_commit_and_rollback_of_nothing_do_nothing(conn):
    conn.commit()
    conn.rollback()

    assert conn.info.transaction_status == ext.TRANSACTION_STATUS_IDLE


def test_failed_transaction_refuses_statements_until_rolled_back(db, conn):
    cur = conn.cursor()
    with pytest.raises(db.errors.DivisionByZero):
        cur.execute("select 1/0")

    with pytest.raises(db.errors.InFailedSqlTransaction):
        cur.execute("select 1")
    conn.rollback()
    cur.execute("select 1")

    assert cur.fetchone() == (1,)


def test_with_block_commits(conn, connect, table):
    with conn:
        insert(conn, table)

    assert stored(connect, table) == [1]
    assert not conn.closed


def test_with_block_rolls_back_what_an_error_ends(conn, connect, table):
    with suppress(LookupError), conn:
        insert(conn, table)
        raise LookupError

    assert stored(connect, table) == []
    assert conn.status == ext.STATUS_READY


def test_with_block_returns_the_connection_and_serves_again(conn, connect, table):
    with conn as first:
        insert(first, table, 1)
    with conn as second:
        insert(second, table, 2)

    assert first is second is conn
    assert stored(connect, table) == [1, 2]


def test_with_block_under_autocommit_is_a_transaction(auto, connect, table):
    with suppress(LookupError), auto:
        insert(auto, table)
        inside = auto.info.transaction_status
        raise LookupError

    assert inside == ext.TRANSACTION_STATUS_INTRANS
    assert stored(connect, table) == []
    assert auto.autocommit


def test_with_block_is_not_re_entered(db, conn):
    with conn, pytest.raises(db.ProgrammingError, match="re-entered"), conn:
        pass

    with conn:
        conn.cursor().execute("select 1")


def test_with_block_calls_the_users_own_commit(db, connect):
    calls = []

    # mypy: the base class is that of the module under test
    class Counted(db.extensions.connection):  # type: ignore[misc, name-defined]
        def commit(self):
            calls.append("commit")
            super().commit()

        def rollback(self):
            calls.append("rollback")
            super().rollback()

    conn = connect(connection_factory=Counted)
    with conn:
        conn.cursor().execute("select 1")
    with pytest.raises(LookupError), conn:
        raise LookupError

    assert calls == ["commit", "rollback"]


def test_statement_of_the_users_own_controls_the_transaction(conn, connect, table):
    cur = conn.cursor()
    insert(conn, table, 1)
    cur.execute("savepoint here")
    insert(conn, table, 2)

    cur.execute("rollback to savepoint here")
    conn.commit()

    assert stored(connect, table) == [1]


def test_serialization_failure_is_a_rollback_error(db, connect, table):
    one, two = connect(), connect()
    insert(one, table, 1)
    one.commit()
    for conn in (one, two):
        conn.isolation_level = ext.ISOLATION_LEVEL_SERIALIZABLE
        conn.cursor().execute(f"select * from {table}")

    one.cursor().execute(f"update {table} set n = 2")
    one.commit()
    with pytest.raises(db.extensions.TransactionRollbackError) as caught:
        two.cursor().execute(f"update {table} set n = 3")

    assert isinstance(caught.value, db.errors.SerializationFailure)


def test_tasks_that_share_a_connection_share_its_transaction(conn, connect, spawn, table):
    jobs = [spawn(insert, conn, table, number) for number in range(5)]
    for job in jobs:
        job.result()
    before = stored(connect, table)

    spawn(conn.commit).result()

    assert before == []
    assert stored(connect, table) == [0, 1, 2, 3, 4]


def test_failed_transaction_that_psycopg2_takes_to_have_ended_is_rolled_back(db, conn):
    """As after a COMMIT that was cancelled before the server had begun with it."""
    conn.autocommit = True
    cur = conn.cursor()
    cur.execute("begin")
    with pytest.raises(db.errors.DivisionByZero):
        cur.execute("select 1/0")
    conn.autocommit = False
    before = conn.status, conn.info.transaction_status

    with pytest.raises(db.errors.InFailedSqlTransaction):
        conn.set_client_encoding("LATIN1")

    assert before == (ext.STATUS_READY, ext.TRANSACTION_STATUS_INERROR)
    cur.execute("select 42")
    assert cur.fetchone() == (42,)
