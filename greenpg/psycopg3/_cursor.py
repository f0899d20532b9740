"""psycopg's cursors on green connections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from greenpg._green_classes import green
from greenpg._session.lock import BEING_FETCHED
from greenpg.sync import state_of

from ._state import is_interrupt

SLICE_ROWS: Final = 2000  # rows built between two looks at the clock
PAUSE: Final = 0  # what a generator yields to `drive` for no event: others are due, maybe


class _Green:
    """A cursor on which a loop of calls that need not wait lets other tasks run.

    It executes nothing while another task fetches its result. TypeError on a plain connection.
    """

    _conn: Any

    def _start_query(self, query: Any = None) -> Any:
        try:
            state = self._conn._greenpg_state
        except AttributeError:  # on a plain connection
            state = state_of(self._conn)
        if state.cursors_fetching and id(self) in state.cursors_fetching:
            raise psycopg.ProgrammingError(BEING_FETCHED)
        return super()._start_query(query)  # type: ignore[misc]

    def _send_query_prepared(self, name: bytes, pgq: Any, *, binary: bool | None = None) -> None:
        state = self._conn._greenpg_state
        if state.stopping:  # after PREPARE
            state.refuse_if_stopping()
        super()._send_query_prepared(name, pgq, binary=binary)  # type: ignore[misc]

    def executemany(self, query: Any, params_seq: Iterable[Any], **options: Any) -> None:
        """Execute a statement for each of many parameters; see psycopg.Cursor.executemany."""
        super().executemany(query, self._greenpg_paced(params_seq), **options)  # type: ignore[misc]

    def _greenpg_paced(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield the items, and let other tasks run after each time slice; none after an interrupt.

        Then they are asked for inside the recovery, which the program's code may neither prolong
        nor end.
        """
        state = self._conn._greenpg_state
        state.time_slice.restart()
        for item in items:
            yield item
            if state.stopping:
                return
            if state.time_slice.is_over():
                state.pause_inside()

    @contextmanager
    def copy(
        self, statement: Any, params: Any = None, *, writer: Any = None
    ) -> Iterator[psycopg.Copy]:
        """Run a COPY in a block; an interrupt that leaves the block ends it in bounded time.

        The block has the connection to itself, which psycopg's own has since 3.2.13, and its
        error propagates, not one of the clean-up, as since 3.3.
        """
        conn, raised = self._conn, None
        try:
            with conn.lock:
                conn.wait(self._start_copy_gen(statement, params))  # type: ignore[attr-defined]
                with psycopg.Copy(self, writer=writer) as copy:  # type: ignore[arg-type]
                    try:
                        yield copy
                    except BaseException as error:
                        raised, state = error, conn._greenpg_state
                        if is_interrupt(error) and state.can_wait():  # else its end closes
                            state.patience()
                        raise
        except psycopg.Error:
            if raised is not None:
                raise raised from None
            raise
        self._select_current_result(0)  # type: ignore[attr-defined]

    def __iter__(self) -> Any:
        rows = super().__iter__()  # type: ignore[misc]
        return rows if rows is self else self._greenpg_counted(rows)

    def _greenpg_counted(self, rows: Iterator[Any]) -> Iterator[Any]:
        """Yield the rows of a cursor that is no iterator, as in psycopg 3.2."""
        for row in rows:
            self._greenpg_count()
            yield row

    def __next__(self) -> Any:
        self._greenpg_count()
        return super().__next__()  # type: ignore[misc]

    def nextset(self) -> bool | None:
        """Move to the next result set; None if there is none."""
        self._greenpg_count()
        return super().nextset()  # type: ignore[misc, no-any-return]

    def _greenpg_count(self) -> None:
        state = self._conn._greenpg_state
        try:
            state.time_slice.count_call()
        except BaseException:
            state.note_outside(self._conn)
            raise


@green(psycopg.Cursor)
class Cursor(_Green, psycopg.Cursor[Any]):
    """psycopg.Cursor on a green connection; large results are built in time slices."""

    def fetchone(self) -> Any:
        """Return the next row, None after the last; a loop lets other tasks run."""
        if self._pos:
            self._greenpg_count()
        return psycopg.Cursor.fetchone(self)

    def fetchmany(self, size: int = 0) -> list[Any]:
        """Return the next `size` rows, by default `arraysize`; other tasks run in between."""
        return self._greenpg_fetch(size or self.arraysize)

    def fetchall(self) -> list[Any]:
        """Return all rows that are left; other tasks run after each time slice."""
        if not self.pgresult:
            self._fetch_pipeline()
        rows = self.pgresult.ntuples if self.pgresult else 0
        if rows <= SLICE_ROWS:
            return psycopg.Cursor.fetchall(self)
        return self._greenpg_fetch(rows)

    def _greenpg_fetch(self, wanted: int) -> list[Any]:
        fetchmany = psycopg.Cursor.fetchmany
        rows: list[Any] = fetchmany(self, min(wanted, SLICE_ROWS))
        if len(rows) < SLICE_ROWS:
            return rows
        state = self._conn._greenpg_state
        state.time_slice.restart()
        state.cursors_fetching.append(id(self))
        try:
            while len(rows) < wanted:
                more = fetchmany(self, min(wanted - len(rows), SLICE_ROWS))
                rows += more
                if not more:
                    break
                state.pause_outside(self._conn, state.time_slice)
        finally:
            state.cursors_fetching.remove(id(self))
        return rows


class _Unbuilt:
    """A cursor's Transformer, but that it leaves the rows of a fetch to be built later."""

    def __init__(self, transformer: Any) -> None:
        self._transformer = transformer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transformer, name)

    def load_rows(self, first: int, end: int, make_row: Any) -> range:
        return range(first, end, SLICE_ROWS)


@green(psycopg.ServerCursor)
class ServerCursor(_Green, psycopg.ServerCursor[Any]):
    """psycopg.ServerCursor on a green connection; large results are built in time slices."""

    def close(self) -> None:
        """Close the cursor; in an interrupted transaction the server does so at its end."""
        state: Any = state_of(self._conn)
        if state.must_roll_back:
            psycopg.Cursor.close(self)
            return
        try:
            with state.cleaning_up():
                super().close()
        finally:
            psycopg.Cursor.close(self)  # an interrupt has kept psycopg from it

    def _fetch_gen(self, num: int | None) -> Any:
        if not self._described or (num is not None and num <= SLICE_ROWS):
            return (yield from super()._fetch_gen(num))
        transformer, self._tx = self._tx, _Unbuilt(self._tx)  # type: ignore[assignment]
        try:
            slices: Any = yield from super()._fetch_gen(num)
        finally:
            self._tx = transformer
        rows: list[Any] = []
        for first in slices:
            end = min(first + SLICE_ROWS, slices.stop)
            rows += transformer.load_rows(first, end, self._make_row)
            yield PAUSE
        return rows
