"""The green cursor: psycopg2's, with every entry into C guarded by the connection's lock."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

from psycopg2._psycopg import cursor as c_cursor

from ._repair import leave

__all__ = ["Cursor", "NamedCursor", "derived_class", "green_cursor_class"]

_T = TypeVar("_T")
_execute = c_cursor.execute


class Cursor(c_cursor):
    """psycopg2's cursor whose waits are green and whose connection other tasks may share.

    One that has a name becomes a `NamedCursor`.
    """

    connection: Any

    def __init__(self, conn: Any, name: Any = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(conn, name, *args, **kwargs)
        if name is not None and not isinstance(self, NamedCursor):
            self.__class__ = _named_class(type(self))

    def execute(self, query: Any, vars: Any = None) -> None:
        """Run a statement; psycopg2's semantics.

        After an interrupt it may have run or not; inside a transaction only a rollback is
        accepted then.
        """
        conn = self.connection
        try:
            state = conn._state
        except AttributeError:  # made by a class that skips our __init__: C has an error for it
            return _execute(self, query, vars)
        state.enter(False, query)
        try:
            return _execute(self, query, vars)
        finally:
            state.inside = False
            leave(conn, state)

    def executemany(self, query: Any, vars_list: Any) -> None:
        """Run a statement for each set of variables, which may come from the same connection."""
        rows = _outside(self.connection, vars_list)
        self._run(c_cursor.executemany, query, rows, leaving=rows.close)

    def callproc(self, procname: Any, parameters: Any = None) -> Any:
        """Call a stored function."""
        args = () if parameters is None else (parameters,)
        return self._run(c_cursor.callproc, procname, *args)

    def _run(
        self, method: Callable[..., _T], *args: Any, leaving: Callable[[], None] | None = None
    ) -> _T:
        conn = self.connection
        state = getattr(conn, "_state", None)
        if state is None:  # of a class that skips our __init__, or on a plain connection
            return method(self, *args)
        state.enter()
        try:
            return method(self, *args)
        finally:
            if leaving is not None:
                leaving()
            state.inside = False
            leave(conn, state)


def _outside(conn: Any, rows: Iterable[_T]) -> Generator[_T, None, None]:
    """Yield the rows with the connection usable while the next one is made: C does not wait."""
    source = iter(rows)
    state = conn._state
    state.depth += 1
    try:
        while True:
            state.inside = False
            try:
                row = next(source)
            except StopIteration:
                return
            finally:
                state.inside = True
            yield row
    finally:
        state.depth -= 1


class NamedCursor(Cursor):
    """A server-side cursor: its fetches run statements, so they are guarded too."""

    def fetchone(self) -> Any:
        """Fetch the next row."""
        return self._run(c_cursor.fetchone)

    def fetchmany(self, size: int | None = None) -> Any:
        """Fetch `size` rows, by default `arraysize`."""
        return self._run(c_cursor.fetchmany, size)

    def fetchall(self) -> Any:
        """Fetch all rows that are left."""
        return self._run(c_cursor.fetchall)

    def scroll(self, value: int, mode: str = "relative") -> None:
        """Move the cursor."""
        self._run(c_cursor.scroll, value, mode)

    def close(self) -> None:
        """Close the cursor on the server too."""
        if not self.closed:
            self._run(c_cursor.close)

    def __next__(self) -> Any:
        return self._run(c_cursor.__next__)


def green_cursor_class(base: type) -> type:
    """Return the user's cursor class with `Cursor` under it, above psycopg2's C class."""
    if issubclass(base, Cursor):
        return base
    return Cursor if base is c_cursor else derived_class(base, Cursor)


def _named_class(base: type) -> type:
    return NamedCursor if base is Cursor else derived_class(base, NamedCursor)


def derived_class(base: type, below: type) -> type:
    """Return `base` with `below` put under it; made once, and kept by `base` alone."""
    slot = f"_greenpg_{below.__name__}"
    made = base.__dict__.get(slot)
    if made is None:
        content = {"__module__": base.__module__, "_greenpg_twin": True}
        made = type(base)(base.__name__, (base, below), content)
        setattr(base, slot, made)
    result: type = made
    return result
