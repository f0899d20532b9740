"""Which INSERTs and values have a plain text form, without a server."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from enum import IntEnum
from types import SimpleNamespace

import pytest
from psycopg2 import extensions as ext
from psycopg2.extras import Json

from greenpg._protocol.parameters import (
    BOOL,
    BYTEA,
    DATE,
    FLOAT8,
    INT4,
    INT8,
    NULL,
    NUMERIC,
    TIMESTAMP,
    TIMESTAMPTZ,
    UNKNOWN,
    PlainInsert,
)

CONN = SimpleNamespace(encoding="UTF8")
UTC = dt.timezone.utc


class Colour(IntEnum):
    RED = 1


class Name(str):
    __slots__ = ()


def insert(query="insert into t values (%s)", conn=CONN):
    plain = PlainInsert.of(conn, query)
    assert plain is not None
    return plain


def one(value):
    found = insert().encoded((value,))
    return None if found is None else found[0]


@pytest.mark.parametrize(
    ("query", "sql"),
    [
        ("insert into t values (%s)", b"insert into t values ($1)"),
        ("INSERT INTO t(a, b) VALUES(%s,%s)", b"INSERT INTO t(a, b) VALUES($1, $2)"),
        ('\ninsert into s."T" (a)\nvalues ( %s )\n', b'\ninsert into s."T" (a)\nvalues ( $1 )\n'),
        ("insert into t values (%(b)s, %(a)s, %(b)s)", b"insert into t values ($1, $2, $3)"),
        (
            "insert into t values (%s) on conflict do nothing",
            b"insert into t values ($1) on conflict do nothing",
        ),
    ],
)
def test_placeholders_become_parameters(query, sql):
    assert insert(query).sql == sql


@pytest.mark.parametrize(
    "query",
    [
        "update t set a = %s",
        "insert into t values (%s), (%s)",
        "insert into t values (%s, 1)",
        "insert into t values (lower(%s))",
        "insert into t values (%s::int)",
        "insert into t values (%s) returning a",
        "insert into t values (%s, %(a)s)",
        "insert into t select %s",
        "insert into t values (%s); select 1",
        "insert into t values (%%)",
        "insert into t values ('%s')",
        "insert into t default values",
    ],
)
def test_other_statements_are_not_plain(query):
    assert PlainInsert.of(CONN, query) is None


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (0, INT4, b"0"),
        (-(2**31), INT4, b"-2147483648"),
        (2**31, INT8, b"2147483648"),
        (-(2**63), INT8, b"-9223372036854775808"),
        (2**63, NUMERIC, b"9223372036854775808"),
        (1.5, NUMERIC, b"1.5"),
        (float("nan"), FLOAT8, b"nan"),
        (float("-inf"), FLOAT8, b"-inf"),
        (Decimal("1.50"), NUMERIC, b"1.50"),
        (True, BOOL, b"t"),
        (False, BOOL, b"f"),
        (b"\0\xff", BYTEA, b"\\x00ff"),
        ("it's \\ 100 %", UNKNOWN, b"it's \\ 100 %"),
        ("\u2603", UNKNOWN, "\u2603".encode()),
        (dt.date(5, 1, 2), DATE, b"0005-01-02"),
        (dt.datetime(2020, 1, 2, 3, 4, 5, 6), TIMESTAMP, b"2020-01-02T03:04:05.000006"),
        (dt.datetime(2020, 1, 2, tzinfo=UTC), TIMESTAMPTZ, b"2020-01-02T00:00:00+00:00"),
        (None, NULL, None),
    ],
)
def test_plain_values_have_the_type_of_their_literal(value, kind, text):
    assert one(value) == (kind, text)


@pytest.mark.parametrize(
    "value",
    [
        Colour.RED, Name("x"), "a\0b", [1], (1,), {"a": 1}, Json({}), Decimal("nan"),
        dt.time(1), dt.timedelta(1), bytearray(b"x"), memoryview(b"x"), object(),
    ],
)  # fmt: skip
def test_other_values_are_psycopg2s(value):
    assert one(value) is None


@pytest.mark.parametrize("row", [(), (1, 2), "a", iter([1]), {"a": 1}, None, 5])
def test_rows_of_another_shape_are_psycopg2s(row):
    assert insert().encoded(row) is None


def test_named_values_are_taken_in_the_statements_order():
    plain = insert("insert into t values (%(b)s, %(a)s, %(b)s)")

    assert plain.encoded({"a": 1, "b": True, "c": 0}) == [(BOOL, b"t"), (INT4, b"1"), (BOOL, b"t")]
    assert plain.encoded((1, 2, 3)) is None


def test_text_is_in_the_connections_encoding():
    latin = insert(conn=SimpleNamespace(encoding="LATIN1"))

    assert latin.encoded(("\u00e9",)) == [(UNKNOWN, b"\xe9")]


@pytest.mark.parametrize("kind", [int, str])
def test_adapter_registered_again_has_no_plain_form(monkeypatch, kind):
    monkeypatch.setitem(ext.adapters, (kind, ext.ISQLQuote), lambda value: ext.AsIs("7"))

    assert one(kind()) is None
    assert one(True) is not None


def test_first_row_chooses_the_types():
    plain = insert("insert into t values (%s, %s)")
    first = plain.encoded((1, None))

    assert not plain.fits(first)
    assert plain.adopt(first) == (INT4, UNKNOWN)
    assert plain.fits(first)


@pytest.mark.parametrize(
    ("chosen", "value", "fits"),
    [
        (2**40, 1, True),
        (1.5, 1, True),
        (1.5, 2**40, True),
        (1, 2**40, False),
        (1, 1.5, False),
        (1, None, True),
        (None, 1, False),
        (None, "x", True),
        ("x", 1, False),
        (1, "x", False),
        (1.5, float("nan"), False),
        (float("nan"), 1.5, False),
        (True, 1, False),
    ],
)
def test_types_serve_narrower_values_only(chosen, value, fits):
    plain = insert()
    plain.adopt(plain.encoded((chosen,)))

    assert plain.fits(plain.encoded((value,))) is fits


def test_forgotten_types_serve_nothing():
    plain = insert()
    row = plain.encoded((1,))
    plain.adopt(row)

    plain.forget()

    assert not plain.fits(row)
