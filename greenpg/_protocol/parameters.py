"""Values whose text form means the same as the literal that psycopg2 would write."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import NoneType
from typing import Any, Final, TypeAlias, TypeVar

from psycopg2 import _psycopg
from psycopg2 import extensions as ext

_Encoder = TypeVar("_Encoder")
Encoded: TypeAlias = "tuple[int, bytes | None]"  # the literal's type, and its text

BOOL, BYTEA, INT8, INT4, FLOAT8, NUMERIC = 16, 17, 20, 23, 701, 1700
DATE, TIMESTAMP, TIMESTAMPTZ = 1082, 1114, 1184
UNKNOWN: Final = 0
NULL: Final = -1  # fits any type
CASTS: Final = {  # what psycopg2 writes behind a literal; a column without a name is named so
    BYTEA: "::bytea", FLOAT8: "::float", DATE: "::date", TIMESTAMP: "::timestamp",
    TIMESTAMPTZ: "::timestamptz",
}  # fmt: skip
_WIDER: Final = {(INT8, INT4), (NUMERIC, INT4), (NUMERIC, INT8)}

_INSERT: Final = re.compile(
    r"\s*insert\s+into\s+[^%();]+(?:\([^%();]*\)\s*)?values\s*\(\s*"
    r"(?P<items>%(?:\(\w+\))?s(?:\s*,\s*%(?:\(\w+\))?s)*)\s*\)\s*(?:on\s+conflict\s+do\s+nothing\s*)?\Z",
    re.I,
)
_ITEM: Final = re.compile(r"%(?:\((\w+)\))?s")


def _integer(value: int) -> Encoded:
    return _integer_type(value), b"%d" % value


def _integer_type(value: int) -> int:
    """Return the type of an integer literal."""
    return INT4 if -(2**31) <= value < 2**31 else INT8 if -(2**63) <= value < 2**63 else NUMERIC


def _float(value: float) -> Encoded:
    return (NUMERIC if math.isfinite(value) else FLOAT8), repr(value).encode()


def _decimal(value: Decimal) -> Encoded | None:
    if not value.is_finite():
        return None
    text = str(value)  # without a point it is an integer literal
    return _integer_type(int(value)) if text.lstrip("-").isdigit() else NUMERIC, text.encode()


def _moment(value: datetime) -> Encoded:
    return (TIMESTAMP if value.tzinfo is None else TIMESTAMPTZ), value.isoformat().encode()


_ENCODERS: Final[dict[type, tuple[Any, Callable[[Any], Encoded | None]]]] = {
    int: (ext.Int, _integer),
    float: (ext.Float, _float),
    bool: (ext.Boolean, lambda value: (BOOL, b"t" if value else b"f")),
    bytes: (ext.Binary, lambda value: (BYTEA, b"\\x" + value.hex().encode())),
    date: (ext.DateFromPy, lambda value: (DATE, value.isoformat().encode())),
    datetime: (ext.TimestampFromPy, _moment),
    Decimal: (_psycopg.Decimal, _decimal),
    NoneType: (ext.NoneAdapter, lambda _: (NULL, None)),
}


def applicable(encoders: Mapping[type, tuple[Any, _Encoder]]) -> dict[type, _Encoder]:
    """Return the encoders of the types that still have psycopg2's own adapters."""
    return {
        kind: encode
        for kind, (adapter, encode) in encoders.items()
        if ext.adapters.get((kind, ext.ISQLQuote)) is adapter
    }


_PLAIN: Final = {
    kind: ((kind, ext.ISQLQuote), adapter, encode) for kind, (adapter, encode) in _ENCODERS.items()
}
_STRING: Final = (str, ext.ISQLQuote)


def plain_value(value: Any, encoding: str) -> Encoded | None:
    """Return a value's type and text; None if psycopg2 has to write it, or fails to."""
    kind, adapters = type(value), ext.adapters
    if kind is str:
        if adapters.get(_STRING) is not ext.QuotedString or "\0" in value:
            return None
        try:
            return UNKNOWN, value.encode(encoding)
        except UnicodeEncodeError:
            return None
    found = _PLAIN.get(kind)
    if found is None or adapters.get(found[0]) is not found[1]:
        return None
    encoded: Encoded | None = found[2](value)
    return encoded


_LITERALS: Final = {kind: adapter for kind, (adapter, _) in _ENCODERS.items()} | {
    str: ext.QuotedString, bytearray: ext.Binary, memoryview: ext.Binary,
    time: ext.TimeFromPy, timedelta: ext.IntervalFromPy,
    list: _psycopg.List, tuple: ext.SQL_IN,
}  # fmt: skip


def is_literal(value: Any) -> bool:
    """Return True if psycopg2 writes a value as one literal, or as a list of such."""
    kind = type(value)
    adapter = _LITERALS.get(kind)
    if adapter is None or ext.adapters.get((kind, ext.ISQLQuote)) is not adapter:
        return False
    return kind not in (list, tuple) or all(map(is_literal, value))


class PlainInsert:
    """An INSERT of one row whose values are all placeholders, as a statement with $1, $2...

    In such a statement a typed value means the same as its literal. A value with an adapter
    other than psycopg2's own has no plain form. test_many.py compares both forms.
    """

    def __init__(self, sql: bytes, keys: list[str] | None, width: int, encoding: str) -> None:
        self.sql = sql
        self.types: tuple[int, ...] = ()
        self._keys = keys
        self._width = width
        self._encoding = encoding
        self._encoders = applicable(_ENCODERS | {str: (ext.QuotedString, self._text)})

    @classmethod
    def of(cls, conn: Any, query: str) -> PlainInsert | None:
        """Return the statement, None if it does not have the plain form."""
        found = _INSERT.match(query)
        if found is None:
            return None
        names = [item[1] for item in _ITEM.finditer(found["items"])]
        if None in names and any(names):
            return None
        marks = ", ".join(f"${n}" for n in range(1, len(names) + 1))
        sql = query[: found.start("items")] + marks + query[found.end("items") :]
        encoding = ext.encodings[conn.encoding]
        return cls(sql.encode(encoding), names if any(names) else None, len(names), encoding)

    def _text(self, value: str) -> Encoded | None:
        return None if "\0" in value else (UNKNOWN, value.encode(self._encoding))

    def encoded(self, row: Any) -> list[Encoded] | None:
        """Return the row's values, or None if psycopg2 has to write them."""
        if self._keys is not None:
            if not isinstance(row, Mapping):
                return None
            row = [row[key] for key in self._keys]
        elif type(row) not in (tuple, list):
            return None
        if len(row) != self._width:
            return None
        made, encoders = [], self._encoders
        for value in row:
            encode = encoders.get(type(value))
            if encode is None or (one := encode(value)) is None:
                return None
            made.append(one)
        return made

    def fits(self, row: list[Encoded]) -> bool:
        """Return True if the types last prepared fit this row."""
        if len(self.types) != self._width:
            return False
        for kind, (own, _) in zip(self.types, row, strict=True):
            if own != kind and own != NULL and (kind, own) not in _WIDER:
                return False
        return True

    def adopt(self, row: list[Encoded]) -> tuple[int, ...]:
        """Choose this row's types for the next preparation."""
        self.types = tuple(UNKNOWN if kind == NULL else kind for kind, _ in row)
        return self.types

    def forget(self) -> None:
        """Note that the unnamed statement has been replaced."""
        self.types = ()
