"""Pipeline mode: statements are queued, and their results read on demand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Protocol

from psycopg2 import Error, ProgrammingError
from psycopg2 import extensions as ext

from greenpg._green_classes import green_class
from greenpg._protocol import results
from greenpg._protocol.copy_statements import copies_to_client
from greenpg._protocol.libpq import (
    PGRES_COMMAND_OK,
    PGRES_EMPTY_QUERY,
    PGRES_PIPELINE_ABORTED,
    PGRES_TUPLES_OK,
    libpq,
)
from greenpg._protocol.pipelining import PIPELINES, Pipe
from greenpg._psycopg2.operation import cancel_and_drain, collect_notices, drive, pgconn_of
from greenpg._psycopg2.psycopg2_c import c_cursor
from greenpg._session.time_slice import TimeSlice
from greenpg.errors import PipelineAborted


class Source(Protocol):
    """What a result comes from."""

    cursor: Any

    def await_result(self, result: PipelineResult) -> None:
        """Wait for the result."""

    def pause(self, time_slice: TimeSlice) -> None:
        """Let other tasks run if the time slice of a fetch is over."""

    def note_error(self, error: BaseException) -> None:
        """Note an error, or an interrupt, of a fetch."""


class PipelineResult:
    """The result of one queued statement; the first access waits for the server's answer.

    Each access raises the statement's error, or PipelineAborted if an earlier statement since
    the last `sync()` failed. Errors of a typecaster propagate from the fetch.
    """

    _answered = False
    _rowcount = -1
    _description: tuple[Any, ...] | None = None
    _statusmessage: str | None = None
    error: Error | None = None
    seen = False

    def __init__(self, pipeline: Source, rows: results.Rows | None = None) -> None:
        self._pipeline, self._rows = pipeline, rows

    def take(self, result: int, status: int) -> bool:
        """Read libpq's result; return True to keep it, if it has rows."""
        self.adopt(result, status)
        rows = self._rows
        if rows is None:
            return False
        self._description = rows.columns(self._encoding())
        self._statusmessage = rows.statusmessage()
        rows.settle()
        return True

    def adopt(self, result: Any, status: int) -> None:
        """Read libpq's result, and keep it if it has rows; its description is read on demand."""
        self._answered = True
        if status == PGRES_TUPLES_OK:
            self._rows = results.Rows(result, self._pipeline.cursor)
            return
        if status == PGRES_PIPELINE_ABORTED:
            self.error = PipelineAborted("an earlier statement of the pipeline failed")
        elif status == PGRES_COMMAND_OK:
            self._rowcount = results.rowcount(result)
            self._statusmessage = results.statusmessage(result)
        elif status == PGRES_EMPTY_QUERY:
            self.error = ProgrammingError("can't execute an empty query")
        else:
            self.error = results.error_of(result, self._encoding())

    def _encoding(self) -> str:
        return ext.encodings[self._pipeline.cursor.connection.encoding]

    def _wait(self) -> None:
        if not self._answered and self._rows is None:
            self._pipeline.await_result(self)
        self.seen = True
        if self.error is not None:
            raise self.error

    @property
    def rowcount(self) -> int:
        """The number of rows touched or returned."""
        self._wait()
        return self._rowcount if self._rows is None else self._rows.count

    @property
    def statusmessage(self) -> str:
        """The command's tag, such as INSERT 0 1."""
        self._wait()
        if self._rows is not None and self._statusmessage is None:
            self._statusmessage = self._rows.statusmessage()
        return self._statusmessage or ""

    @property
    def description(self) -> tuple[Any, ...] | None:
        """PEP 249's description; None for a statement without rows."""
        self._wait()
        if self._rows is not None and self._description is None:
            self._description = self._rows.columns(self._encoding())
        return self._description

    def _result(self) -> results.Rows:
        self._wait()
        if self._rows is None:
            raise ProgrammingError("no results to fetch")
        return self._rows

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row, None after the last."""
        return (self._rows or self._result()).one()

    def fetchmany(self, size: int = 1) -> list[tuple[Any, ...]]:
        """Return up to `size` rows; many rows are built in time slices, as by a cursor."""
        rows = self._rows or self._result()
        try:
            few = rows.few
            if min(size, rows.count) <= few:
                return rows.take(size)
            return self._sliced(rows, size, few)
        except BaseException as error:
            self._pipeline.note_error(error)
            raise

    def _sliced(self, rows: results.Rows, size: int, few: int) -> list[tuple[Any, ...]]:
        found = list[tuple[Any, ...]]()
        time_slice = TimeSlice(self._pipeline.cursor.connection._greenpg_state.backend)
        while part := rows.take(min(size - len(found), few)):
            found += part
            self._pipeline.pause(time_slice)
        return found

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all remaining rows."""
        return self.fetchmany(sys.maxsize)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.fetchone, None)


class Pipeline:
    """Queues statements on a connection that belongs to this task until the block ends.

    An error aborts the following statements up to the next `sync()`; under autocommit the
    statements between two syncs are one transaction (libpq manual, "Pipeline Mode"), but in a
    `with conn` block, which is one transaction itself. The end of
    the block waits for all answers and raises the first error that was not read.
    """

    _pipe: Pipe | None = None  # Ctrl-C may come before `__init__`

    def __init__(self, conn: Any) -> None:
        self._conn = conn
        self.cursor: Any = None
        self._time_slice: TimeSlice | None = None
        self._results: list[PipelineResult] = []

    def __enter__(self) -> Pipeline:
        libpq.need(*PIPELINES)
        conn = self._conn
        self.cursor = green_class(c_cursor)(conn)
        if conn.status == ext.STATUS_READY:
            # psycopg2 begins a transaction, or not: it alone knows of a `with conn` block
            green_class(c_cursor)(conn).execute("SELECT")
        pgconn, fd = pgconn_of(conn)
        conn._greenpg_state.enter()
        try:
            # until the end: it also finds a repair that has failed
            conn._greenpg_state.note_blocked()
            self._pipe = Pipe(pgconn, fd)
            self._time_slice = TimeSlice(conn._greenpg_state.backend)
            self._pipe.enter()
        except BaseException:
            self._pipe = None
            conn._greenpg_state.in_driver = False
            conn._greenpg_state.leave(conn)
            raise
        return self

    def _open(self) -> Pipe:
        if self._pipe is None:
            raise ProgrammingError("the pipeline is not open")
        return self._pipe

    def execute(self, query: Any, vars: Any = None) -> PipelineResult:
        """Queue one statement; its errors are raised where the result is read."""
        pipe, result = self._open(), PipelineResult(self)
        try:
            statement = c_cursor.mogrify(self.cursor, query, vars)
            if copies_to_client(statement):
                fact = "a pipeline cannot run this COPY; use cursor.copy() outside it"
                raise ProgrammingError(fact)
            pipe.send(result, statement)
            self._results.append(result)
            self._drive(pipe.turn())
        except BaseException as error:
            self.note_error(error)
            raise
        return result

    def sync(self) -> None:
        """End a group: an error before it does not abort the statements after it.

        Under autocommit this commits the group; the end of the block raises a commit's error.
        """
        self._drive(self._open().sync(self._commit()))

    def _commit(self) -> PipelineResult:
        self._results.append(PipelineResult(self))
        return self._results[-1]

    def await_result(self, result: PipelineResult) -> None:
        """Send all queued statements and wait for this result."""
        self._drive(self._open().until(result))

    def _drive(self, steps: Any) -> None:
        """Run the steps; an interrupt ends the pipeline and drops all queued statements."""
        pipe, state = self._open(), self._conn._greenpg_state
        state.bound_operation(state.deadlines.get(state.holder))  # it may have begun in the block
        try:
            drive(self._conn, steps, pipe.abandon, self._time_slice)
            if pipe.is_settled():
                collect_notices(self._conn)
        finally:
            if state.pending is not None or self._conn.closed:
                self._pipe = None
                state.in_driver = False
                state.leave(self._conn)

    def pause(self, time_slice: TimeSlice) -> None:
        """Let other tasks run if the time slice of a fetch is over; the pipeline may have ended."""
        if self._pipe is None:
            self._conn._greenpg_state.pause_outside(self._conn, time_slice)
        else:
            self._drive(self._pipe.pause())

    def note_error(self, error: BaseException) -> None:
        """End the pipeline if an interrupt, such as Ctrl-C, has come outside a wait."""
        if isinstance(error, Exception):
            return
        state = self._conn._greenpg_state
        if self._pipe is None:
            state.note_outside(self._conn)
            return
        try:
            cancel_and_drain(self._conn, error, self._pipe.abandon)
        finally:
            self._pipe = None
            state.in_driver = False
            state.leave(self._conn)

    def __exit__(self, kind: Any, exc: BaseException | None, trace: Any) -> None:
        if self._pipe is None:
            return
        pipe, conn = self._pipe, self._conn
        try:  # not in a function: Ctrl-C at its entry would come before its `try`
            if exc is None:
                self._drive(pipe.abandon(self._commit()))
            else:  # the remaining results will not be read
                cancel_and_drain(conn, None, pipe.abandon)
        except BaseException as error:
            if self._pipe is not None:
                cancel_and_drain(conn, error, pipe.abandon)
            raise
        finally:
            if self._pipe is not None:
                self._pipe = None
                conn._greenpg_state.in_driver = False
                conn._greenpg_state.leave(conn)
        self._raise_unread(exc)

    def __del__(self) -> None:
        """Close the connection of a block that was never left; any task may run this."""
        if self._pipe is None:
            return
        conn, self._pipe = self._conn, None
        if not conn._greenpg_state.holder_lost:
            conn._greenpg_state.shut(conn)
        conn._greenpg_state.in_driver = False
        conn._greenpg_state.leave(conn)

    def _raise_unread(self, exc: BaseException | None) -> None:
        answers, self._results = self._results, []  # they refer to this pipeline
        unread = [answer.error for answer in answers if answer.error and not answer.seen]
        if exc is None and unread:
            raise unread[0]
