"""Ways to connect, and users' own classes."""

from __future__ import annotations

# the base classes are those of the module under test
# mypy: disable-error-code="misc,name-defined"
import functools
import io
import logging

import psycopg2
import pytest
from psycopg2.extensions import make_dsn, parse_dsn

import greenpg
from greenpg.errors import ConnectionFactoryWarning
from tests.db.conftest import password_of, until

C_CONNECTION = psycopg2._psycopg.connection
C_CURSOR = psycopg2._psycopg.cursor


def one(conn, query="select 1", args=None):
    cur = conn.cursor()
    cur.execute(query, args)
    return cur.fetchone()


def test_connection_string_makes_a_green_connection(db, connect, dsn):
    conn = connect(dsn)

    assert isinstance(conn, greenpg.Connection)
    assert isinstance(conn, psycopg2.extensions.connection)
    assert isinstance(conn.cursor(), psycopg2.extensions.cursor)
    assert one(conn) == (1,)


def test_keywords_make_a_connection(db, dsn):
    conn = db.connect(**parse_dsn(dsn))

    assert one(conn) == (1,)
    conn.close()


def test_keywords_go_over_the_connection_string(connect, dsn):
    conn = connect(dsn, application_name="over", options="-c work_mem=1234kB")

    assert one(conn, "show application_name") == ("over",)
    assert one(conn, "show work_mem") == ("1234kB",)
    assert conn.info.dsn_parameters["application_name"] == "over"


def test_database_is_another_name_of_dbname(db, dsn):
    parts = parse_dsn(dsn)
    parts["database"] = parts.pop("dbname")

    conn = db.connect(**parts)

    assert conn.info.dbname == parts["database"]
    conn.close()


def test_connection_uri_is_understood(db, dsn):
    parts = parse_dsn(dsn)

    conn = db.connect(f"postgresql:///{parts.pop('dbname')}", **parts)

    assert one(conn) == (1,)
    conn.close()


def test_dsn_shows_what_was_given_without_the_password(connect, dsn):
    password = password_of(dsn)

    conn = connect(dsn, password=password)

    assert password not in conn.dsn
    assert parse_dsn(conn.dsn) == {**parse_dsn(dsn), "password": "xxx"}


def test_connection_class_may_compare_by_value_and_have_no_hash(connect):
    class Mine(greenpg.Connection):
        def __eq__(self, other):
            return True

    conns = [connect(connection_factory=Mine) for _ in range(2)]

    assert [one(conn) for conn in conns] == [(1,), (1,)]


def test_factories_are_positional_arguments_too(db, dsn):
    class Mine(db.extensions.connection):
        pass

    conn = db.connect(dsn, Mine, db.extras.DictCursor)

    assert isinstance(conn, Mine)
    assert one(conn, "select 1 as n")["n"] == 1
    conn.close()


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("DictConnection", lambda row: row["n"]),
        ("RealDictConnection", lambda row: row["n"]),
        ("NamedTupleConnection", lambda row: row.n),
    ],
)
@pytest.mark.parametrize("home", ["of the module", "of psycopg2"])
def test_connections_of_extras_have_rows_of_their_kind(db, connect, kind, row, home):
    extras = db.extras if home == "of the module" else psycopg2.extras
    conn = connect(connection_factory=getattr(extras, kind))

    cur = conn.cursor()
    cur.execute("select 5 as n union all select 6 union all select 7")

    assert row(cur.fetchone()) == 5
    assert [row(found) for found in cur] == [6, 7]
    assert isinstance(conn, greenpg.Connection)
    assert isinstance(cur, greenpg.Cursor)


@pytest.mark.parametrize("kind", ["DictCursor", "RealDictCursor", "NamedTupleCursor"])
def test_named_cursors_of_extras_have_rows_of_their_kind(db, conn, kind):
    cur = conn.cursor("rows", cursor_factory=getattr(db.extras, kind))

    cur.execute("select n as num from generate_series(1, 5) as n")
    first, two, rest = cur.fetchone(), cur.fetchmany(2), cur.fetchall()

    names = [row.num if kind == "NamedTupleCursor" else row["num"] for row in [first, *two, *rest]]
    assert names == [1, 2, 3, 4, 5]


def test_logging_connection_logs_to_a_logger(db, connect, caplog):
    caplog.set_level(logging.DEBUG, "queries")
    conn = connect(connection_factory=db.extras.LoggingConnection)
    conn.initialize(logging.getLogger("queries"))

    assert one(conn, "select %s", (1,)) == (1,)
    conn.cursor().callproc("upper", ["a"])

    assert caplog.messages[0] == str(b"select 1")
    assert len(caplog.messages) == 2


def test_logging_connection_logs_to_a_file_through_a_filter(db, connect):
    class Short(db.extras.LoggingConnection):
        def filter(self, msg, curs):
            return msg[:8]

    file = io.StringIO()
    conn = connect(connection_factory=Short)
    conn.initialize(file)

    one(conn, "select 12345")

    assert file.getvalue().split() == ["select", "1"]


def test_min_time_logging_connection_logs_slow_queries(db, connect):
    file = io.StringIO()
    conn = connect(connection_factory=db.extras.MinTimeLoggingConnection)
    conn.initialize(file, mintime=50)

    one(conn, "select 'quick'")
    one(conn, "select 'slow' from pg_sleep(0.1)")

    assert "slow" in file.getvalue()
    assert "quick" not in file.getvalue()


def test_users_new_may_skip_ours(connect, spawn):
    class Skipping(C_CONNECTION):
        def __new__(cls, *args, **kwargs):
            return C_CONNECTION.__new__(cls, *args, **kwargs)

    conn = connect(connection_factory=Skipping)

    assert one(conn) == (1,)
    assert spawn(one, conn).result() == (1,)


def test_users_init_may_skip_ours(connect, spawn):
    class Skipping(C_CONNECTION):
        def __init__(self, dsn, async_=0):
            C_CONNECTION.__init__(self, dsn, async_)

    conn = connect(connection_factory=Skipping)

    assert one(conn) == (1,)
    assert spawn(one, conn).result() == (1,)


def test_users_cursor_init_may_skip_ours(conn, spawn):
    class Skipping(C_CURSOR):
        def __init__(self, *args, **kwargs):
            C_CURSOR.__init__(self, *args, **kwargs)

    cur = conn.cursor("skipping", cursor_factory=Skipping)
    cur.execute("select generate_series(1, 3)")

    assert spawn(cur.fetchall).result() == [(1,), (2,), (3,)]


def test_users_init_may_run_queries(db, connect):
    class Tagged(db.extensions.connection):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.autocommit = True
            self.pid = one(self, "select pg_backend_pid()")[0]

    conn = connect(connection_factory=Tagged)

    assert conn.pid == conn.info.backend_pid


def test_user_class_with_slots_and_a_mixin_is_accepted(db, connect):
    class Mixin:
        def hello(self):
            return one(self, "select 'hello'")[0]

    class Mixed(Mixin, C_CONNECTION):
        __slots__ = ()

    conn = connect(connection_factory=Mixed)

    assert conn.hello() == "hello"


def test_cursor_factory_must_make_cursors(conn):
    class NoCursor:
        def __init__(self, *args):
            pass

    with pytest.raises(TypeError, match="subclass"):
        conn.cursor(cursor_factory=NoCursor)


def test_function_as_a_factory_warns_and_its_queries_are_green(db, dsn, spawn, gate):
    def factory(dsn, *modes):
        return C_CONNECTION(dsn)

    with pytest.warns(ConnectionFactoryWarning, match="tasks may not share one"):
        conn = db.connect(dsn, connection_factory=factory)
    job = spawn(conn.cursor().execute, gate.sql)
    gate.wait_for()
    gate.open()
    job.result()

    assert type(conn) is C_CONNECTION
    conn.close()


def test_factory_that_makes_a_green_connection_does_not_warn(connect):
    conn = connect(connection_factory=functools.partial(greenpg.Connection))

    assert one(conn) == (1,)


def test_error_of_a_factory_propagates(db, dsn):
    class Refusing(db.extensions.connection):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            raise LookupError("not today")

    with pytest.raises(LookupError, match="not today"):
        db.connect(dsn, connection_factory=Refusing)


@pytest.mark.parametrize("hosts", ["127.0.0.1", "127.0.0.1,127.0.0.1"])
def test_error_of_a_query_in_a_factory_propagates(db, dsn, hosts):
    class Asking(db.extensions.connection):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            one(self, "select pg_cancel_backend(pg_backend_pid())")

    with pytest.raises(db.extensions.QueryCanceledError) as caught:
        db.connect(make_dsn(dsn, host=hosts), connection_factory=Asking)

    assert caught.value.pgcode == "57014"


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ("no dsn at all", {}),
        ("host=", {"no_such_option": 1}),
        ("postgresql://[::1", {}),
    ],
)
def test_connection_string_that_libpq_refuses_is_a_programming_error(db, given, options):
    with pytest.raises(db.ProgrammingError, match=r"invalid dsn|invalid connection option"):
        db.connect(given, **options)


def test_wrong_arguments_are_type_errors_that_say_which(db, dsn):
    with pytest.raises(TypeError, match=r"dbname.*database|database.*dbname"):
        db.connect(database="one", dbname="two")


def test_refused_connection_is_an_operational_error(db, connect, dsn):
    with pytest.raises(db.OperationalError, match="port 1 "):
        db.connect(make_dsn(dsn, host="127.0.0.1", port=1))

    assert one(connect()) == (1,)


def test_unknown_database_is_an_operational_error(db, connect, dsn):
    with pytest.raises(db.OperationalError, match='"no_such_database" does not exist'):
        db.connect(dsn, dbname="no_such_database")

    assert one(connect()) == (1,)


def test_server_that_closes_during_start_up_is_an_operational_error(db, connect, proxy, spawn):
    proxy.stall()
    job = spawn(db.connect, make_dsn(proxy.dsn, sslmode="disable", gssencmode="disable"))
    until(proxy.cut, "a connection through the proxy")

    with pytest.raises(db.OperationalError):
        job.result()
    assert one(connect()) == (1,)


def test_closed_connection_says_so(db, connect):
    conn = connect()
    conn.close()

    for operation in (conn.cursor, conn.commit, conn.rollback, conn.reset, conn.get_backend_pid):
        with pytest.raises(db.InterfaceError, match="connection already closed"):
            operation()
    conn.close()
    assert conn.closed == 1


def test_connection_knows_its_errors_and_facts(db, conn):
    assert conn.Error is db.Error
    assert conn.IntegrityError is db.IntegrityError
    assert conn.info.backend_pid == conn.get_backend_pid()
    assert conn.server_version == conn.info.server_version > 0
    assert conn.get_parameter_status("server_encoding") == "UTF8"
    assert conn.get_dsn_parameters() == conn.info.dsn_parameters
    assert conn.fileno() == conn.info.socket
    assert conn.protocol_version == 3
