"""libpq's results as psycopg2 would show them."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

from psycopg2 import DatabaseError, Error
from psycopg2 import extensions as ext

from greenpg.errors import lookup

from .libpq import Pointer, as_pointer, libpq
from .parameters import NUMERIC

if TYPE_CHECKING:
    from .prepared import Prepared

_FIELDS: Final = {
    "severity": "S", "severity_nonlocalized": "V", "sqlstate": "C", "message_primary": "M",
    "message_detail": "D", "message_hint": "H", "statement_position": "P",
    "internal_position": "p", "internal_query": "q", "context": "W", "schema_name": "s",
    "table_name": "t", "column_name": "c", "datatype_name": "d", "constraint_name": "n",
    "source_file": "F", "source_line": "L", "source_function": "R",
}  # fmt: skip
_CELLS: Final = 1000
_UNICODE: Final = ext.UNICODE
_string_types: Final = ext.string_types
_count, _width = libpq.quick("PQntuples"), libpq.quick("PQnfields")
_type, _value = libpq.quick("PQftype"), libpq.quick("PQgetvalue")


def error_of(result: int | Pointer, encoding: str) -> Error:
    """Return the exception for a result, of the class that psycopg2 raises."""
    fields = {name: _field(result, code, encoding) for name, code in _FIELDS.items()}
    message = (libpq.PQresultErrorMessage(result) or b"").decode(encoding, "replace")
    code = fields["sqlstate"]
    base = _class_of(code or "")
    text = message[8:] if message[:8] in ("ERROR:  ", "FATAL:  ", "PANIC:  ") else message
    error: Any = _with_diag(base)(text)
    error.__setstate__({"pgerror": message, "pgcode": code})
    error.diag = SimpleNamespace(**fields)  # in place of psycopg2's Diagnostics
    return cast("Error", error)


def _class_of(code: str) -> Any:
    """Return the exception class of a SQLSTATE; of an unknown one that of the codes like it."""
    with suppress(KeyError):
        return lookup(code)
    with suppress(KeyError):
        return lookup(f"{code[:2]}000").__base__
    return DatabaseError


def _field(result: int | Pointer, code: str, encoding: str) -> str | None:
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


def columns(result: int, encoding: str) -> tuple[Any, ...]:
    """Return psycopg2's description of a result with rows (`_make_column` in its pqpath.c)."""
    return tuple(_column(result, index, encoding) for index in range(libpq.PQnfields(result)))


def _column(result: int, index: int, encoding: str) -> Any:
    kind, size = libpq.PQftype(result, index), libpq.PQfsize(result, index)
    modifier, column = libpq.PQfmod(result, index), libpq.PQftablecol(result, index)
    if modifier > 0:
        modifier -= 4
    is_numeric = kind == NUMERIC
    if size == -1:
        size = modifier >> 16 if is_numeric else modifier
    return ext.Column(
        name=libpq.PQfname(result, index).decode(encoding, "replace"),
        type_code=kind,
        internal_size=size,
        precision=(modifier >> 16) & 0xFFFF if is_numeric else None,
        scale=modifier & 0xFFFF if is_numeric else None,
        table_oid=libpq.PQftable(result, index) or None,
        table_column=column if column > 0 else None,  # not of a system column
    )


class Rows:
    """The rows of a result, each value cast as on psycopg2's cursor `cur`.

    Owns the result until `settle`, or its own end. Rows are built as they are taken. An error of
    a typecaster propagates from `take`, and the position stays unchanged.
    """

    _result: Any = None  # Ctrl-C may come before `__init__`
    _clear = libpq.quick("PQclear")  # a ctypes function is no method; at exit a global may be gone

    def __init__(self, result: Any, cur: Any, prepared: Prepared | None = None) -> None:
        self._result = result = result if type(result) is Pointer else as_pointer(result)
        self._cur, self._prepared = cur, prepared
        self._casts: list[Any] | None = None
        self._made: list[tuple[Any, ...]] | None = None
        self._position = 0
        self.count: int = _count(result)

    @property
    def few(self) -> int:
        """The number of rows with up to _CELLS values, but at least 1."""
        return _CELLS // (len(self._casters()) or 1) or 1

    def columns(self, encoding: str) -> tuple[Any, ...]:
        """Return PEP 249's description; not after `settle`."""
        return columns(self._result, encoding)

    def statusmessage(self) -> str:
        """Return the command's tag; not after `settle`."""
        return statusmessage(self._result)

    def settle(self) -> None:
        """Build the rows at once and free the result, unless there are many."""
        if self.count <= self.few:
            self._make_early()
            if self._made is not None:
                self._free()

    def one(self) -> tuple[Any, ...] | None:
        """Return the next row, None after the last."""
        position = self._position
        if position >= self.count:
            return None
        made = self._made
        row = self._row(position) if made is None else made[position]
        self._position = position + 1
        return row

    def take(self, count: int) -> list[tuple[Any, ...]]:
        """Return up to `count` of the next rows."""
        start, end = self._position, min(self._position + max(count, 0), self.count)
        found = self._make(start, end) if self._made is None else self._made[start:end]
        self._position = end
        return found

    def _make_early(self) -> None:
        try:
            self._made = self._make(0, self.count)
        except Exception:
            if self._fails():
                return  # an error of a typecaster, which `take` raises
            raise  # an exception of a signal handler

    def _fails(self) -> bool:
        try:
            self._make(0, self.count)
        except Exception:
            return True
        return False

    def _make(self, start: int, end: int) -> list[tuple[Any, ...]]:
        row = self._row
        return [row(position) for position in range(start, end)]

    def _row(self, row: int) -> tuple[Any, ...]:
        result, cur, column, cells = self._result, self._cur, 0, []
        for caster in self._casts or self._casters():  # a comprehension would be a call
            # NULL's value is an empty string (libpq manual, PQgetvalue)
            cells.append(caster(_value(result, row, column) or _empty(result, row, column), cur))
            column += 1  # noqa: SIM113  enumerate() makes a tuple each time
        return tuple(cells)

    def _casters(self) -> list[Any]:
        if self._casts is None:
            prepared = self._prepared
            if prepared is None:
                self._casts = casts_of(self._cur, self._oids())
            else:
                if prepared.oids is None:  # they stay: plancache.c, RevalidateCachedQuery
                    prepared.oids = self._oids()
                self._casts = casts_of(self._cur, prepared.oids)
        return self._casts

    def _oids(self) -> list[int]:
        return [_type(self._result, column) for column in range(_width(self._result))]

    def _free(self) -> None:
        result, self._result = self._result, None
        if result is not None:
            self._clear(result)

    def __del__(self) -> None:
        if self._result is not None:
            self._clear(self._result)


def _empty(result: Any, row: int, column: int) -> bytes | None:
    return None if libpq.PQgetisnull(result, row, column) else b""


def casts_of(cur: Any, oids: list[int]) -> list[Any]:
    """Return the typecasters of some types on a cursor."""
    of_cursor, of_connection, casts = cur.string_types, cur.connection.string_types, []
    if not (of_cursor or of_connection):
        for oid in oids:  # a comprehension would be a call
            casts.append(_string_types.get(oid, _UNICODE))  # noqa: PERF401
        return casts
    for oid in oids:
        own = (of_cursor or {}).get(oid) or (of_connection or {}).get(oid)
        casts.append(own or _string_types.get(oid, _UNICODE))
    return casts
