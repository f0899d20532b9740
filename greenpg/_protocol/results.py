"""libpq's results as psycopg2 would show them."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from types import SimpleNamespace
from typing import Any, Final, cast

from psycopg2 import DatabaseError, Error
from psycopg2 import extensions as ext

from greenpg.errors import lookup

from .libpq import libpq

_FIELDS: Final = {
    "severity": "S", "severity_nonlocalized": "V", "sqlstate": "C", "message_primary": "M",
    "message_detail": "D", "message_hint": "H", "statement_position": "P",
    "internal_position": "p", "internal_query": "q", "context": "W", "schema_name": "s",
    "table_name": "t", "column_name": "c", "datatype_name": "d", "constraint_name": "n",
    "source_file": "F", "source_line": "L", "source_function": "R",
}  # fmt: skip
_CELLS: Final = 1000


def error_of(result: int, encoding: str) -> Error:
    """Return the exception for a result, of the class that psycopg2 raises."""
    fields = {name: _field(result, code, encoding) for name, code in _FIELDS.items()}
    message = (libpq.PQresultErrorMessage(result) or b"").decode(encoding, "replace")
    code = fields["sqlstate"]
    base: Any = DatabaseError
    with suppress(KeyError):
        base = lookup(code or "")
    text = message[8:] if message[:8] in ("ERROR:  ", "FATAL:  ", "PANIC:  ") else message
    error: Any = _with_diag(base)(text)
    error.__setstate__({"pgerror": message, "pgcode": code})
    error.diag = SimpleNamespace(**fields)  # in place of psycopg2's Diagnostics
    return cast("Error", error)


def _field(result: int, code: str, encoding: str) -> str | None:
    value = libpq.PQresultErrorField(result, ord(code))
    return None if value is None else str(value, encoding, "replace")


@cache
def _with_diag(base: type) -> type:
    """Return a subclass whose `diag` can be set: the base's reads its C result (error_type.c)."""
    content = {"diag": None, "__module__": base.__module__, "__reduce__": _reduce}
    return type(base.__name__, (base,), content)


def _reduce(error: Any) -> Any:
    return type(error).__bases__[0], error.args, {"pgerror": error.pgerror, "pgcode": error.pgcode}


def rowcount(result: int) -> int:
    """Return the number of rows a command touched or returned, -1 if unknown."""
    return int(libpq.PQcmdTuples(result) or -1)


def statusmessage(result: int) -> str:
    """Return the command's tag."""
    return str(libpq.PQcmdStatus(result), "utf-8", "replace")


def columns(result: int, encoding: str) -> tuple[Any, ...] | None:
    """Return PEP 249's description; None for a result without columns."""
    made = tuple(
        ext.Column(
            name=libpq.PQfname(result, index).decode(encoding, "replace"),
            type_code=libpq.PQftype(result, index),
            internal_size=libpq.PQfsize(result, index),
        )
        for index in range(libpq.PQnfields(result))
    )
    return made or None


class Rows:
    """The rows of a result, each value cast as on psycopg2's cursor `cur`.

    Owns the result until `settle`, or its own end. Up to `few` rows are built at once, more rows
    as they are taken. An error of a typecaster propagates from `take`, and the position stays
    unchanged.
    """

    _result = 0  # Ctrl-C may come before `__init__`

    def __init__(self, result: int, cur: Any) -> None:
        self._clear, self._result = libpq.PQclear, result
        self._cur = cur
        width = libpq.PQnfields(result)
        self._casts = [cast_of(cur, libpq.PQftype(result, i)) for i in range(width)]
        self._position, self._end = 0, libpq.PQntuples(result)
        self.count = self._end
        self.few = max(_CELLS // max(width, 1), 1)  # rows with up to _CELLS values
        self._made: list[tuple[Any, ...]] | None = None
        if self._end <= self.few:
            self._make_early()

    def columns(self, encoding: str) -> tuple[Any, ...] | None:
        """Return PEP 249's description; not after `settle`."""
        return columns(self._result, encoding)

    def statusmessage(self) -> str:
        """Return the command's tag; not after `settle`."""
        return statusmessage(self._result)

    def settle(self) -> None:
        """Free the result if all rows have been built."""
        if self._made is not None:
            self._free()

    def one(self) -> tuple[Any, ...] | None:
        """Return the next row, None after the last."""
        made, position = self._made, self._position
        if made is None:
            return next(iter(self.take(1)), None)
        if position >= self._end:
            return None
        self._position = position + 1
        return made[position]

    def take(self, count: int) -> list[tuple[Any, ...]]:
        """Return up to `count` of the next rows."""
        start, end = self._position, min(self._position + max(count, 0), self._end)
        found = self._make(start, end) if self._made is None else self._made[start:end]
        self._position = end
        return found

    def _make_early(self) -> None:
        try:
            self._made = self._make(0, self._end)
        except Exception:
            if self._fails():
                return  # an error of a typecaster, which `take` raises
            raise  # an exception of a signal handler

    def _fails(self) -> bool:
        try:
            self._make(0, self._end)
        except Exception:
            return True
        return False

    def _make(self, start: int, end: int) -> list[tuple[Any, ...]]:
        value, missing, result, cur = libpq.PQgetvalue, libpq.PQgetisnull, self._result, self._cur
        return [
            tuple(
                # NULL's value is an empty string (libpq manual, PQgetvalue)
                cast(value(result, row, i) or (None if missing(result, row, i) else b""), cur)
                for i, cast in enumerate(self._casts)
            )
            for row in range(start, end)
        ]

    def _free(self) -> None:
        result, self._result = self._result, 0
        if result:
            self._clear(result)

    def __del__(self) -> None:
        self._free()


def cast_of(cur: Any, oid: int) -> Any:
    """Return the typecaster of a type on a cursor."""
    for registry in (cur.string_types, cur.connection.string_types, ext.string_types):
        if registry is not None and oid in registry:
            return registry[oid]
    return ext.UNICODE
