"""COPY's text format, without a server."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from enum import IntEnum
from types import SimpleNamespace

import psycopg2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg2 import extensions as ext
from psycopg2.extras import DateRange, Json, NumericRange

from greenpg._protocol.copy_text import Formatter, Lines, fields


class Offline(psycopg2.extensions.connection):
    """A connection that was never opened: enough for the adapters."""

    encoding = "UTF8"

    def __init__(self):
        pass

    def get_parameter_status(self, name):
        return "on"


def formatter(encoding="UTF8"):
    conn = Offline()
    Offline.encoding = encoding
    return Formatter(conn)


def row(*values):
    return formatter().row(values).decode()


SPECIAL = st.text(st.sampled_from("ab\\\t\n\r\b\v\fN.'\"{},é\u2603"), max_size=12)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | SPECIAL
rows = st.lists(st.none() | texts, min_size=1, max_size=6)


@given(rows)
def test_fields_of_a_row_are_its_values(values):
    written = row(*values)

    assert written.endswith("\n")
    assert list(fields(written[:-1])) == values


@given(rows)
def test_row_is_one_line_with_a_tab_between_fields(values):
    written = row(*values)

    assert written.count("\n") == 1
    assert written.count("\t") == len(values) - 1


@given(st.lists(rows, max_size=8), st.lists(st.integers(1, 40), min_size=1))
def test_lines_come_whole_out_of_blocks_cut_anywhere(table, sizes):
    data = b"".join(formatter().row(values) for values in table)
    lines, found = Lines("utf-8"), []

    position = turn = 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        found += lines.feed(data[position : position + size])
        position, turn = position + size, turn + 1

    assert [list(fields(line)) for line in found] == table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\\N"),
        ("", ""),
        ("\\N", "\\\\N"),
        ("\\.", "\\\\."),
        ("a\tb\nc\rd\\", "a\\tb\\nc\\rd\\\\"),
        (True, "t"),
        (False, "f"),
        (-5, "-5"),
        (2**70, str(2**70)),
        (1.5, "1.5"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (Decimal("1.10"), "1.10"),
        (b"\0a\\", "\\\\x00615c"),
        (bytearray(b"a"), "\\\\x61"),
        (memoryview(b"a"), "\\\\x61"),
        (dt.date(2020, 1, 2), "2020-01-02"),
        (dt.time(1, 2, 3), "01:02:03"),
        (dt.datetime(2020, 1, 2, 3, 4, 5, 6), "2020-01-02T03:04:05.000006"),
        (dt.datetime(2020, 1, 2, tzinfo=dt.timezone.utc), "2020-01-02T00:00:00+00:00"),
        (dt.timedelta(-1, 3, 4), "-1 days 3.000004 seconds"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ([], "{}"),
        ([1, None, 3], "{1,NULL,3}"),
        ([[1, 2], [3, 4]], "{{1,2},{3,4}}"),
        (["", "null", "a b", 'q"', "b\\", "{"], '{"","null","a b","q\\\\"","b\\\\\\\\","{"}'),
        ((1, None, "x y", ""), '(1,,"x y","")'),
        (["plain", (1, "a,b")], '{plain,"(1,\\\\"a,b\\\\")"}'),
        (NumericRange(1, 5), "[1,5)"),
        (NumericRange(None, 5, "(]"), "(,5]"),
        (NumericRange(empty=True), "empty"),
        (DateRange(dt.date(2020, 1, 2), None), "[2020-01-02,)"),
        (Json({"a": "it's"}), '{"a": "it\'s"}'),
    ],
)
def test_value_as_text(value, text):
    assert row(value) == text + "\n"


def test_row_without_fields():
    assert row() == "\n"


class Colour(IntEnum):
    RED = 1


class Name(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "text"),
    [(Colour.RED, "1"), (Name("it's"), "it's"), (ext.AsIs("-2e5"), "-2e5")],
)
def test_type_without_an_entry_is_written_by_its_adapter(value, text):
    assert row(value) == text + "\n"


@pytest.fixture
def adapter():
    """Register adapters; they are gone after the test."""
    before = dict(ext.adapters)
    yield ext.register_adapter
    ext.adapters.clear()
    ext.adapters.update(before)


@pytest.mark.parametrize(
    ("literal", "text"),
    [
        ("'(1,2)'", "(1,2)"),
        ("'it''s'::text", "it's"),
        ("'x'::my_schema.\"My type\"[]", "x"),
        (" E'a\\\\b'", "a\\\\b"),
        ("'a\\b'", "a\\\\b"),
        ("-1.5e3", "-1.5e3"),
        ("true", "true"),
        ("NULL", "\\N"),
    ],
)
def test_registered_adapter_is_taken_at_its_word(adapter, literal, text):
    class Point:
        pass

    adapter(Point, lambda value: ext.AsIs(literal))

    assert row(Point(), False) == f"{text}\tf\n"


@pytest.mark.parametrize("literal", ["point(1, 2)", "'a' || 'b'", "now()", "'a'b'", ""])
def test_expression_has_no_text(adapter, literal):
    class Point:
        pass

    adapter(Point, lambda value: ext.AsIs(literal))

    with pytest.raises(psycopg2.ProgrammingError, match="type 'Point' has no COPY text"):
        row(Point())


def test_registered_adapter_replaces_the_own_form(adapter):
    adapter(int, lambda value: ext.AsIs(str(value * 2)))

    assert row(21) == "42\n"


def test_type_without_an_adapter_is_psycopg2s_error():
    with pytest.raises(psycopg2.ProgrammingError, match=r"can't adapt type 'types\.SimpleN"):
        row(SimpleNamespace())


def test_row_is_in_the_connections_encoding():
    assert formatter("LATIN1").row(["h\xf6"]) == b"h\xf6\n"
    with pytest.raises(UnicodeEncodeError):
        formatter("LATIN1").row(["\u2603"])


def test_lines_are_decoded_from_the_connections_encoding():
    assert Lines("iso8859_1").feed(b"h\xf6\tx\nrest") == ["h\xf6\tx"]
