"""Two-phase transactions."""

from __future__ import annotations

import psycopg2.extensions
import pytest

import greenpg

BEGIN = psycopg2.extensions.STATUS_BEGIN
PREPARED = psycopg2.extensions.STATUS_PREPARED
READY = psycopg2.extensions.STATUS_READY


@pytest.fixture(autouse=True)
def clean(dsn):
    """Roll back prepared transactions, which would outlive every connection."""
    yield
    conn = greenpg.connect(dsn)
    for xid in conn.tpc_recover():
        if xid.gtrid and xid.gtrid.startswith("greenpg-test"):
            conn.tpc_rollback(xid)
    conn.close()


@pytest.fixture
def table(create):
    return create("(n int)")


@pytest.fixture
def prepared(conn, table):
    """A connection whose transaction is prepared, and its id."""
    xid = conn.xid(42, f"greenpg-test-{table}", "branch")
    conn.tpc_begin(xid)
    conn.cursor().execute(f"insert into {table} values (1)")
    conn.tpc_prepare()
    return conn, xid


def count(conn, table):
    cur = conn.cursor()
    cur.execute(f"select count(*) from {table}")
    (found,) = cur.fetchone()
    conn.rollback()
    return found


def ours(xids, table):
    return [xid for xid in xids if xid.gtrid == f"greenpg-test-{table}"]


def test_prepared_transaction_is_committed(prepared, connect, table):
    conn, _ = prepared
    before, status = count(connect(), table), conn.status

    conn.tpc_commit()

    assert (before, status) == (0, PREPARED)
    assert count(connect(), table) == 1
    assert conn.status == READY


def test_prepared_transaction_is_rolled_back(prepared, connect, table):
    conn, _ = prepared

    conn.tpc_rollback()

    assert count(connect(), table) == 0
    assert not ours(conn.tpc_recover(), table)


@pytest.mark.parametrize(("end", "stored"), [("tpc_commit", 1), ("tpc_rollback", 0)])
def test_transaction_ends_in_one_phase_without_a_prepare(conn, connect, table, end, stored):
    conn.tpc_begin(conn.xid(1, "greenpg-test-one", ""))
    conn.cursor().execute(f"insert into {table} values (1)")

    getattr(conn, end)()

    assert count(connect(), table) == stored
    assert conn.status == READY


@pytest.mark.parametrize(("end", "stored"), [("tpc_commit", 1), ("tpc_rollback", 0)])
def test_another_connection_recovers_and_ends_it(prepared, connect, table, end, stored):
    conn, xid = prepared
    conn.close()
    other = connect()

    (found,) = ours(other.tpc_recover(), table)
    getattr(other, end)(found)

    assert (found.format_id, found.gtrid, found.bqual) == (42, xid.gtrid, "branch")
    assert found.owner == other.info.user
    assert found.database == other.info.dbname
    assert count(other, table) == stored


def test_recover_leaves_an_idle_connection_idle(conn):
    conn.tpc_recover()

    assert conn.status == READY
    assert conn.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_IDLE


def test_recover_leaves_an_open_transaction_open(conn):
    cur = conn.cursor()
    cur.execute("create temp table kept (n int)")

    conn.tpc_recover()

    assert conn.status == BEGIN
    cur.execute("select * from kept")


def test_recover_works_under_autocommit(auto):
    auto.tpc_recover()

    assert auto.status == READY
    assert auto.autocommit


def test_recover_works_first_in_a_with_block_under_autocommit(auto):
    auto.cursor().execute("create temp table kept (n int)")

    with auto:
        found = auto.tpc_recover()
        idle = auto.status
        auto.cursor().execute("insert into kept values (1)")

    assert isinstance(found, list)
    assert (idle, auto.status) == (READY, READY)
    cur = auto.cursor()
    cur.execute("select n from kept")
    assert cur.fetchall() == [(1,)]


def test_id_that_is_no_xid_is_a_plain_text(conn, connect, table):
    conn.tpc_begin(f"greenpg-test-{table}")
    conn.cursor().execute(f"insert into {table} values (1)")
    conn.tpc_prepare()

    (found,) = ours(connect().tpc_recover(), table)
    conn.tpc_commit()

    assert (found.format_id, found.bqual) == (None, None)


def test_plain_commit_and_rollback_are_refused_meanwhile(db, prepared):
    conn, _ = prepared

    for operation in (conn.commit, conn.rollback):
        with pytest.raises(db.ProgrammingError):
            operation()

    conn.tpc_rollback()


def test_execute_is_refused_once_prepared(db, prepared):
    conn, _ = prepared

    with pytest.raises(db.ProgrammingError, match="prepared two-phase transaction"):
        conn.cursor().execute("select 1")

    conn.tpc_rollback()


def test_begin_inside_a_transaction_is_refused(db, conn):
    conn.cursor().execute("select 1")

    with pytest.raises(db.ProgrammingError, match="tpc_begin cannot be used inside a transaction"):
        conn.tpc_begin(conn.xid(1, "greenpg-test", ""))


def test_begin_under_autocommit_is_refused(db, auto):
    with pytest.raises(db.ProgrammingError, match="autocommit"):
        auto.tpc_begin(auto.xid(1, "greenpg-test", ""))


def test_ending_an_unknown_transaction_is_the_servers_error(db, conn):
    with pytest.raises(db.ProgrammingError, match="does not exist"):
        conn.tpc_commit(conn.xid(1, "greenpg-test-unknown", ""))

    assert conn.status == READY


def test_ending_one_while_another_is_open_is_refused(db, conn):
    conn.tpc_begin(conn.xid(1, "greenpg-test-open", ""))

    with pytest.raises(db.ProgrammingError):
        conn.tpc_commit(conn.xid(2, "greenpg-test-other", ""))

    conn.tpc_rollback()


def test_other_tasks_take_turns_with_it(prepared, spawn, table):
    conn, _ = prepared

    job = spawn(conn.tpc_commit)
    job.result()
    asked = spawn(count, conn, table)

    assert asked.result() == 1
