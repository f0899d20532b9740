"""The manual's chapter on casting SQL types into Python objects."""

from __future__ import annotations

import datetime as dt
import re
from ipaddress import ip_interface, ip_network
from typing import NamedTuple

import pytest

POINT_OID = 600
POINTS_OID = 1017
MACADDRS_OID = 1040
ONE = "select '(10.2,20.3)'::point"


class Point(NamedTuple):
    x: float
    y: float


@pytest.fixture
def cast_point(db):
    """The manual's function from PostgreSQL's text to a Point."""

    def cast(value, cur):
        if value is None:
            return None
        found = re.match(r"\(([^)]+),([^)]+)\)", value)
        if not found:
            raise db.InterfaceError(f"bad point representation: {value!r}")
        return Point(float(found[1]), float(found[2]))

    return cast


@pytest.fixture
def point_type(db, cast_point):
    return db.extensions.new_type((POINT_OID,), "POINT", cast_point)


@pytest.fixture
def register(db):
    """`register_type`; global registrations are undone after the test."""
    before = dict(db.extensions.string_types)
    yield db.extensions.register_type
    db.extensions.string_types.clear()
    db.extensions.string_types.update(before)


def one(cur, query=ONE):
    cur.execute(query)
    return cur.fetchone()[0]


def test_oid_of_a_type_is_in_the_description(conn):
    cur = conn.cursor()

    cur.execute("select null::point")

    assert cur.description[0][1] == cur.description[0].type_code == POINT_OID


def test_oid_of_a_type_is_in_the_catalogue(conn):
    cur = conn.cursor()

    cur.execute(
        "select pg_type.oid from pg_type join pg_namespace on typnamespace = pg_namespace.oid"
        " where typname = %(typename)s and nspname = %(namespace)s",
        {"typename": "point", "namespace": "pg_catalog"},
    )

    assert cur.fetchone()[0] == POINT_OID


def test_type_registered_for_all_casts_on_every_connection(conn, connect, point_type, register):
    register(point_type)

    assert one(conn.cursor()) == Point(10.2, 20.3)
    assert one(connect().cursor()) == Point(10.2, 20.3)


def test_type_registered_per_connection_casts_there_only(conn, connect, point_type, register):
    register(point_type, conn)

    assert one(conn.cursor()) == Point(10.2, 20.3)
    assert one(connect().cursor()) == "(10.2,20.3)"
    assert conn.string_types[POINT_OID] is point_type


def test_type_registered_per_cursor_casts_there_only(conn, point_type, register):
    cur = conn.cursor()

    register(point_type, cur)

    assert one(cur) == Point(10.2, 20.3)
    assert one(conn.cursor()) == "(10.2,20.3)"


def test_cursors_type_wins_over_the_connections(db, conn, point_type, register):
    cur = conn.cursor()
    register(point_type, conn)

    register(db.extensions.new_type((POINT_OID,), "NOTHING", lambda value, cur: "mine"), cur)

    assert one(cur) == "mine"
    assert one(conn.cursor()) == Point(10.2, 20.3)


def test_null_is_given_to_the_cast_function_as_none(conn, point_type, register):
    register(point_type, conn)

    assert one(conn.cursor(), "select null::point") is None


def test_array_type_casts_its_elements(db, conn, point_type, register):
    points = db.extensions.new_array_type((POINTS_OID,), "POINT[]", point_type)
    register(points, conn)

    found = one(conn.cursor(), "select array['(1,2)', null, '(3,4)']::point[]")

    assert found == [Point(1, 2), None, Point(3, 4)]


def test_array_type_over_string_gives_lists_of_texts(db, conn, register):
    macs = db.extensions.new_array_type((MACADDRS_OID,), "MACADDR[]", db.STRING)
    register(macs, conn)

    found = one(conn.cursor(), "select array['08:00:2b:01:02:03']::macaddr[]")

    assert found == ["08:00:2b:01:02:03"]


def test_numeric_can_be_cast_to_float(db, conn, register):
    dec2float = db.extensions.new_type(
        db.extensions.DECIMAL.values,
        "DEC2FLOAT",
        lambda value, cur: float(value) if value is not None else None,
    )
    register(dec2float, conn)

    found = one(conn.cursor(), "select 1.5::numeric")

    assert (found, type(found)) == (1.5, float)


def test_cast_function_is_given_the_cursor(db, conn, register):
    seen = []
    cur = conn.cursor()
    register(db.extensions.new_type((POINT_OID,), "SEEN", lambda value, cur: seen.append(cur)), cur)

    one(cur)

    assert seen == [cur]


def test_error_of_a_cast_function_propagates_from_the_fetch(db, conn, register):
    def refuse(value, cur):
        raise db.InterfaceError(f"bad point representation: {value!r}")

    cur = conn.cursor()
    register(db.extensions.new_type((POINT_OID,), "REFUSED", refuse), cur)
    cur.execute(ONE)

    with pytest.raises(db.InterfaceError, match="bad point representation"):
        cur.fetchone()

    assert one(cur, "select 1") == 1


def test_named_cursor_casts_too(conn, point_type, register):
    cur = conn.cursor("points")
    register(point_type, cur)

    cur.execute("select point(n, n) from generate_series(1, 3) as n")

    assert cur.fetchmany(2) == [(Point(1, 1),), (Point(2, 2),)]
    assert list(cur) == [(Point(3, 3),)]


def test_type_object_compares_equal_to_its_oids(db, conn, point_type):
    cur = conn.cursor()
    cur.execute("select null::point, 1, 'a'")

    columns = [column[1] for column in cur.description]

    assert [columns[0] == point_type, columns[1] == db.NUMBER, columns[2] == db.STRING] == [
        True
    ] * 3
    assert point_type.name == "POINT"
    assert point_type.values == (POINT_OID,)


def test_type_object_may_be_called(conn, point_type):
    assert point_type("(1,2)", conn.cursor()) == Point(1, 2)


def test_composite_and_json_and_uuid_casters_look_types_up(db, conn, create, register):
    name = create("(x int, y text)")
    cur = conn.cursor()

    caster = db.extras.register_composite(name, cur)
    db.extras.register_default_jsonb(cur, loads=lambda text: f"json {text}")
    db.extras.register_uuid(conn_or_curs=cur)
    cur.execute(f"select row(1, 'a')::{name}, '[]'::jsonb, gen_random_uuid()")
    pair, json, key = cur.fetchone()

    assert pair == caster.type(1, "a")
    assert json == "json []"
    assert key.version == 4


def test_range_caster_reads_and_writes_ranges(db, conn, create, register):
    name = create("as range (subtype = float8)", "type")
    cur = conn.cursor()

    floats = db.extras.register_range(name, "FloatRange", cur)
    cur.execute(f"select %s::{name}", (floats.range(0.5, 2.5),))

    assert cur.fetchone() == (floats.range(0.5, 2.5),)


def test_networks_come_as_addresses_and_networks(db, conn, register):
    cur = conn.cursor()
    db.extras.register_ipaddress(cur)
    values = (ip_interface("10.0.0.1/8"), ip_network("10.0.0.0/8"), ip_interface("::1/128"))

    cur.execute("select %s::inet, %s::cidr, %s::inet", values)

    assert cur.fetchone() == values


def test_ranges_and_json_of_the_server_need_no_registration(db, conn):
    numbers, dates = db.extras.NumericRange(1, 5), db.extras.DateRange(dt.date(2020, 1, 2), None)
    document = {"a": [1, None]}
    cur = conn.cursor()

    query = "select %s::int4range, %s::daterange, %s::jsonb"
    cur.execute(query, (numbers, dates, db.extras.Json(document)))

    assert cur.fetchone() == (numbers, dates, document)
