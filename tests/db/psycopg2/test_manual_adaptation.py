"""The manual's chapters on adapting Python objects to SQL."""

# the base classes are those of the module under test
# mypy: disable-error-code="misc,name-defined"

from __future__ import annotations

import datetime
import decimal
import uuid

import pytest


class Point:
    def __init__(self, x, y):
        self.x = x
        self.y = y


@pytest.fixture
def register(db):
    """`register_adapter`, undone after the test."""
    before = dict(db.extensions.adapters)
    yield db.extensions.register_adapter
    db.extensions.adapters.clear()
    db.extensions.adapters.update(before)


@pytest.fixture
def adapt_point(db, register):
    """The manual's adaptation function for Point."""
    adapt = db.extensions.adapt

    def function(point):
        x = adapt(point.x).getquoted().decode()
        y = adapt(point.y).getquoted().decode()
        return db.extensions.AsIs(f"'({x}, {y})'")

    register(Point, function)
    return function


@pytest.fixture
def cur(conn):
    return conn.cursor()


def test_point_is_adapted_by_a_registered_function(cur, adapt_point):
    cur.execute("create temp table atable (apoint point)")

    cur.execute("insert into atable (apoint) values (%s)", (Point(1.23, 4.56),))

    assert cur.query == b"insert into atable (apoint) values ('(1.23, 4.56)')"
    cur.execute("select apoint[0], apoint[1] from atable")
    assert cur.fetchone() == (1.23, 4.56)


def test_points_are_adapted_inside_lists_and_named_arguments(cur, adapt_point):
    cur.execute(
        "select %(where)s::point <@ any (%(boxes)s::box[])",
        {"where": Point(1.0, 1.0), "boxes": ["(0,0),(2,2)"]},
    )
    contained = cur.fetchone()
    quoted = cur.mogrify("select %s", ([Point(1, 2), Point(3, 4)],))

    assert contained == (True,)
    assert quoted == b"select ARRAY['(1, 2)','(3, 4)']"


def test_points_are_adapted_by_executemany(cur, adapt_point):
    cur.execute("create temp table atable (apoint point)")

    cur.executemany("insert into atable values (%s)", [(Point(n, n),) for n in range(3)])

    cur.execute("select apoint[0] from atable order by 1")
    assert cur.fetchall() == [(0,), (1,), (2,)]


def test_as_is_gives_the_text_unquoted(db, cur):
    wrapped = db.extensions.AsIs(42)

    assert wrapped.getquoted() == b"42"
    assert wrapped.adapted == 42
    assert cur.mogrify("select %s", (db.extensions.AsIs("now()"),)) == b"select now()"


def test_as_is_names_a_table(db, cur):
    cur.execute("select relname from %s where oid = 1259", (db.extensions.AsIs("pg_class"),))

    assert cur.fetchone() == ("pg_class",)


def test_isqlquote_subclass_adapts_by_getquoted(db, cur, register):
    class Quoted(db.extensions.ISQLQuote):
        def getquoted(self):
            return b"point " + b"'(%d,%d)'" % (self._wrapped.x, self._wrapped.y)

    register(Point, Quoted)

    cur.execute("select (%s)[1]", (Point(3, 4),))

    assert cur.fetchone() == (4.0,)


def test_object_that_conforms_to_isqlquote_is_its_own_adapter(db, cur):
    class Celsius:
        def __conform__(self, protocol):
            return self if protocol is db.extensions.ISQLQuote else None

        def getquoted(self):
            return b"36.6"

    cur.execute("select %s + 1", (Celsius(),))

    assert cur.fetchone() == (decimal.Decimal("37.6"),)


def test_object_may_conform_through_a_wrapper(db, cur):
    class Name:
        def __init__(self, text):
            self.text = text

        def __conform__(self, protocol):
            assert protocol is db.extensions.ISQLQuote
            return db.extensions.QuotedString(self.text)

    cur.execute("select %s || '!'", (Name("O'Reilly"),))

    assert cur.fetchone() == ("O'Reilly!",)


def test_object_that_does_not_conform_is_refused_by_name(db, conn, cur):
    class Mute:
        def __conform__(self, protocol):
            return None

    with pytest.raises(db.ProgrammingError, match="can't adapt type 'Mute'"):
        cur.execute("select %s", (Mute(),))

    cur.execute("select 1")
    assert cur.fetchone() == (1,)


def test_prepare_is_given_the_connection(db, conn, cur, register):
    seen = []

    class Prepared:
        def __init__(self, wrapped):
            pass

        def prepare(self, conn):
            seen.append((conn, conn.encoding, conn.server_version > 0))

        def getquoted(self):
            return b"1"

        def __conform__(self, protocol):
            return self

    register(Point, Prepared)

    cur.execute("select %s", (Point(0, 0),))

    assert seen == [(conn, "UTF8", True)]


def test_error_of_an_adapter_leaves_the_connection_usable(cur, register):
    def broken(point):
        raise LookupError("no adapter today")

    register(Point, broken)

    with pytest.raises(LookupError, match="no adapter today"):
        cur.execute("select %s", (Point(0, 0),))

    cur.execute("select 1")
    assert cur.fetchone() == (1,)


def test_quoted_string_and_binary_escape(db, conn):
    text = db.extensions.QuotedString(r"O'Reilly \ Sons")
    text.prepare(conn)
    data = db.Binary(b"\x00\x08\x0f")
    data.prepare(conn)

    assert text.getquoted() == rb"'O''Reilly \ Sons'"
    assert data.getquoted() == rb"'\x00080f'::bytea"


@pytest.mark.parametrize(
    ("value", "sql"),
    [
        (None, b"NULL"),
        (True, b"true"),
        (10, b"10"),
        (10.0, b"10.0"),
        (float("nan"), b"'NaN'::float"),
        (decimal.Decimal("10.00"), b"10.00"),
        ("it's", b"'it''s'"),
        (b"\x01", rb"'\x01'::bytea"),
        (datetime.date(2005, 11, 18), b"'2005-11-18'::date"),
        (datetime.timedelta(1, 2, 3), b"'1 days 2.000003 seconds'::interval"),
        ([10, 20, 30], b"ARRAY[10,20,30]"),
        ((10, 20, 30), b"(10, 20, 30)"),
    ],
)
def test_values_are_quoted_as_the_manual_says(cur, value, sql):
    assert cur.mogrify("%s", (value,)) == sql


def test_tuple_serves_the_in_operator(cur):
    cur.execute("select 2 in %s", ((1, 2, 3),))

    assert cur.fetchone() == (True,)


def test_uuid_and_json_helpers_adapt(db, cur, register):
    register(dict, db.extras.Json)
    register(uuid.UUID, db.extras.UUID_adapter)
    key = uuid.UUID("12345678-1234-5678-1234-567812345678")

    cur.execute("select %s::jsonb -> 'a', %s", ({"a": [1]}, key))

    assert cur.fetchone() == ([1], str(key))


def test_sql_module_composes_queries(db, conn, cur, create):
    name = create("(num int, data text)")
    table = db.sql.Identifier(*name.split("."))
    query = db.sql.SQL("insert into {} ({}) values ({})").format(
        table,
        db.sql.SQL(", ").join(map(db.sql.Identifier, ["num", "data"])),
        db.sql.SQL(", ").join([db.sql.Placeholder("n"), db.sql.Literal("it's")]),
    )

    cur.execute(query, {"n": 5})
    cur.execute(db.sql.SQL("select * from {}").format(table))

    assert cur.fetchone() == (5, "it's")
    assert query.as_string(conn) == query.as_string(cur)
