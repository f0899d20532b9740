"""The manual's chapter on connection and cursor factories."""

# the base classes are those of the module under test
# mypy: disable-error-code="misc,name-defined,valid-type"

from __future__ import annotations

import logging

import psycopg2
import pytest

import greenpg
from greenpg.backend import current
from greenpg_conformance.toolkit.heartbeat import heartbeat

C_CURSOR = psycopg2._psycopg.cursor
C_CONNECTION = psycopg2._psycopg.connection


def logging_cursor(base, execute):
    """The manual's cursor that logs each statement and each error."""

    class LoggingCursor(base):
        def execute(self, sql, args=None):
            logger = logging.getLogger("sql_debug")
            logger.info(self.mogrify(sql, args))
            try:
                execute().execute(self, sql, args)
            except Exception as exc:
                logger.error("%s: %s", type(exc).__name__, exc)
                raise

    return LoggingCursor


@pytest.fixture(params=["of the module", "of psycopg2 before a patch"])
def log_cursor(request, db):
    """LoggingCursor over either class; it calls what `extensions.cursor` is at that time."""
    base = db.extensions.cursor if request.param == "of the module" else C_CURSOR
    return logging_cursor(base, lambda: db.extensions.cursor)


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, "sql_debug")
    return caplog


def test_logging_cursor_logs_the_query_and_runs_it(conn, log_cursor, log):
    cur = conn.cursor(cursor_factory=log_cursor)

    cur.execute("select %s::int + %s", (10, 20))

    assert cur.fetchone() == (30,)
    assert log.messages == [str(b"select 10::int + 20")]


def test_logging_cursor_logs_the_error_and_raises_it(conn, log_cursor, log):
    cur = conn.cursor(cursor_factory=log_cursor)

    with pytest.raises(psycopg2.errors.DivisionByZero):
        cur.execute("select 1 / 0")

    assert [record.levelname for record in log.records] == ["INFO", "ERROR"]
    assert log.messages[1].startswith("DivisionByZero: division by zero")


@pytest.mark.parametrize("how", ["connect", "attribute", "subclass"])
def test_logging_cursor_can_be_a_connections_own(db, connect, log_cursor, log, how):
    class Connection(db.extensions.connection):
        def cursor(self, *args, **kwargs):
            kwargs.setdefault("cursor_factory", log_cursor)
            return super().cursor(*args, **kwargs)

    options = {
        "connect": {"cursor_factory": log_cursor},
        "attribute": {},
        "subclass": {"connection_factory": Connection},
    }
    conn = connect(**options[how])
    if how == "attribute":
        conn.cursor_factory = log_cursor

    cur = conn.cursor()
    cur.execute("select 1")

    assert isinstance(cur, log_cursor)
    assert log.messages == [str(b"select 1")]


def test_logging_cursor_is_green(conn, log_cursor, log, spawn, gate):
    cur = conn.cursor(cursor_factory=log_cursor)

    with heartbeat(current()):
        job = spawn(cur.execute, gate.sql)
        gate.wait_for()
        gate.open()
        job.result()

    assert len(log.messages) == 1


def test_logging_cursors_of_many_tasks_share_a_connection(conn, log_cursor, log, spawn):
    def ask(number):
        cur = conn.cursor(cursor_factory=log_cursor)
        cur.execute("select %s from pg_sleep(0.01)", (number,))
        return cur.fetchone()[0]

    jobs = [spawn(ask, number) for number in range(10)]

    assert [job.result() for job in jobs] == list(range(10))


def test_cursor_that_calls_past_the_guard_is_green_and_works(conn, log, spawn, gate):
    cur = conn.cursor(cursor_factory=logging_cursor(C_CURSOR, lambda: C_CURSOR))

    with heartbeat(current()):
        job = spawn(cur.execute, gate.sql)
        gate.wait_for()
        gate.open()
        job.result()
    conn.commit()

    cur.execute("select 7")
    assert cur.fetchone() == (7,)


def test_logging_cursor_serves_as_a_named_cursor(conn, log_cursor, log):
    cur = conn.cursor("numbered", cursor_factory=log_cursor)

    cur.execute("select generate_series(1, 5)")

    assert [row[0] for row in cur] == [1, 2, 3, 4, 5]
    assert log.messages == [str(b"select generate_series(1, 5)")]


def test_connection_subclass_keeps_its_own_methods_and_state(db, connect):
    class Account(db.extensions.connection):
        def __init__(self, *args, **kwargs):
            self.opened = True
            super().__init__(*args, **kwargs)

        def total(self, *numbers):
            with self.cursor() as cur:
                cur.execute("select sum(n) from unnest(%s) as n", (list(numbers),))
                return cur.fetchone()[0]

    conn = connect(connection_factory=Account)

    assert conn.total(1, 2, 3) == 6
    assert conn.opened
    assert isinstance(conn, Account)
    assert type(conn).__name__ == "Account"


def test_subclass_of_the_c_connection_is_green(connect, spawn, gate):
    class Plain(C_CONNECTION):
        pass

    conn = connect(connection_factory=Plain)

    with heartbeat(current()):
        job = spawn(conn.cursor().execute, gate.sql)
        gate.wait_for()
        gate.open()
        job.result()

    assert isinstance(conn, Plain)
    assert isinstance(conn, greenpg.Connection)


def test_cursor_subclass_overrides_the_fetch_methods(db, conn):
    class Scalars(db.extensions.cursor):
        def fetchall(self):
            return [row[0] for row in super().fetchall()]

    cur = conn.cursor(cursor_factory=Scalars)

    cur.execute("select generate_series(1, 3)")

    assert cur.fetchall() == [1, 2, 3]


def test_cursor_class_calls_the_init_of_the_class_beside_the_modules(db, conn):
    class Counting(C_CURSOR):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.ran = 0

    class Both(db.extensions.cursor, Counting):
        pass

    assert conn.cursor(cursor_factory=Both).ran == 0


@pytest.mark.parametrize("extra", [((), {"nonsense": 1}), ((None, None, None), {})])
def test_cursor_class_refuses_arguments_that_it_does_not_know(db, conn, extra):
    args, kwargs = extra

    with pytest.raises(TypeError):
        db.extensions.cursor(conn, *args, **kwargs)


def test_cursor_class_may_be_called_with_a_connection(db, conn):
    cur = db.extensions.cursor(conn)

    cur.execute("select 1")

    assert cur.fetchone() == (1,)
    assert cur.connection is conn


def test_same_factory_gives_the_same_class_every_time(conn, log_cursor):
    one = conn.cursor(cursor_factory=log_cursor)
    two = conn.cursor(cursor_factory=log_cursor)

    assert type(one) is type(two)


def test_factory_that_is_a_function_makes_the_cursor(db, conn):
    made = []

    def factory(conn, name=None, *args, **kwargs):
        made.append(db.extensions.cursor(conn, name, *args, **kwargs))
        return made[-1]

    cur = conn.cursor(cursor_factory=factory)
    cur.execute("select 1")

    assert made == [cur]
