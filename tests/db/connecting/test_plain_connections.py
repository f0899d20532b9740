"""Green classes on connections that greenpg did not make, with psycopg2's results."""

from __future__ import annotations

# the base classes are psycopg2's C classes, which have no stubs
# mypy: disable-error-code="misc,name-defined"
import io
import warnings
from contextlib import closing
from datetime import datetime

import psycopg2
import pytest

import greenpg
from greenpg.errors import ConnectionFactoryWarning

C_CONNECTION = psycopg2._psycopg.connection
C_LOBJECT = psycopg2._psycopg.lobject
MANY = 5000  # rows, more than two slices
CURSORS = ["DictCursor", "RealDictCursor", "NamedTupleCursor"]
NUMBERS = f"select n from generate_series(1, {MANY}) as n"


class Derived(C_CONNECTION):
    """Derived before any patch, and called itself."""


def made_by_a_function(dsn):
    with pytest.warns(ConnectionFactoryWarning, match="is not a class"):
        return greenpg.connect(dsn, connection_factory=lambda dsn, *modes: C_CONNECTION(dsn))


def called(dsn):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConnectionFactoryWarning)
        return Derived(dsn)


@pytest.fixture(params=[made_by_a_function, called])
def plain(request, dsn):
    with closing(request.param(dsn)) as conn:
        yield conn


@pytest.fixture(params=["cursor", *CURSORS])
def cursor_class(request, db):
    home = db.extensions if request.param == "cursor" else db.extras
    return getattr(home, request.param)


def values(rows):
    """The one column of the rows, whatever they are."""
    return [row["n"] if isinstance(row, dict) else row[0] for row in rows]


@pytest.fixture(params=[None, "named"])
def cur(request, plain, cursor_class):
    return plain.cursor(request.param, cursor_factory=cursor_class)


@pytest.mark.parametrize(
    "fetch",
    [
        lambda cur: cur.fetchall(),
        lambda cur: [*cur.fetchmany(MANY - 1), cur.fetchone()],
        lambda cur: list(cur),
        lambda cur: [next(cur) for _ in range(MANY)],
    ],
    ids=["fetchall", "fetchmany", "iteration", "next"],
)
def test_results_above_a_slice_are_fetched_whole(cur, fetch):
    cur.execute(NUMBERS)

    rows = fetch(cur)

    assert values(rows) == list(range(1, MANY + 1))
    assert cur.fetchone() is None


def test_cursor_is_scrolled_and_closed(cur):
    cur.execute(NUMBERS)
    cur.scroll(MANY - 1)
    rows = [cur.fetchone()]
    cur.close()

    assert values(rows) == [MANY]
    assert cur.closed


def test_named_cursor_whose_query_failed_is_closed_as_psycopg2s(plain, cursor_class):
    outcomes = []
    for kind in (None, cursor_class):
        cur = plain.cursor("named", cursor_factory=kind)
        with pytest.raises(psycopg2.errors.DivisionByZero):
            cur.execute("select 1 / 0")
        plain.rollback()
        outcomes.append(outcome(lambda cur: cur.close(), cur))

    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("count", [1, 2, 100])
@pytest.mark.parametrize("rows", [list, iter])
def test_executemany_runs_every_row(plain, cursor_class, count, rows):
    cur = plain.cursor(cursor_factory=cursor_class)
    cur.execute("create temp table many (n int)")

    cur.executemany("insert into many values (%s)", rows([(n,) for n in range(count)]))
    cur.execute("select n from many order by n")

    assert values(cur.fetchall()) == list(range(count))


def test_stream_yields_every_row(plain, cursor_class):
    cur = plain.cursor(cursor_factory=cursor_class)

    rows = values(list(cur.stream(NUMBERS)))

    assert rows == list(range(1, MANY + 1))


def test_callproc_and_the_attributes_of_a_statement(plain, cursor_class):
    cur = plain.cursor(cursor_factory=cursor_class)

    cur.callproc("upper", ["a"])

    facts = (cur.rowcount, cur.statusmessage, cur.description[0].name, cur.connection is plain)
    assert facts == (1, "SELECT 1", "upper", True)


@pytest.mark.parametrize(
    "copy",
    [
        lambda cur: cur.copy_from(io.StringIO("1\n"), "many"),
        lambda cur: cur.copy_to(io.StringIO(), "many"),
        lambda cur: cur.copy_expert("copy many to stdout", io.StringIO()),
    ],
    ids=["copy_from", "copy_to", "copy_expert"],
)
def test_copy_raises_what_psycopg2_raises(plain, cursor_class, copy):
    plain.cursor().execute("create temp table many (n int)")
    errors = []
    for kind in (None, cursor_class):
        with pytest.raises(psycopg2.ProgrammingError) as raised:
            copy(plain.cursor(cursor_factory=kind))
        errors.append(str(raised.value))

    assert errors[0] == errors[1]


def test_copy_block_names_the_reason(plain, cursor_class):
    cur = plain.cursor(cursor_factory=cursor_class)

    with pytest.raises(psycopg2.ProgrammingError, match="needs a connection made by greenpg"):
        cur.copy("copy pg_class to stdout").__enter__()


def test_large_object_is_psycopg2s(db, plain, tmp_path):
    class Shouting(db.extensions.lobject):
        def write(self, data):
            return super().write(data.upper())

    for kind, written in ((db.extensions.lobject, "loud"), (Shouting, "LOUD")):
        with kind(plain, 0, "w") as lob:
            lob.write("loud")
            lob.truncate(lob.tell())
            lob.seek(0)
            text = lob.read()
            facts = (lob.mode, lob.oid > 0, lob.closed, lob.readable(), lob.writable())
            lob.export(str(tmp_path / "file"))
            lob.unlink()

        assert (text, (tmp_path / "file").read_text()) == (written, written)
        assert facts == ("wt", True, False, True, True)
        assert lob.closed
        assert isinstance(lob, C_LOBJECT)
        assert isinstance(lob, kind)


def outcome(call, cur):
    try:
        return call(cur)
    except psycopg2.Error as error:
        return type(error), str(error)


def test_replication_cursor_is_psycopg2s(dsn):
    extras = psycopg2.extras
    plain_class = greenpg._green_classes.original_class(extras.LogicalReplicationConnection)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConnectionFactoryWarning)
        conn = plain_class(dsn)
    cur = conn.cursor(cursor_factory=greenpg.extras.ReplicationCursor)
    calls = [
        lambda cur: cur.read_message(),
        lambda cur: cur.consume_stream(print),
        lambda cur: cur.send_feedback(),
        lambda cur: cur.start_replication_expert("nonsense", decode=True),
        lambda cur: cur.wal_end,
        lambda cur: type(cur.io_timestamp),
    ]
    outcomes = [[outcome(call, each) for call in calls] for each in (conn.cursor(), cur)]
    conn.close()

    assert outcomes[0] == outcomes[1]
    assert outcomes[1][4:] == [0, datetime]


def test_pool_names_a_factory_whose_connections_are_plain(dsn):
    factory = lambda dsn, *modes: C_CONNECTION(dsn)  # noqa: E731  as a user would write it
    with (
        pytest.warns(ConnectionFactoryWarning),
        greenpg.ConnectionPool(
            dsn, max_size=1, min_size=0, kwargs={"connection_factory": factory}, timeout=0.5
        ) as pool,
        pytest.raises(greenpg.errors.PoolTimeout) as raised,
    ):
        pool.getconn()

    assert "not a connection made by greenpg" in str(raised.value.__cause__)
