"""Users' classes whose names are those that greenpg's classes might use too."""

from __future__ import annotations

# the base classes are those of the module under test
# mypy: disable-error-code="misc,name-defined,valid-type"
import io
import warnings
from contextlib import closing

import psycopg2
import pytest

import greenpg
from greenpg.backend import current
from greenpg.cursor import NamedCursor
from greenpg.replication import LogicalReplicationConnection, ReplicationCursor

C_CONNECTION = psycopg2._psycopg.connection
C_CURSOR = psycopg2._psycopg.cursor
C_LOBJECT = psycopg2._psycopg.lobject
PREFIX = "_greenpg"
# Also the names of instances, and those that greenpg's classes had without a prefix.
CONNECTIONS = {"_guard", "_run", "_state", "_state_made"}
CURSORS = {"_copy", "_many", "_run", "_touched"}
LOBJECTS = {"_close", "_conn", "_fd"}


class Taken:
    """A name that greenpg must neither read nor write on a user's object."""

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, instance, owner=None):
        raise AssertionError(f"{self.name} was read")

    def __set__(self, instance, value):
        raise AssertionError(f"{self.name} was written")


def taken(base, c_class, *green, also=()):
    """Return a class that uses every name of the green classes that is not psycopg2's."""
    names = {name for kind in green for name in vars(kind) if not name.startswith("__")}
    names = {name.removeprefix(PREFIX) for name in names - {*dir(c_class)}} | {*also}
    return type("Taken", (base,), {name: Taken() for name in names})


@pytest.fixture(params=["of the module", "of psycopg2 before a patch"])
def early(request):
    return "before" in request.param


@pytest.fixture
def connection_class(db, early):
    base = C_CONNECTION if early else db.extensions.connection
    return taken(base, C_CONNECTION, greenpg.Connection, also=CONNECTIONS)


@pytest.fixture
def cursor_class(db, early):
    base = C_CURSOR if early else db.extensions.cursor
    return taken(base, C_CURSOR, greenpg.Cursor, NamedCursor, also=CURSORS)


@pytest.fixture
def conn(connect, connection_class, cursor_class):
    return connect(connection_factory=connection_class, cursor_factory=cursor_class)


@pytest.fixture
def table(conn):
    conn.cursor().execute("create temp table taken (n int)")
    return "taken"


def test_names_of_ours_are_taken(conn):
    for instance, name in ((conn, "_state"), (conn, "exclusive"), (conn.cursor(), "_copy")):
        with pytest.raises(AssertionError):
            getattr(instance, name)


def test_statements_and_transactions_work(db, conn, table):
    cur = conn.cursor()
    cur.executemany("insert into taken values (%s)", [(n,) for n in range(5000)])
    conn.commit()
    with conn, conn.cursor() as other:
        other.callproc("upper", ["a"])
    cur.execute("select n from taken order by n")
    rows = cur.fetchall()
    with pytest.raises(db.errors.DivisionByZero):
        cur.execute("select 1 / 0")
    conn.rollback()
    conn.tpc_recover()
    conn.set_session(readonly=True)
    conn.autocommit = True
    conn.reset()

    assert rows == [(n,) for n in range(5000)]


def test_executemany_that_fails_is_undone(db, conn, table):
    cur = conn.cursor()
    cur.execute("create unique index on taken (n)")
    conn.commit()

    with pytest.raises(db.errors.UniqueViolation):
        cur.executemany("insert into taken values (%s)", [(n % 9,) for n in range(20)])
    conn.rollback()
    cur.execute("select count(*) from taken")

    assert cur.fetchone() == (0,)


def test_copy_works(conn, table):
    cur, out = conn.cursor(), io.StringIO()
    cur.copy_from(io.StringIO("1\n2\n"), table)
    cur.copy_expert("copy taken from stdin", io.StringIO("3\n"))
    with greenpg.Cursor.copy(cur, "copy taken from stdin") as copy:
        copy.write_row([4])
    touched = cur.rowcount
    cur.copy_to(out, table)
    with greenpg.Cursor.copy(cur, "copy taken to stdout") as copy:
        rows = list(copy.rows())

    assert (touched, out.getvalue(), rows) == (1, "1\n2\n3\n4\n", [("1",), ("2",), ("3",), ("4",)])


def test_named_cursors_and_streams_work(conn):
    named = conn.cursor("named", scrollable=True)
    named.execute("select generate_series(1, 6000)")
    first, more = named.fetchone(), named.fetchall()
    named.scroll(0, "absolute")
    second = next(named)
    named.close()

    rows = list(greenpg.Cursor.stream(conn.cursor(), "select generate_series(1, 3000)"))

    assert (first, len(more), second, len(rows)) == ((1,), 5999, (1,), 3000)


def test_what_greenpg_adds_works_by_its_own_names(conn, spawn, gate):
    conn.autocommit = True
    with greenpg.Connection.pipeline(conn) as pipeline:
        number = pipeline.execute("select 5")
        pipeline.sync()
    with greenpg.Connection.exclusive(conn), greenpg.Connection.deadline(conn, 5):
        conn.cursor().execute("select 1")
    with greenpg.Connection.listen(conn, "taken", timeout=0.01) as notifications:
        heard = list(notifications)
    job = spawn(conn.cursor().execute, gate.sql)
    gate.wait_for()
    conn.cancel()
    with pytest.raises(psycopg2.errors.QueryCanceled):
        job.result()

    assert (number.fetchone(), heard) == ((5,), [])


def test_close_ends_another_tasks_query(db, conn, spawn, gate):
    job = spawn(conn.cursor().execute, gate.sql)
    gate.wait_for()
    conn.close()

    with pytest.raises(db.InterfaceError):
        job.result()


@pytest.mark.green
def test_interrupt_leaves_the_connection_usable(conn, spawn, gate):
    conn.autocommit = True
    job = spawn(conn.cursor().execute, gate.sql)
    gate.wait_for()
    job.kill()
    job.join()
    cur = conn.cursor()
    cur.execute("select 5")

    assert cur.fetchone() == (5,)


def test_large_objects_work(db, conn, early, tmp_path):
    base = C_LOBJECT if early else db.extensions.lobject
    factory = taken(base, C_LOBJECT, greenpg.extensions.lobject, also=LOBJECTS)
    with conn.lobject(0, "w", lobject_factory=factory) as lob:
        lob.write("abcdef")
        lob.seek(2)
        lob.truncate(4)
        text, place = lob.read(), lob.tell()
        lob.export(str(tmp_path / "file"))
    whole = conn.lobject(lob.oid, "r", lobject_factory=factory).read(2)
    conn.lobject(lob.oid, "n", lobject_factory=factory).unlink()

    assert (text, place, whole, (tmp_path / "file").read_text()) == ("cd", 4, "ab", "abcd")


def test_asynchronous_connection_works(connect, connection_class):
    conn = connect(connection_factory=connection_class, async_=1)
    greenpg.wait(conn)
    cur = conn.cursor()
    cur.execute("select 5")
    greenpg.wait(conn)

    assert cur.fetchone() == (5,)


def test_class_that_the_program_calls_itself_works(db, dsn):
    base = db.extensions.connection
    with closing(taken(base, C_CONNECTION, greenpg.Connection, also=CONNECTIONS)(dsn)) as conn:
        cur = conn.cursor()
        cur.execute("select 5")

        assert cur.fetchone() == (5,)


def test_plain_connection_with_such_names_works(dsn, cursor_class):
    names = {name: name for name in CONNECTIONS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", greenpg.errors.ConnectionFactoryWarning)
        plain = type("Plain", (C_CONNECTION,), names)(dsn)
    with closing(plain) as conn:
        cur = conn.cursor(cursor_factory=cursor_class)
        cur.execute("select generate_series(1, 5000)")

        assert len(cur.fetchall()) == 5000


def test_pool_lends_such_connections(dsn, connection_class):
    options = {"connection_factory": connection_class}
    with (
        greenpg.ConnectionPool(
            dsn,
            min_size=1,
            max_size=1,
            kwargs=options,
            configure=lambda conn: None,
            reset="discard",
        ) as pool,
        pool.connection() as conn,
    ):
        conn.cursor().execute("select 1")


def test_replication_cursor_works(dsn):
    factory = taken(ReplicationCursor, ReplicationCursor.__bases__[0], *ReplicationCursor.__bases__)
    with closing(
        greenpg.connect(dsn, connection_factory=LogicalReplicationConnection, backend=current())
    ) as conn:
        cur = conn.cursor(cursor_factory=factory)
        cur.send_feedback()

        assert (cur.wal_end, ReplicationCursor.flush_lsn.__get__(cur)) == (0, 0)
