"""Large results: rows built in time slices, or streamed in bounded memory."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain, count
from typing import Any, Final

from psycopg2 import Error, ProgrammingError

from ._green_classes import green_class
from ._protocol.libpq import libpq
from ._psycopg2.psycopg2_c import c_connection, c_cursor, transaction_status
from ._psycopg2.transaction_mark import TransactionMark
from ._session.backoff import one_line
from ._session.session import TransactionStatus
from ._session.time_slice import TimeSlice
from .sync import ConnectionLock

SLICE_ROWS: Final = 2000  # rows built in C between two checks of the clock
_FIRST: Final = 100
_LARGEST: Final = 4000
_LARGEST_LIST: Final = 2000  # more rows cost more than round trips: `greenpg bench -w rows`
_BYTES: Final = 1 << 20  # of a fetch in libpq; its rows as Python objects take more
_serial: Final = count(1)
log = logging.getLogger("greenpg")


def fetch_on(cur: Any, fetchmany: Callable[..., list[Any]], rows: list[Any], wanted: int) -> None:
    """Append up to `wanted` more rows, letting other tasks run after each time slice.

    No other task can execute on the cursor meanwhile. An interrupt leaves it between two rows, and
    the transaction to be rolled back.
    """
    state = getattr(cur.connection, "_greenpg_state", None)
    if state is None:  # on a plain connection
        rows += fetchmany(cur, wanted)
        return
    time_slice = TimeSlice(state.backend)
    state.cursors_fetching.append(cur)
    try:
        while wanted > 0:
            more = fetchmany(cur, min(wanted, SLICE_ROWS))
            rows += more
            wanted -= len(more)
            if len(more) < SLICE_ROWS:
                return
            state.pause_outside(cur.connection, time_slice)
    finally:
        state.cursors_fetching.remove(cur)


class RowStream:
    """Iterates over the rows of a query; `close()` closes the cursor on the server."""

    def __init__(self, parts: Generator[Iterable[Any], None, None]) -> None:
        self._parts = parts
        self._rows: Iterator[Any] = chain.from_iterable(parts)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._rows  # a for loop then runs in C

    def __next__(self) -> tuple[Any, ...]:
        return next(self._rows)

    def close(self) -> None:
        """Stop fetching; a loop ends after the rows already fetched."""
        with suppress(_GivenUp):
            self._parts.throw(_GivenUp())
        self._rows = iter(())


class _GivenUp(Exception):
    """The program has closed a stream: unlike a finalizer, it waits until that is done."""


def stream(cur: Any, execute: Callable[[Any, str], None], query: Any, args: Any) -> RowStream:
    """Return the rows of a server-side cursor, fetched in growing parts.

    `execute` is the green cursor's own.
    """
    return RowStream(_parts(cur, execute, query, args))


def _parts(
    cur: Any, execute: Callable[[Any, str], None], query: Any, args: Any
) -> Generator[Iterable[Any], None, None]:
    conn = cur.connection
    hold = conn.autocommit  # psycopg2 requires it, also after a BEGIN (cursor_type.c)
    name = f"greenpg_stream_{next(_serial)}"
    source = c_connection.cursor(conn, name, type(cur), hold)
    close: Callable[[Any], None] = _close
    try:
        source.execute(query, args)
        if _iterates_in_c(type(cur)):
            reader = c_connection.cursor(conn, None, type(cur))
            yield from _results(conn, name, hold, reader, execute)
        else:
            yield from _lists(source)
    except GeneratorExit:  # from a finalizer
        close = _close_forgotten
        raise
    finally:
        close(source)


def _close(source: Any) -> None:
    with suppress(Error):  # after an interrupt the cursor ends with its transaction
        source.close()


def _close_forgotten(source: Any) -> None:
    """Close the cursor of a stream that the program has forgotten; a finalizer calls this."""
    state = getattr(source.connection, "_greenpg_state", None)
    if state is None:  # on a plain connection
        _close(source)
    elif not (source.connection.closed or sys.is_finalizing()):
        state.call_in_finalizer(partial(_close_if_there, source))


def _close_if_there(source: Any) -> None:
    """Close a cursor, unless it has gone: in an open transaction that would be an error."""
    conn = source.connection
    try:
        with ConnectionLock(conn):
            if transaction_status(conn) == TransactionStatus.IDLE or _is_there(conn, source.name):
                source.close()
    except Error as err:
        if not conn.closed:
            log.warning("the cursor of a stream could not be closed: %s", one_line(err))


def _is_there(conn: Any, name: str) -> bool:
    if (
        transaction_status(conn) != TransactionStatus.IN_TRANSACTION
        or conn._greenpg_state.must_roll_back
    ):
        return False
    cur = c_connection.cursor(conn, None, green_class(c_cursor))
    cur.execute("SELECT 1 FROM pg_catalog.pg_cursors WHERE name = %s", (name,))
    return c_cursor.fetchone(cur) is not None


def _iterates_in_c(kind: Any) -> bool:
    return bool(kind.__iter__ is c_cursor.__iter__ and kind.__next__ is c_cursor.__next__)


def _results(
    conn: Any, name: str, hold: bool, reader: Any, execute: Callable[[Any, str], None]
) -> Generator[Iterable[Any], None, None]:
    """Yield the cursor `reader` after each fetch; it builds the rows in C one by one."""
    mark = TransactionMark(conn)
    size = _FIRST
    while True:
        if not hold and not mark.is_current():
            raise ProgrammingError("the transaction in which the stream began has ended")
        execute(reader, f"FETCH FORWARD {size} FROM {name}")
        if not reader.rowcount:
            return
        fetched = reader.rowcount
        yield reader
        if fetched < size:
            return
        size = min(_next_size(reader, size), _LARGEST)


def _lists(source: Any) -> Generator[Iterable[Any], None, None]:
    """Yield lists of rows, for cursor classes that build rows in Python."""
    size = _FIRST
    while rows := source.fetchmany(size):
        yield rows
        size = min(_next_size(source, size), _LARGEST_LIST)


def _next_size(source: Any, size: int) -> int:
    """Return twice `size`, or less if the last fetch was large."""
    result = source.pgresult_ptr
    if result and libpq.has("PQresultMemorySize"):
        taken = libpq.PQresultMemorySize(result)
        if taken > _BYTES:
            return max(size * _BYTES // taken, 1)  # type: ignore[no-any-return]  # ctypes
    return 2 * size
