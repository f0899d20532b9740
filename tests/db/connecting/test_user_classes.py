"""Users' classes that observe or restrict how classes are made, as factories."""

from __future__ import annotations

# the base classes are those of the module under test
# mypy: disable-error-code="misc,name-defined,valid-type"
import abc

import psycopg2
import pytest

import greenpg

C_CONNECTION = psycopg2._psycopg.connection
C_CURSOR = psycopg2._psycopg.cursor


def with_abc(base):
    class Made(base, abc.ABC):
        pass

    return Made


def with_metaclass(base):
    names = set()

    class Meta(type):
        def __new__(mcls, name, bases, content):
            assert name not in names, "seen twice"
            names.add(name)
            return super().__new__(mcls, name, bases, content)

    class Made(base, metaclass=Meta):
        pass

    return Made


def with_required_argument(base):
    class Base(base):
        def __init_subclass__(cls, *, table):
            cls.table = table

    class Made(Base, table="t"):
        pass

    return Made


def with_forbidden_subclasses(base):
    class Made(base):
        def __init_subclass__(cls):
            raise TypeError("final")

    return Made


KINDS = [with_abc, with_metaclass, with_required_argument, with_forbidden_subclasses]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=["of the module", "of psycopg2 before a patch"])
def bases(request, db):
    """The classes of connections and cursors to derive from."""
    ext = db.extensions
    return (ext.connection, ext.cursor) if "module" in request.param else (C_CONNECTION, C_CURSOR)


def test_connection_class_is_a_green_factory(connect, kind, bases, spawn, gate):
    factory = kind(bases[0])
    conn = connect(connection_factory=factory)

    job = spawn(conn.cursor().execute, gate.sql)
    gate.wait_for()
    second = spawn(conn.cursor().execute, "select 2")
    gate.open()
    job.result()
    second.result()

    assert isinstance(conn, factory)
    assert isinstance(conn, greenpg.Connection)


@pytest.mark.parametrize("name", [None, "named"])
def test_cursor_class_is_a_green_factory(conn, kind, bases, name):
    factory = kind(bases[1])
    cur = conn.cursor(name, cursor_factory=factory)

    cur.execute("select generate_series(1, 3000)")

    assert len(cur.fetchall()) == 3000
    assert isinstance(cur, factory)
    assert isinstance(cur, greenpg.Cursor)
    cur.close()


def test_named_cursor_class_may_refuse_attributes(conn, bases):
    class Closed(bases[1]):
        def __setattr__(self, name, value):
            raise AttributeError(name)

    cur = conn.cursor("closed", cursor_factory=Closed)

    cur.execute("select generate_series(1, 3)")

    assert cur.fetchall() == [(1,), (2,), (3,)]


def test_methods_that_a_class_overrides_are_called_by_the_program_alone(db, connect, bases):
    called = []

    class Counted(bases[0]):
        def cursor(self):  # fewer arguments than psycopg2's
            called.append("cursor")
            return super().cursor()

        def commit(self):
            called.append("commit")
            super().commit()

        def rollback(self):
            called.append("rollback")
            super().rollback()

    conn = connect(connection_factory=Counted)
    cur = greenpg.Cursor(conn)
    cur.execute("create temp table once (n int primary key)")
    with pytest.raises(db.errors.UniqueViolation):
        cur.executemany("insert into once values (%s)", [(n % 9,) for n in range(10)])
    called.clear()

    super(Counted, conn).rollback()
    with conn.pipeline() as pipeline:
        number = pipeline.execute("select 5").fetchone()
    rows = list(cur.stream("select generate_series(1, 300)"))
    super(Counted, conn).rollback()
    assert conn.tpc_recover() == []
    with conn.listen("greenpg_overrides", timeout=0.01) as notifications:
        heard = list(notifications)

    assert (number, len(rows), heard, called) == ((5,), 300, [], [])


def test_named_cursor_builds_each_row_once(conn, bases):
    class Doubling(bases[1]):
        def fetchmany(self, size=None):
            return [2 * row[0] for row in super().fetchmany(size)]

        def fetchall(self):
            return [2 * row[0] for row in super().fetchall()]

    cur = conn.cursor("doubling", cursor_factory=Doubling)

    cur.execute("select generate_series(1, 3)")

    assert cur.fetchall() == [2, 4, 6]


def test_classes_may_refuse_attributes(connect, bases):
    class ClosedConnection(bases[0]):
        def __setattr__(self, name, value):
            raise AttributeError(name)

    class ClosedCursor(bases[1]):
        __setattr__ = ClosedConnection.__setattr__

    conn = connect(connection_factory=ClosedConnection)
    cur = conn.cursor(cursor_factory=ClosedCursor)
    cur.execute("create temp table refused (n int)")
    cur.executemany("insert into refused values (%s)", [(n,) for n in range(100)])
    counts = [cur.rowcount]
    with cur.copy("copy refused from stdin") as copy:
        copy.write_row([100])
    counts.append(cur.rowcount)

    assert counts == [100, 1]
