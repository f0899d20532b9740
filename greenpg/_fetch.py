"""Large results without holding the hub, and without holding them in memory."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from itertools import chain, count
from time import monotonic
from typing import Any, Final

from psycopg2 import Error

from ._libpq import libpq
from ._wait import SLICE

__all__ = ["SLICE_ROWS", "Stream", "fetch_on", "stream"]

SLICE_ROWS: Final = 2000  # rows built in C between two looks at the clock
_FIRST: Final = 100
_LARGEST: Final = 2000  # more of them alive at a time cost more than round trips do
_BYTES: Final = 1 << 20  # of a fetch; with its rows as objects it takes some times as much
_serial: Final = count(1)


def fetch_on(cur: Any, fetchmany: Callable[..., list[Any]], rows: list[Any], wanted: int) -> None:
    """Append up to `wanted` more rows, letting other tasks run after each time slice.

    No other task can execute on the cursor meanwhile. An interrupt leaves it between two rows.
    """
    state = cur.connection._state
    slice_end = monotonic() + SLICE
    state.fetching.append(cur)
    try:
        while wanted > 0:
            more = fetchmany(cur, min(wanted, SLICE_ROWS))
            rows += more
            wanted -= len(more)
            if len(more) < SLICE_ROWS:
                return
            if monotonic() >= slice_end and state.can_wait():
                state.backend.pause()
                slice_end = monotonic() + SLICE
    finally:
        state.fetching.remove(cur)


class Stream:
    """Iterates over the rows of a query; `close()` gives up the rest on the server."""

    def __init__(self, parts: Generator[list[Any], None, None]) -> None:
        self._parts = parts
        self._rows: Iterator[Any] = chain.from_iterable(parts)

    def __iter__(self) -> Iterator[Any]:
        return self._rows  # a for loop then runs in C

    def __next__(self) -> Any:
        return next(self._rows)

    def close(self) -> None:
        """Fetch no more; a loop gets to its end with the rows that are here."""
        self._parts.close()
        self._rows = iter(())


def stream(cur: Any, query: Any, args: Any) -> Stream:
    """Return the rows of a server-side cursor, fetched more at a time as it goes on."""
    return Stream(_parts(cur, query, args))


def _parts(cur: Any, query: Any, args: Any) -> Generator[list[Any], None, None]:
    conn = cur.connection
    hold = conn.autocommit  # else psycopg2 refuses it, in a transaction of the program's own too
    name = f"greenpg_stream_{next(_serial)}"
    source = conn.cursor(name, cursor_factory=type(cur), withhold=hold)
    size = _FIRST
    try:
        source.execute(query, args)
        while rows := source.fetchmany(size):
            yield rows
            size = _next_size(source, size)
    finally:
        with suppress(Error):  # after an interrupt it ends with its transaction
            source.close()


def _next_size(source: Any, size: int) -> int:
    """Return twice as many rows, or fewer if the last ones were large."""
    result = source.pgresult_ptr
    if result and libpq.has("PQresultMemorySize"):
        taken = libpq.PQresultMemorySize(result)
        if taken > _BYTES:
            return max(size * _BYTES // taken, 1)  # type: ignore[no-any-return]  # ctypes
    return min(2 * size, _LARGEST)
