"""The program's code that a cursor calls may use the cursor's connection, as in psycopg2."""

from __future__ import annotations

import io
from typing import Any

import psycopg2.extensions as ext
import pytest

from greenpg import sql

SERIES = "select generate_series(1, %s)"


def ask(conn, query="select 42"):
    cur = conn.cursor()
    cur.execute(query)
    return cur.fetchone()[0]


class Asking:
    """A parameter whose adapter calls a function with the connection."""

    def __init__(self, conn, ask=ask):
        self.conn, self.ask = conn, ask

    def __conform__(self, protocol):
        return self

    def getquoted(self):
        return str(self.ask(self.conn)).encode()


class Lazy(dict[str, Any]):
    """Parameters that a query finds."""

    def __missing__(self, key):
        return ask(self["conn"])


def executed(cur, query, args=None):
    cur.execute(query, args)
    return cur.fetchall()


def called(cur, name, parameters):
    assert cur.callproc(name, parameters) is (None if type(parameters) is dict else parameters)
    return cur.fetchall()


def by_name(cur, one):
    return executed(cur.connection.cursor("named"), "select %s", (one,))


def copied(cur, one):
    with cur.copy("copy (select %s) to stdout", (one,)) as copy:
        copy.set_types(["int4"])
        return list(copy.rows())


def in_a_file(cur, one):
    file = io.StringIO()
    cur.copy_expert(sql.SQL("copy (select {}) to stdout").format(sql.Literal(one)), file)
    return [(int(file.getvalue()),)]


STATEMENTS = {
    "execute": lambda cur, one: executed(cur, "select %s", (one,)),
    "lazy mapping": lambda cur, one: executed(cur, "select %(x)s", Lazy(conn=one.conn)),
    "composed": lambda cur, one: executed(cur, sql.SQL("select {}").format(sql.Literal(one))),
    "callproc": lambda cur, one: called(cur, "abs", [one]),
    "callproc by name": lambda cur, one: called(cur, "pg_temp.same", {"n": one}),
    "named cursor": by_name,
    "stream": lambda cur, one: list(cur.stream("select %s", (one,))),
    "copy block": copied,
    "copy_expert": in_a_file,
}


@pytest.fixture
def cur(conn):
    made = conn.cursor()
    made.execute(
        "create function pg_temp.same(n int) returns int language sql as 'select n';"
        "create temp table t (n int)"
    )
    return made


@pytest.mark.parametrize("name", STATEMENTS)
def test_adapter_queries_its_connection(conn, cur, name):
    assert STATEMENTS[name](cur, Asking(conn)) == [(42,)]


@pytest.mark.parametrize("name", [name for name in STATEMENTS if name != "lazy mapping"])
def test_adapter_waits_for_another_task_on_its_connection(conn, cur, spawn, name):
    one = Asking(conn, lambda conn: spawn(ask, conn).result())

    assert STATEMENTS[name](cur, one) == [(42,)]


@pytest.mark.parametrize("kind", [list, iter])
@pytest.mark.parametrize("autocommit", [False, True])
def test_adapter_in_executemany_sees_the_rows_before(connect, kind, autocommit):
    conn = connect()
    conn.autocommit = autocommit
    cur = conn.cursor()
    cur.execute("create temp table t (n int)")
    count = Asking(conn, lambda conn: ask(conn, "select count(*) from t"))
    rows = [*[(0,)] * 9, *[(count,)] * 3, (0,)]

    cur.executemany("insert into t values (%s)", kind(rows))

    assert (cur.rowcount, cur.statusmessage) == (13, "INSERT 0 1")
    assert executed(cur, "select n from t offset 9") == [(9,), (10,), (11,), (0,)]


@pytest.mark.parametrize(
    "run",
    [
        lambda cur, query, row: cur.execute(query, row),
        lambda cur, query, row: cur.executemany(query, [row]),
    ],
    ids=["execute", "executemany"],
)
def test_error_of_an_adapter_leaves_no_result(db, conn, run):
    error = ValueError("no such value")

    def fail(conn):
        raise error

    cur = conn.cursor()
    cur.execute("select 1")
    with pytest.raises(ValueError, match="no such") as caught:
        run(cur, "select %s", (Asking(conn, fail),))

    assert caught.value is error
    assert cur.query is None
    with pytest.raises(db.ProgrammingError, match="no results to fetch"):
        cur.fetchone()
    assert ask(conn) == 42


def test_wrong_parameters_are_psycopg2s_errors(db, conn):
    cur = conn.cursor()

    with pytest.raises(db.ProgrammingError, match="can't adapt type 'object'"):
        cur.execute("select %s", (object(),))
    with pytest.raises(IndexError, match="index out of range"):
        cur.execute("select %s, %s", (1,))
    with pytest.raises(TypeError, match="not all arguments converted"):
        cur.execute("select %s", (1, 2))
    with pytest.raises(KeyError, match="x"):
        cur.execute("select %(x)s", {})
    with pytest.raises(TypeError, match="argument 1 must be a string or unicode object: got int"):
        cur.execute(1)
    with pytest.raises(db.ProgrammingError, match="can't execute an empty query"):
        cur.execute("", ())
    with pytest.raises(TypeError, match="len"):
        cur.callproc("abs", 1)
    cur.close()
    with pytest.raises(db.InterfaceError, match="cursor already closed"):
        cur.execute("select %s", (object(),))


# Rows


@pytest.fixture(params=["typecaster", "row factory"])
def asking(request, conn):
    """A named cursor whose rows' values come from a query for each value."""
    cur = conn.cursor("named")
    if request.param == "typecaster":
        kind = ext.new_type((23,), "ASKED", lambda text, cur: ask(conn, "select 2 * " + str(text)))
        ext.register_type(kind, cur)
    else:
        cur.row_factory = lambda cur: Doubled(conn)
    return cur


class Doubled:
    """A row of one value, for which it asks."""

    def __init__(self, conn):
        self.conn = conn

    def __setitem__(self, place, value):
        self.value = ask(self.conn, f"select {value} * 2")

    def __getitem__(self, place):
        return self.value


FETCHES = {
    "fetchone": lambda cur: [cur.fetchone(), cur.fetchone(), cur.fetchone()],
    "fetchmany": lambda cur: cur.fetchmany(3),
    "fetchall": lambda cur: cur.fetchall(),
    "iteration": lambda cur: list(cur),
}


@pytest.mark.parametrize("name", FETCHES)
def test_rows_of_a_named_cursor_query_its_connection(conn, asking, name):
    asking.execute(SERIES, (3,))

    rows = FETCHES[name](asking)

    assert [row[0] for row in rows] == [2, 4, 6]
    assert conn._greenpg_state.holder is None


def test_large_result_queries_its_connection(conn, asking):
    asking.execute(SERIES, (2500,))

    rows = asking.fetchall()

    assert [row[0] for row in rows] == list(range(2, 5001, 2))
    assert (asking.rowcount, asking.rownumber) == (2500, 2500)


@pytest.mark.parametrize("name", ["fetchmany", "fetchall"])
def test_other_tasks_wait_until_the_rows_are_built(conn, spawn, name):
    """Another task's fetch from the same cursor would replace them."""
    jobs: list[Any] = []

    def cast(text, cur):
        if not jobs:
            jobs.append(spawn(cur.fetchone))
        return ask(conn, f"select {text}")

    cur = conn.cursor("named")
    ext.register_type(ext.new_type((23,), "ASKED", cast), cur)
    cur.execute(SERIES, (3,))

    rows = FETCHES[name](cur)

    assert rows == [(1,), (2,), (3,)]
    assert jobs[0].result() is None
