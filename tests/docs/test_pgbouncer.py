"""The statements of docs/pgbouncer.md on transaction mode, tested with a real PgBouncer."""

from __future__ import annotations

import io
from contextlib import closing

import psycopg2
import pytest

import greenpg
from tests.db.bouncer import bouncing

SETTING = "set work_mem = '77MB'"
SHOWN = "show work_mem"
LONG = "select generate_series(1, 5000)"


@pytest.fixture
def bouncer(server, tmp_path):
    with bouncing(server.dsn, tmp_path) as made:
        yield made


@pytest.fixture
def connect(bouncer):
    made = []

    def connect(autocommit=True, **options):
        conn = greenpg.connect(bouncer.dsn, **options)
        conn.autocommit = autocommit
        made.append(conn)
        return conn

    yield connect
    for conn in made:
        conn.close()


def ask(conn, query, *args):
    with conn.cursor() as cur:
        cur.execute(query, args or None)
        return cur.fetchone()[0] if cur.description else None


def occupy(connect, count=3):
    """Keep `count` server sessions in transactions, so that others must use another session."""
    for _ in range(count):
        ask(connect(autocommit=False), "select 1")


def test_settings_get_to_others(connect):
    one, other = connect(), connect()

    ask(one, SETTING)

    assert ask(other, SHOWN) == "77MB"


def test_session_locks_are_given_to_others_too(connect):
    one, other = connect(), connect()

    ask(one, "select pg_advisory_lock(6)")

    assert ask(other, "select pg_try_advisory_lock(6)")


def test_notifications_do_not_arrive(connect, server):
    with closing(psycopg2.connect(server.dsn)) as sender, connect().listen("a", timeout=1) as notes:
        sender.autocommit = True
        ask(connect(), "select 1")
        sender.cursor().execute("notify a")

        assert list(notes) == []


def test_prepared_statements_are_gone_in_the_next_session(connect):
    conn = connect()
    ask(conn, "prepare six as select 6")
    occupy(connect)

    with pytest.raises(psycopg2.errors.InvalidSqlStatementName):
        ask(conn, "execute six")


def test_streams_under_autocommit_are_gone_in_the_next_session(connect):
    rows = connect().cursor().stream(LONG)
    next(rows)
    occupy(connect)

    with pytest.raises(psycopg2.errors.InvalidCursorName):
        list(rows)


def test_cursors_with_hold_are_gone_in_the_next_session(connect):
    conn = connect(autocommit=False)
    cur = conn.cursor("kept", withhold=True)
    cur.execute(LONG)
    conn.commit()
    occupy(connect)

    with pytest.raises(psycopg2.errors.InvalidCursorName):
        cur.fetchall()


@pytest.mark.parametrize("options", [{"options": "-c work_mem=99MB"}, {"replication": "database"}])
def test_startup_parameters_are_refused(connect, options):
    with pytest.raises(psycopg2.OperationalError, match="unsupported startup parameter"):
        connect(**options)


def test_a_transaction_has_all_that_a_session_has(connect):
    conn = connect(autocommit=False)
    cur = conn.cursor()

    cur.execute("set local work_mem = '88MB'")
    cur.execute("create temp table kept (n int) on commit drop")
    cur.executemany("insert into kept values (%s)", [(n,) for n in range(100)])
    cur.copy_from(io.StringIO("100\n"), "kept")
    with conn.pipeline() as pipe:
        count = pipe.execute("select count(*) from kept")
    streamed = sum(1 for _ in cur.stream(LONG))
    with conn.lobject(mode="wb") as large:
        large.write(b"data")

    assert ask(conn, SHOWN) == "88MB"
    assert count.fetchone() == (101,)
    assert streamed == 5000
    conn.commit()


def test_a_deadline_ends_the_query(connect, server):
    conn = connect()
    with pytest.raises(greenpg.DeadlineExceeded), conn.deadline(0.3):
        ask(conn, "select pg_sleep(37)")

    running = "select count(*) from pg_stat_activity where query = %s and state = 'active'"
    with closing(psycopg2.connect(server.dsn)) as direct:
        assert ask(direct, running, "select pg_sleep(37)") == 0
    assert ask(conn, "select 6") == 6
