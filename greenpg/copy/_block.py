"""`cursor.copy()`: a COPY that runs during a with block, with psycopg 3's methods."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

from psycopg2 import DataError, Error, NotSupportedError, OperationalError, ProgrammingError
from psycopg2 import extensions as ext

from greenpg._protocol.copy_buffers import CopyBuffer
from greenpg._protocol.copy_text import OIDS, Formatter, Lines, fields
from greenpg._protocol.generators import (
    BLOCK,
    UNEXPECTED,
    end_copy_in,
    finish,
    receive,
    results,
    send,
)
from greenpg._protocol.libpq import PGRES_COMMAND_OK, PGRES_COPY_IN, PGRES_COPY_OUT, libpq
from greenpg._protocol.results import casts_of, error_of, rowcount, statusmessage
from greenpg._psycopg2.operation import cancel_and_drain, collect_notices, drive, pgconn_of
from greenpg._psycopg2.psycopg2_c import execute
from greenpg._psycopg2.wait_callback import wait_callback
from greenpg._session.time_slice import TimeSlice
from greenpg._written import written

if TYPE_CHECKING:
    from greenpg._protocol.generators import Steps
    from greenpg._psycopg2.operation import Operation
    from greenpg._psycopg2.state import State

_T = TypeVar("_T")
_BINARY: Final = b"PGCOPY\n\xff\r\n\0"


class _Beginning:
    """The job of the statement that begins a COPY: it notes that the COPY has begun."""

    lasting = True
    error: BaseException | None = None
    status = 0

    def steps(self, pgconn: int, fd: int, status: int) -> Steps:
        self.status = status
        yield fd, 0


class Copy:
    """One COPY; the connection belongs to this task until the COPY or the block ends.

    An exception in the block fails the COPY: nothing is loaded. If the block ends before a
    COPY TO does, under autocommit the COPY is cancelled, in a transaction its rest is read.
    """

    _task: Hashable = None  # of the block, until the COPY has ended

    def __init__(self, cur: Any, statement: Any, params: Any = None) -> None:
        self._cur = cur
        self._conn = cur.connection
        self._statement = (statement, params)
        self._status = 0  # PGRES_COPY_IN or _OUT while the COPY runs
        self._time_slice: TimeSlice | None = None
        self._pgconn = self._fd = -1
        self._casts: list[Callable[..., Any]] | None = None
        self._forget()

    def _forget(self) -> None:
        """Reset what is collected of a COPY: the block may be entered again."""
        self._gathered: list[bytes] = []
        self._size = 0
        self._formatter: Formatter | None = None
        self._buffer = CopyBuffer()
        self._lines: Lines | None = None
        self._rows: deque[str] = deque()

    def __enter__(self) -> Copy:
        """Begin the COPY."""
        state = _state_for(self._cur)
        self._statement = written(self._cur, *self._statement)
        self._encoding = ext.encodings[self._conn.encoding]
        self._task = state.enter(False, self._statement[0])
        try:
            self._forget()
            state.pause_block()
            state.resume_block(id(self))
            self._begin(state)
        except BaseException as error:
            self._leave(error)
            raise
        return self

    def _begin(self, state: State) -> None:
        state.job = job = _Beginning()
        try:
            execute(self._cur, *self._statement)
        except ProgrammingError:
            if not job.status:
                raise  # from the server; otherwise psycopg2 requires a file (pqpath.c)
        finally:
            state.job = None
        if state.pending is not None:
            raise state.pending
        if not job.status:
            raise ProgrammingError("copy() requires COPY ... FROM STDIN or COPY ... TO STDOUT")
        self._time_slice = TimeSlice(state.backend)
        self._pgconn, self._fd = pgconn_of(self._conn)
        self._status = job.status
        self._pause(state)

    def write(self, data: str | bytes | bytearray | memoryview) -> None:
        """Send data of a COPY FROM: str in the connection's encoding, or bytes.

        Data is sent whenever 64 kB have been collected. Errors of the data are raised at the end.
        """
        self._use(PGRES_COPY_IN)
        try:
            if isinstance(data, str):
                data = data.encode(self._encoding)
            self._put(data if isinstance(data, bytes) else bytes(memoryview(data)))
        except BaseException as error:
            self._note_error(error)
            raise

    def write_row(self, row: Iterable[Any]) -> None:
        """Send a row of Python values to a COPY FROM in text format; None is a null.

        A list is sent as an array and a tuple as a composite value; ProgrammingError for a type
        whose adapter writes an expression.
        """
        self._use(PGRES_COPY_IN)
        try:
            if self._formatter is None:
                self._formatter = Formatter(self._conn)
            self._put(self._formatter.row(row))
        except BaseException as error:
            self._note_error(error)
            raise

    def _put(self, data: bytes) -> None:
        self._gathered.append(data)
        self._size += len(data)
        if self._size >= BLOCK:
            self._send()

    def _send(self) -> None:
        gathered, self._gathered, self._size = self._gathered, [], 0
        self._drive(send(self._pgconn, self._fd, b"".join(gathered)))  # no copy of a single one

    def read(self) -> bytes:
        """Return the next block of a COPY TO, b"" at its end; a block may end within a row."""
        if not self._status:
            return b""
        self._use(PGRES_COPY_OUT)
        try:
            block = self._drive(receive(self._pgconn, self._fd, self._buffer))
            if not block:
                self._end()
        except BaseException as error:
            self._note_error(error)
            raise
        return block

    def __iter__(self) -> Iterator[bytes]:
        """Yield the blocks of a COPY TO."""
        return iter(self.read, b"")

    def read_row(self) -> tuple[Any, ...] | None:
        """Return the next row of a COPY TO in text format, None at its end.

        The fields are str, or None for a null, unless `set_types` has set their types.
        """
        try:
            while not self._rows:
                if not self._read_lines():
                    return None
            return self._loaded(fields(self._rows.popleft()))
        except BaseException as error:
            self._note_error(error)
            raise

    def _read_lines(self) -> bool:
        block = self.read()
        if block and self._lines is None:
            self._lines = Lines(self._encoding)
            if block.startswith(_BINARY):
                raise NotSupportedError("rows require COPY's text format, not binary")
        if block and self._lines is not None:
            self._rows.extend(self._decoded(self._lines, block))
        return bool(block)

    def _decoded(self, lines: Lines, block: bytes) -> list[str]:
        """Return the lines of a block; where the server checks all text, none is undecodable."""
        try:
            return lines.feed(block)
        except UnicodeDecodeError as err:
            if self._encoding == "ascii":
                raise  # SQL_ASCII: the bytes may be of any encoding
            self._abandon()
            raise OperationalError(f"{UNEXPECTED}: {err}") from None

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a COPY TO; see `read_row`."""
        return iter(self.read_row, None)

    def set_types(self, types: Iterable[Any]) -> None:
        """Set the types of a COPY TO's columns: oids, names of basic types, or typecasters.

        The rows are then cast as a query's would be. COPY FROM needs no types.
        """
        self._casts = [self._caster(kind) for kind in types]

    def _caster(self, kind: Any) -> Any:
        if isinstance(kind, str):
            if kind not in OIDS:
                raise ProgrammingError(f"unknown type name {kind!r}; give its oid")
            kind = OIDS[kind]
        return casts_of(self._cur, [kind])[0] if isinstance(kind, int) else kind

    def _loaded(self, row: tuple[str | None, ...]) -> tuple[Any, ...]:
        casts, encoding = self._casts, self._encoding
        if casts is None:
            return row
        if len(casts) != len(row):
            raise DataError(f"a row has {len(row)} fields, set_types() named {len(casts)}")
        return tuple(
            cast(None if field is None else field.encode(encoding), self._cur)
            for cast, field in zip(casts, row, strict=True)
        )

    def __exit__(self, kind: Any, exc: BaseException | None, trace: Any) -> None:
        """End the COPY and raise the server's error, if the block raised none."""
        if self._task is None:
            return
        try:
            self._finish(exc)
        except BaseException as error:
            if self._task is not None:
                self._leave(error)
            raise

    def __del__(self) -> None:
        """Close the connection of a COPY that was not ended."""
        if self._task is not None:  # Ctrl-C at the entry of `__exit__`, for example
            self._abandon()

    def _finish(self, exc: BaseException | None) -> None:
        state = self._conn._greenpg_state
        if state.is_ending() or state.current() != self._task:
            self._abandon()
        elif exc is not None:
            self._stop(exc)
        elif self._status == PGRES_COPY_IN:
            if self._gathered:
                self._send()
            self._end()
        elif self._conn.status == ext.STATUS_BEGIN:
            while self.read():
                pass  # a cancel would abort the transaction
        else:
            self._stop(None)

    def _abandon(self) -> None:
        """Close the connection: the garbage collector has ended the block, in any task."""
        state = self._conn._greenpg_state
        if not state.holder_lost and state.resume_block(id(self)):
            state.shut(self._conn)
        self._leave()

    def _note_error(self, error: BaseException) -> None:
        """End the COPY if an interrupt, such as Ctrl-C, has come outside a wait."""
        if isinstance(error, Exception):
            return
        if self._task is not None:
            self._stop(error)
        else:
            self._conn._greenpg_state.note_outside(self._conn)

    def _stop(self, exc: BaseException | None) -> None:
        if self._conn._greenpg_state.resume_block(id(self)):
            cancel_and_drain(self._conn, exc, self._rest_steps)
        try:
            self._leave()
        except BaseException as raised:
            if raised is not exc:
                raise

    def _end(self) -> None:
        """Raise the server's error, if any; collect notices and notifications as psycopg2 does."""
        errors: list[Error] = []

        def take(result: int) -> None:
            if libpq.PQresultStatus(result) != PGRES_COMMAND_OK:
                errors.append(error_of(result, self._encoding))
            else:
                touched = self._cur.query, rowcount(result), statusmessage(result)
                object.__setattr__(self._cur, "_greenpg_touched", touched)

        self._drive(self._ending(take))
        self._leave()
        if errors:
            raise errors[0]

    def _ending(self, take: Callable[[int], None]) -> Steps:
        if self._status == PGRES_COPY_IN:
            yield from end_copy_in(self._pgconn, self._fd)
        yield from results(self._pgconn, self._fd, take)
        collect_notices(self._conn)

    def _use(self, status: int) -> None:
        if self._status != status:
            fact = {0: "not running", PGRES_COPY_IN: "a COPY FROM", PGRES_COPY_OUT: "a COPY TO"}
            raise ProgrammingError(f"this copy is {fact[self._status]}")
        if self._conn._greenpg_state.current() != self._task:
            raise ProgrammingError("this copy belongs to another task")

    def _drive(self, operation: Operation[_T]) -> _T:
        """Run a part of the COPY; an interrupt ends the whole COPY."""
        state = self._conn._greenpg_state
        if not state.resume_block(id(self)):
            self._leave()
            raise state.closed_error()
        state.bound_operation(state.deadlines.get(self._task))  # which may have begun in the block
        try:
            value = drive(self._conn, operation, self._rest_steps, self._time_slice)
            self._pause(state)
        except BaseException as error:
            self._leave(error)
            raise
        return value  # type: ignore[return-value]  # None only where something is pending

    def _pause(self, state: State) -> None:
        """Return to the block's code, or raise what is pending."""
        if state.closing and state.pending is None:
            cancel_and_drain(self._conn, state.closed_error(), self._rest_steps)
        if state.pending is not None:
            raise state.pending
        state.pause_block()

    def _rest_steps(self) -> Steps:
        return finish(self._pgconn, self._fd)

    def _leave(self, error: BaseException | None = None) -> None:
        """Return the connection, idle; raises an interrupt that came between two steps.

        After Ctrl-C in here, `__exit__` or the garbage collector calls this again.
        """
        conn, state, task = self._conn, self._conn._greenpg_state, self._task
        if state.resume_block(id(self)):  # else another task closes
            state.note_copy()
        if error is not None and not isinstance(error, Exception):
            state.note_interrupt(error)
        state.block_paused = self._task = None
        state.in_driver, self._status = False, 0
        try:
            state.leave(conn)
        except BaseException as raised:
            if state.copy_may_be_running and state.holder == task:  # Ctrl-C at the entry
                state.pending = raised
                state.leave(conn)
            raise


def _state_for(cur: Any) -> State:
    libpq.need("PQputCopyData", "PQputCopyEnd", "PQgetlineAsync", "PQgetResult")
    conn = cur.connection
    state: State | None = getattr(conn, "_greenpg_state", None)
    if state is None or ext.get_wait_callback() is not wait_callback:
        raise ProgrammingError("copy() needs a connection made by greenpg, and its wait callback")
    if conn.async_:
        raise ProgrammingError("copy cannot be used in asynchronous mode")
    if cur.name is not None:
        raise ProgrammingError("copy() cannot be used on a named cursor")
    return state
