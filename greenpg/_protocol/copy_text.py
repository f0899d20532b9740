"""COPY's text format (PostgreSQL manual, COPY): Python values to rows, and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, TypeAlias
from uuid import UUID

from psycopg2 import ProgrammingError, _psycopg
from psycopg2 import extensions as ext
from psycopg2.extras import Range

from .parameters import applicable

Encoder: TypeAlias = Callable[[Any], str]

OIDS: Final = {
    "bool": 16, "bytea": 17, "int8": 20, "int2": 21, "int4": 23, "text": 25, "oid": 26,
    "json": 114, "float4": 700, "float8": 701, "bpchar": 1042, "varchar": 1043, "date": 1082,
    "time": 1083, "timestamp": 1114, "timestamptz": 1184, "interval": 1186, "timetz": 1266,
    "numeric": 1700, "uuid": 2950, "jsonb": 3802,
}  # fmt: skip
_NULL: Final = "\\N"
_ESCAPES: Final = {
    "\b": "\\b", "\t": "\\t", "\n": "\\n", "\v": "\\v", "\f": "\\f", "\r": "\\r", "\\": "\\\\",
}  # fmt: skip
_MEANINGS: Final = {escape[1]: character for character, escape in _ESCAPES.items()}
_SPECIAL: Final = re.compile("[\b\t\n\v\f\r\\\\]")
_ESCAPED: Final = re.compile(r"\\(.)", re.S)
_IN_ARRAY: Final = re.compile(r'[{},"\\\s]|\Anull\Z|\A\Z', re.I)
_IN_RECORD: Final = re.compile(r'[()\[\],"\\\s]|\A\Z')
_STRING: Final = re.compile(r""" ?(E?)'(.*)'(?:::[\w\[\]". ]+)?""", re.S)
_PLAIN: Final = re.compile(r" ?(-?[\d.]+(?:e[-+]?\d+)?|true|false)", re.I)


def _escape(found: re.Match[str]) -> str:
    return _ESCAPES[found[0]]


def _meaning(found: re.Match[str]) -> str:
    return _MEANINGS.get(found[1], found[1])


def fields(line: str) -> tuple[str | None, ...]:
    """Return the fields of a row, given without its line end; None for a null."""
    parts = line.split("\t")
    if "\\" not in line:
        return tuple(parts)
    return tuple(None if part == _NULL else _ESCAPED.sub(_meaning, part) for part in parts)


class Lines:
    """Splits blocks of data, which may end anywhere, into lines."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._rest: list[bytes] = []  # of a line that continues in the next block

    def feed(self, block: bytes) -> list[str]:
        """Return the lines that are now complete, without their line ends."""
        whole, end, rest = block.rpartition(b"\n")
        if not end:
            self._rest.append(block)
            return []
        data = b"".join([*self._rest, whole])
        self._rest = [rest]
        return data.decode(self._encoding).split("\n")


def _binary(value: Any) -> str:
    return "\\x" + bytes(value).hex()


def _interval(value: timedelta) -> str:
    return f"{value.days} days {value.seconds}.{value.microseconds:06} seconds"


_OWN: Final[dict[type, tuple[Any, Encoder]]] = {
    str: (ext.QuotedString, str),
    int: (ext.Int, str),
    float: (ext.Float, repr),
    bool: (ext.Boolean, lambda value: "t" if value else "f"),
    bytes: (ext.Binary, _binary),
    bytearray: (ext.Binary, _binary),
    memoryview: (ext.Binary, _binary),
    Decimal: (_psycopg.Decimal, str),
    date: (ext.DateFromPy, date.isoformat),
    time: (ext.TimeFromPy, time.isoformat),
    datetime: (ext.TimestampFromPy, datetime.isoformat),
    timedelta: (ext.IntervalFromPy, _interval),
    UUID: (None, str),
}


class Formatter:
    """Writes rows of Python values as psycopg 3 does, with psycopg2's adapters.

    A list becomes an array and a tuple a composite value. For other types the literal that the
    adapter writes is used if it is a string, a number or a boolean.
    """

    def __init__(self, conn: Any) -> None:
        self._conn = conn
        self._encoding = ext.encodings[conn.encoding]
        self._plain = conn.get_parameter_status("standard_conforming_strings") == "on"
        self._encoders = applicable(_OWN)

    def row(self, values: Iterable[Any]) -> bytes:
        """Return the row with its line end; ProgrammingError for a value that has no text form."""
        encoders = self._encoders
        parts = []
        for value in values:
            encode = encoders.get(type(value), self._text)
            text = None if value is None else encode(value)
            parts.append(_NULL if text is None else _SPECIAL.sub(_escape, text))
        return ("\t".join(parts) + "\n").encode(self._encoding)

    def _text(self, value: Any) -> str | None:
        if value is None:
            return None
        encode = self._encoders.get(type(value))
        if encode is not None:
            return encode(value)
        if isinstance(value, list):
            return "{" + ",".join(map(self._element, value)) + "}"
        if isinstance(value, tuple):
            return "(" + ",".join(self._part(part) for part in value) + ")"
        if isinstance(value, Range):
            return self._range(value)
        return self._adapted(value)

    def _element(self, value: Any) -> str:
        if isinstance(value, list):
            return self._text(value) or ""
        text = self._text(value)
        return "NULL" if text is None else _quoted(text, _IN_ARRAY)

    def _part(self, value: Any) -> str:
        text = self._text(value)
        return "" if text is None else _quoted(text, _IN_RECORD)

    def _range(self, value: Any) -> str:
        if value.isempty:
            return "empty"
        start, end = "[" if value.lower_inc else "(", "]" if value.upper_inc else ")"
        return f"{start}{self._part(value.lower)},{self._part(value.upper)}{end}"

    def _adapted(self, value: Any) -> str | None:
        adapter: Any = ext.adapt(value)
        if hasattr(adapter, "prepare"):
            adapter.prepare(self._conn)
        literal = adapter.getquoted().decode(self._encoding)
        if literal == "NULL":
            return None
        plain = _PLAIN.fullmatch(literal)
        text = plain[1] if plain is not None else _unquoted(literal, self._plain)
        if text is None:
            name = type(value).__name__
            raise ProgrammingError(f"type {name!r} has no COPY text: {literal[:60]}; give a str")
        return text


def _quoted(text: str, special: re.Pattern[str]) -> str:
    if special.search(text) is None:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unquoted(literal: str, plain: bool) -> str | None:
    """Return the value of a string literal, None for other text; `plain`: without escapes."""
    found = _STRING.fullmatch(literal)
    if found is None or "'" in found[2].replace("''", ""):
        return None
    text = found[2].replace("''", "'")
    return text if plain and not found[1] else text.replace("\\\\", "\\")
