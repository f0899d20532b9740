"""Fetches of named cursors: the statement is an operation, the rows are built outside the driver.

psycopg2 builds the rows after it has given its mutex back, so typecasters and row factories may
use the connection. It says when it begins by calling the cursor's row factory.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ._large_results import SLICE_ROWS
from ._psycopg2.psycopg2_c import c_cursor
from ._session.time_slice import TimeSlice

if TYPE_CHECKING:
    from ._psycopg2.state import State

_T = TypeVar("_T")
ALL: Final = 2**31 - 1  # the largest number in a FETCH (PostgreSQL's gram.y, SignedIconst)
_next: Final[Any] = c_cursor.__next__
_c: Final[Any] = c_cursor  # whose attributes a user's class may have replaced
_at_most: Final[Any] = _c.itersize
_factory: Final[Any] = _c.row_factory
_rowcount: Final[Any] = _c.rowcount.__get__
_rownumber: Final[Any] = _c.rownumber.__get__


class _Row(list[Any]):
    """The first row of a fetch, if rows are tuples."""


class _Dropped(Exception):
    """In place of a row that nobody wants."""


class _FirstRow:
    """The row factory until the first row, with which psycopg2 leaves the connection alone."""

    __slots__ = ("left", "state", "usual")

    def __init__(self, state: State, usual: Any) -> None:
        self.state = state
        self.left = False
        self.usual: Any = usual
        if isinstance(usual, _FirstRow):  # Ctrl-C has left it there
            self.usual = usual.usual

    def __call__(self, cur: Any) -> Any:
        state = self.state
        self.left = state.exit_needs_check = True
        state.depth += 1
        state.in_driver = False  # no call since `left`, hence no Ctrl-C
        if state.pending is not None:
            raise state.pending
        _factory.__set__(cur, self.usual)
        if self.usual is not None:
            return self.usual(cur)
        return _Row([None] * len(_c.description.__get__(cur)))


def fetch(cur: Any, method: Callable[..., _T], *args: Any) -> _T:
    """Call a fetch of psycopg2 in an operation; it is outside the driver while rows are built."""
    state: State | None = getattr(cur.connection, "_greenpg_state", None)
    if state is None:  # on a plain connection
        return method(cur, *args)
    first = _FirstRow(state, _factory.__get__(cur))
    try:
        _factory.__set__(cur, first)
        return method(cur, *args)
    finally:
        if first.left:
            state.depth -= 1
        _factory.__set__(cur, first.usual)


def fetchone(cur: Any) -> Any:
    """Fetch the next row."""
    return _usual(c_cursor.fetchone(cur))


def next_row(cur: Any) -> Any:
    """Return the next row; it may be one that was fetched before."""
    state: State | None = getattr(cur.connection, "_greenpg_state", None)
    if _rowcount(cur) <= _rownumber(cur) or state is None:
        return fetch(cur, _next_usual)
    state.depth += 1
    state.in_driver, state.exit_needs_check = False, True
    try:
        return _next(cur)
    finally:
        state.depth -= 1


def fetchmany(cur: Any, size: int) -> list[Any]:
    """Fetch up to `size` rows by one statement; many are built in time slices."""
    if size > SLICE_ROWS:
        return _fetch_in_slices(cur, size)
    rows: list[Any] = c_cursor.fetchmany(cur, size)
    rows[:1] = map(_usual, rows[:1])
    return rows


def _fetch_in_slices(cur: Any, size: int) -> list[Any]:
    _drop_waiting(cur)
    usual = _at_most.__get__(cur)
    try:
        _at_most.__set__(cur, min(size, ALL))
        rows = [_next_usual(cur)]
    except StopIteration:
        return []
    finally:
        _at_most.__set__(cur, usual)
    state: State | None = getattr(cur.connection, "_greenpg_state", None)
    time_slice = None if state is None else TimeSlice(state.backend)
    while left := _waiting(cur):
        rows += map(_next, repeat(cur, min(left, SLICE_ROWS)))
        if state is not None and time_slice is not None:
            state.pause_outside(cur.connection, time_slice)
    return rows


def _next_usual(cur: Any) -> Any:
    return _usual(_next(cur))


def _usual(row: Any) -> Any:
    return tuple(row) if type(row) is _Row else row


def _waiting(cur: Any) -> int:
    """Return how many rows psycopg2 has fetched and not yet built."""
    if _c.pgresult_ptr.__get__(cur) is None:
        return 0
    left: int = _rowcount(cur) - _rownumber(cur)
    return max(left, 0)


def _drop_waiting(cur: Any) -> None:
    """Drop what an iteration has fetched and not returned, as a fetch of psycopg2 does."""
    left = _waiting(cur)
    first = _factory.__get__(cur)
    try:
        _factory.__set__(cur, _drop)
        for _ in range(left):
            with suppress(_Dropped):
                _next(cur)
    finally:
        _factory.__set__(cur, first)


def _drop(cur: Any) -> Any:
    raise _Dropped
