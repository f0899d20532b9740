"""`patch_psycopg` and `unpatch_psycopg`."""

from __future__ import annotations

# the base classes are psycopg2's, whichever they are at that time
# mypy: disable-error-code="misc"
from typing import Any

import psycopg2
import psycopg2.extras
import pytest
from psycopg2 import connect as connect_imported_early
from psycopg2 import extensions as ext
from psycopg2 import sql

import greenpg
from greenpg.backend import choose, chosen, current
from greenpg.patch import patcher
from greenpg_conformance.toolkit.heartbeat import heartbeat
from tests.green.plugin import PATCHED

C_CONNECTION = psycopg2._psycopg.connection
C_CURSOR = psycopg2._psycopg.cursor
C_LOBJECT = psycopg2._psycopg.lobject
CLASSES = (
    "DictCursor",
    "DictConnection",
    "RealDictCursor",
    "NamedTupleCursor",
    "LoggingConnection",
)


@pytest.fixture
def patch(request):
    """The pair of functions, in a process that is not patched; as it was after the test."""
    before = chosen()
    patch_psycopg, unpatch_psycopg = patcher(current())
    unpatch_psycopg()
    yield patch_psycopg, unpatch_psycopg
    unpatch_psycopg()
    if request.config.stash.get(PATCHED, False):
        patch_psycopg()
    choose(before)


@pytest.fixture
def patched(patch):
    patch[0]()
    return patch


@pytest.fixture
def made(dsn):
    """Connect with what psycopg2 has; closed after the test."""
    found = []

    def connect(function=None, **options):
        found.append((function or psycopg2.connect)(dsn, **options))
        return found[-1]

    yield connect
    for conn in found:
        conn.close()


def one(conn, query="select 1"):
    cur = conn.cursor()
    cur.execute(query)
    return cur.fetchone()[0]


def test_connections_are_green_from_now_on(patched, made, spawn, gate):
    conn = made()

    with heartbeat(current()):
        job = spawn(one, conn, gate.sql)
        gate.wait_for()
        gate.open()
        job.result()

    assert isinstance(conn, greenpg.Connection)


def test_connect_that_was_imported_before_is_green_too(patched, made):
    conn = made(connect_imported_early)

    assert isinstance(conn, greenpg.Connection)
    assert one(conn) == 1


def test_patching_twice_is_patching_once(patched, made):
    patch_psycopg, unpatch_psycopg = patched
    cursor = ext.cursor

    patch_psycopg()
    again = ext.cursor
    unpatch_psycopg()

    assert again is cursor
    assert ext.cursor is C_CURSOR
    assert type(made()) is C_CONNECTION


def test_unpatching_brings_everything_back(patch, made):
    patch_psycopg, unpatch_psycopg = patch
    before = [getattr(psycopg2.extras, name) for name in CLASSES]

    patch_psycopg()
    during = [getattr(psycopg2.extras, name) for name in CLASSES]
    unpatch_psycopg()
    after = [getattr(psycopg2.extras, name) for name in CLASSES]

    assert not set(during) & set(before)
    assert after == before
    assert ext.cursor is C_CURSOR
    assert ext.lobject is C_LOBJECT
    assert ext.connection is C_CONNECTION
    assert sql.ext is ext  # type: ignore[attr-defined]  # an import, not in its stubs
    assert type(made()) is C_CONNECTION
    assert type(made(connection_factory=psycopg2.extras.DictConnection)) is before[1]


def test_unpatching_what_is_not_patched_does_nothing(patch, made):
    patch[1]()

    assert type(made()) is C_CONNECTION


def test_connection_made_while_patched_stays_green(patched, made, spawn, gate):
    backend, conn = current(), made()
    patched[1]()
    choose(backend)

    job = spawn(one, conn, gate.sql)
    gate.wait_for()
    second = spawn(one, conn, "select 2")
    gate.open()

    assert [job.result(), second.result()] == ["", 2]


def test_connection_made_before_waits_through_the_backend(patch, made, spawn, gate):
    conn = made()
    patch[0]()

    with heartbeat(current()):
        job = spawn(one, conn, gate.sql)
        gate.wait_for()
        gate.open()
        job.result()

    assert type(conn) is C_CONNECTION
    assert one(conn, sql.SQL("select {}").format(sql.Literal(5))) == 5
    assert sql.Literal(5).as_string(conn) == "5"


def test_classes_derived_before_are_green_factories(patch, made, spawn):
    class Early(ext.cursor):
        def double(self):
            return 2 * self.fetchall()[0][0]

    class EarlyDict(psycopg2.extras.DictCursor):
        pass

    class EarlyConnection(ext.connection):
        pass

    patch[0]()
    conn = made(connection_factory=EarlyConnection)
    cur: Any = conn.cursor(cursor_factory=Early)
    row = conn.cursor(cursor_factory=EarlyDict)
    cur.execute("select 21")
    row.execute("select 1 as n")

    assert cur.double() == 42
    assert isinstance(conn, EarlyConnection)
    assert isinstance(conn, greenpg.Connection)
    assert isinstance(cur, greenpg.Cursor)
    assert row.fetchone()["n"] == 1


def test_cursor_is_of_the_very_class_that_psycopg2_promises(patched, made):
    conn = made()

    assert type(conn.cursor()) is ext.cursor
    assert (
        type(conn.cursor(cursor_factory=psycopg2.extras.DictCursor)) is psycopg2.extras.DictCursor
    )
    assert isinstance(ext.cursor(conn), ext.cursor)
    assert type(conn) is ext.connection
    assert type(conn.lobject()) is ext.lobject
    assert [type(kind) for kind in (ext.connection, ext.cursor, ext.lobject)] == [type] * 3


def test_large_object_made_directly_is_green(patched, made):
    conn = made()

    made_directly: Any = ext.lobject(conn, 0, "wb")
    with made_directly as lob:
        lob.write(b"direct")
        lob.seek(0)

        assert lob.read() == b"direct"
    assert isinstance(lob, greenpg.extensions.lobject)
    assert isinstance(conn.lobject(), ext.lobject)


def test_large_object_class_derived_while_patched_is_a_factory(patched, made):
    class Text(ext.lobject):
        def whole(self):
            self.seek(0)
            return self.read()

    lob = made().lobject(0, "w", lobject_factory=Text)
    lob.write("text")

    assert lob.whole() == "text"
    assert not isinstance(made().lobject(), Text)


def test_large_object_made_directly_on_a_plain_connection_is_psycopg2s(patch, made):
    conn = made()
    patch[0]()

    lob = ext.lobject(conn)

    assert isinstance(lob, C_LOBJECT)
    assert isinstance(lob, ext.lobject)
    with pytest.raises(TypeError):
        ext.lobject(5)


def test_type_is_registered_on_patched_cursors_and_connections(patched, made):
    conn = made()
    caster = ext.new_type((23,), "TEXTUAL", lambda value, cur: ("number", value))
    cur = ext.cursor(conn)

    ext.register_type(caster, cur)
    cur.execute("select 5")
    by_cursor = cur.fetchone()
    ext.register_type(caster, conn)

    assert by_cursor == (("number", "5"),)
    assert one(conn, "select 6") == ("number", "6")


def test_unpatching_forgets_the_choice_of_the_backend(patched):
    patched[1]()

    assert chosen() is None
    assert current().name == "threads"


def test_backend_chosen_later_survives_unpatching(patched):
    other = greenpg.use("threads") if current().name != "threads" else greenpg.use("gevent")

    patched[1]()

    assert chosen() is other
