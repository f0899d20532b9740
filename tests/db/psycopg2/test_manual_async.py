"""The manual's chapter on asynchronous connections, with a wait that is green."""

from __future__ import annotations

import select

import psycopg2
import pytest

import greenpg
from greenpg.backend import current
from greenpg_conformance.toolkit.heartbeat import heartbeat


@pytest.fixture
def aconn(connect):
    conn = connect(async_=1)
    greenpg.wait(conn)
    return conn


def select_wait(conn):
    """The manual's loop; without a monkey-patch it blocks all tasks."""
    ext = psycopg2.extensions
    while (state := conn.poll()) != ext.POLL_OK:
        reading, writing = state == ext.POLL_READ, state == ext.POLL_WRITE
        select.select([conn.fileno()] * reading, [conn.fileno()] * writing, [], 5)


def test_connecting_ends_with_the_wait(connect):
    conn = connect(async_=1)

    greenpg.wait(conn)

    assert conn.async_ == 1
    assert conn.status == psycopg2.extensions.STATUS_READY
    assert conn.closed == 0


def test_async_may_be_asked_for_by_its_old_name(connect):
    conn = connect(**{"async": True})

    greenpg.wait(conn)

    assert conn.async_


def test_query_runs_until_the_wait_ends(aconn):
    cur = aconn.cursor()

    cur.execute("select pg_sleep(0.05); select %s", (42,))
    executing = aconn.isexecuting()
    greenpg.wait(cur.connection)

    assert executing
    assert not aconn.isexecuting()
    assert cur.fetchone()[0] == 42


def test_wait_is_green(aconn, gate, spawn):
    cur = aconn.cursor()
    cur.execute(gate.sql)

    with heartbeat(current()):
        job = spawn(greenpg.wait, aconn)
        gate.wait_for()
        gate.open()
        job.result()

    assert cur.rowcount == 1


def test_manuals_own_loop_works(connect):
    conn = connect(async_=1)
    select_wait(conn)

    cur = conn.cursor()
    cur.execute("select 42")
    select_wait(conn)

    assert cur.fetchone() == (42,)


def test_extras_wait_select_works(db, aconn):
    cur = aconn.cursor()

    cur.execute("select 42")
    db.extras.wait_select(aconn)

    assert cur.fetchone() == (42,)


def test_poll_returns_what_to_wait_for(aconn, gate):
    cur = aconn.cursor()
    cur.execute(gate.sql)

    while (state := aconn.poll()) == psycopg2.extensions.POLL_WRITE:
        pass
    gate.open()
    greenpg.wait(aconn)

    assert state == psycopg2.extensions.POLL_READ
    assert aconn.poll() == psycopg2.extensions.POLL_OK
    assert aconn.fileno() == aconn.info.socket


def test_second_query_is_refused_while_one_runs(db, aconn, gate):
    cur = aconn.cursor()
    cur.execute(gate.sql)

    with pytest.raises(db.ProgrammingError, match="asynchronous query is underway"):
        aconn.cursor().execute("select 1")

    gate.open()
    greenpg.wait(aconn)
    assert cur.rowcount == 1


def test_callproc_runs_asynchronously(aconn):
    cur = aconn.cursor()

    cur.callproc("upper", ["green"])
    greenpg.wait(aconn)

    assert cur.fetchone() == ("GREEN",)


def test_big_result_and_big_query_pass(aconn):
    cur = aconn.cursor()

    cur.execute("select length(%s), repeat('y', 3000000)", ("x" * 3_000_000,))
    greenpg.wait(aconn)

    length, text = cur.fetchone()
    assert (length, len(text)) == (3_000_000, 3_000_000)


def test_error_of_the_query_propagates_from_the_wait(db, aconn):
    cur = aconn.cursor()
    cur.execute("select 1 / 0")

    with pytest.raises(db.errors.DivisionByZero):
        greenpg.wait(aconn)

    cur.execute("select 1")
    greenpg.wait(aconn)
    assert cur.fetchone() == (1,)


def test_error_of_the_connect_propagates_from_the_wait(db, connect, dsn):
    conn = connect(dsn, dbname="no_such_database", async_=1)

    with pytest.raises(db.OperationalError, match="no_such_database"):
        greenpg.wait(conn)


def test_transactions_are_made_by_hand(aconn):
    cur = aconn.cursor()

    for statement in ("begin", "create temp table made (x int)", "rollback"):
        cur.execute(statement)
        greenpg.wait(aconn)
    cur.execute("select to_regclass('made')")
    greenpg.wait(aconn)

    assert cur.fetchone() == (None,)
    assert aconn.autocommit


@pytest.mark.parametrize(
    "operation",
    [
        lambda conn: conn.commit(),
        lambda conn: conn.rollback(),
        lambda conn: conn.reset(),
        lambda conn: conn.set_session(readonly=True),
        lambda conn: conn.set_client_encoding("LATIN1"),
        lambda conn: conn.cursor("named"),
        lambda conn: conn.lobject(),
        lambda conn: conn.cursor().executemany("select %s", [(1,)]),
        lambda conn: conn.tpc_begin(conn.xid(1, "a", "b")),
        lambda conn: setattr(conn, "autocommit", False),
    ],
)
def test_what_asynchronous_connections_cannot_do_is_refused(db, aconn, operation):
    with pytest.raises((db.ProgrammingError, db.NotSupportedError), match="asynchronous"):
        operation(aconn)

    assert not aconn.closed


def test_wait_gives_up_after_its_timeout_and_can_be_resumed(aconn, gate):
    cur = aconn.cursor()
    cur.execute(gate.sql)

    with pytest.raises(TimeoutError):
        greenpg.wait(aconn, timeout=0.05)
    still = aconn.isexecuting()
    gate.open()
    greenpg.wait(aconn, timeout=5)

    assert still
    assert cur.rowcount == 1


def test_tasks_take_turns_on_an_asynchronous_connection(aconn, spawn):
    def ask(number):
        with aconn.exclusive():
            cur = aconn.cursor()
            cur.execute("select %s from pg_sleep(0.01)", (number,))
            greenpg.wait(aconn)
            return cur.fetchone()[0]

    jobs = [spawn(ask, number) for number in range(5)]

    assert [job.result() for job in jobs] == list(range(5))


def test_cancel_ends_an_asynchronous_query(db, aconn, gate, spawn):
    cur = aconn.cursor()
    cur.execute(gate.sql)
    job = spawn(greenpg.wait, aconn)
    gate.wait_for()

    aconn.cancel()

    with pytest.raises(db.errors.QueryCanceled):
        job.result()
    assert not cur.closed


def test_close_ends_the_wait_of_another_task(db, aconn, gate, spawn):
    cur = aconn.cursor()
    cur.execute(gate.sql)
    job = spawn(greenpg.wait, aconn)
    gate.wait_for()

    aconn.close()

    with pytest.raises(db.InterfaceError):
        job.result()
    assert cur.closed


def test_notifications_arrive_by_poll(aconn, auto):
    cur = aconn.cursor()
    cur.execute("listen greenpg_async")
    greenpg.wait(aconn)

    auto.cursor().execute("notify greenpg_async, 'hello'")
    while not aconn.notifies:
        assert select.select([aconn], [], [], 5)[0], "no notification in 5 s"
        aconn.poll()

    note = aconn.notifies.pop(0)
    assert (note.channel, note.payload) == ("greenpg_async", "hello")


def test_wait_serves_connections_that_greenpg_did_not_make(dsn):
    conn = psycopg2._psycopg._connect(dsn, None, True)
    cur = conn.cursor

    with heartbeat(current()):
        greenpg.wait(conn)
        asked = cur()
        asked.execute("select 42 from pg_sleep(0.1)")
        greenpg.wait(conn)

    assert asked.fetchone() == (42,)
    conn.close()
