"""The green cursor: psycopg2's, with every entry into C guarded by the connection's lock."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeVar

from psycopg2 import Error, ProgrammingError
from psycopg2._psycopg import cursor as c_cursor
from psycopg2.errors import InvalidCursorName
from psycopg2.extensions import get_wait_callback

from . import _named_fetches as named
from ._checks import check_count
from ._green_classes import become, green
from ._large_results import SLICE_ROWS, RowStream, fetch_on, stream
from ._psycopg2.operation import guarded
from ._psycopg2.wait_callback import wait_callback
from ._session.lock import BEING_FETCHED
from ._written import PLACEHOLDER, Written, write, write_each, written
from .copy import Copy, FileTransfer, command
from .pipeline import execute_many, may_pipeline
from .sync import ConnectionLock

if TYPE_CHECKING:
    from ._psycopg2.state import CopyJob, State

__all__ = ["Cursor", "NamedCursor"]

_T = TypeVar("_T")
_init = c_cursor.__init__
_execute = c_cursor.execute
_fetchmany: Callable[..., list[Any]] = c_cursor.fetchmany
_c_rowcount: Final[Any] = c_cursor.rowcount
_c_statusmessage: Final[Any] = c_cursor.statusmessage


@green(c_cursor)
class Cursor(c_cursor):
    """psycopg2's cursor whose waits are green and whose connection other tasks may share.

    One that has a name becomes a `NamedCursor`.
    """

    connection: Any
    # executemany's or COPY's last query, its count, and its tag if psycopg2 has not seen it
    _greenpg_touched: tuple[bytes | None, int, str | None] = (None, 0, None)

    def __init__(self, conn: Any, name: Any = None, *args: Any, **kwargs: Any) -> None:
        if type(self) is Cursor and name is None and not args and not kwargs:
            _init(self, conn)  # most cursors; nobody else is below, and super() costs a fifth
            return
        super().__init__(conn, name, *args, **kwargs)
        if name is not None and not isinstance(self, NamedCursor):
            become(self, NamedCursor)

    def execute(self, query: Any, vars: Any = None) -> None:
        """Run a statement; psycopg2's semantics.

        After an interrupt it may have run or not; inside a transaction only a rollback is
        accepted then.
        """
        conn = self.connection
        try:
            state = conn._greenpg_state_made
        except AttributeError:
            state = getattr(conn, "_greenpg_state", None)
            if state is None:  # of a class that skips our __init__, or on a plain connection
                return _execute(self, query, vars)
        if state.cursors_fetching and self in state.cursors_fetching:
            raise _being_fetched()
        if vars is not None or type(query) is not str:
            query, vars = written(self, query, vars)
        current, last = state.current, state.last
        me = current()
        free = False
        if last() == me and not state.entry_needs_check:
            # as claim() does, and on one line: a tracer may change threads between two lines
            # (test_lock_threads.py). A call of enter() takes as long as all of this.
            state.holder = me if (free := state.holder is None) else state.holder
        if free:
            state.finish_on_interrupt = False
            state.in_driver = True
        else:
            state.enter(False, query)
        try:
            return _execute(self, query, vars)
        except BaseException as error:
            _failed(state, error)
            state.note_error(error)
            raise
        finally:
            state.in_driver = False
            if state.exit_needs_check:
                state.leave(conn)
            else:  # as release() does; both ways are compared by `greenpg bench --workload select1`
                state.holder = None
                if state.queue:
                    state.serve()

    def executemany(self, query: Any, vars_list: Any) -> None:
        """Run a statement for each set of variables, which may come from the same connection."""
        conn = self.connection
        if not hasattr(conn, "_greenpg_state"):  # on a plain connection
            c_cursor.executemany(self, query, vars_list)
            return
        with ConnectionLock(conn):  # rows that query the connection must not let others in
            try:
                touched = _execute_many(self, query, vars_list)
            except BaseException as error:
                _interrupted(self, error)
                raise
        if touched is not None:
            object.__setattr__(self, "_greenpg_touched", (self.query, touched, None))

    def _greenpg_many(self, query: Any, rows: Iterable[Any]) -> None:
        self._greenpg_run(_execute_rows, query, rows)

    @property
    def rowcount(self) -> int:
        """The number of rows that the last statement touched or returned; -1 if unknown."""
        query, touched, _ = self._greenpg_touched
        if query is not None and query is self.query:
            return touched
        count: int = _c_rowcount.__get__(self)
        return count

    @property
    def statusmessage(self) -> str | None:
        """The tag of the last statement, such as INSERT 0 1."""
        query, _, tag = self._greenpg_touched
        if tag is not None and query is self.query:
            return tag
        message: str | None = _c_statusmessage.__get__(self)
        return message

    def copy_from(
        self,
        file: Any,
        table: str,
        sep: str = "\t",
        null: str = "\\N",
        size: int = 8192,
        columns: Iterable[str] | None = None,
    ) -> None:
        """Load a table from a file; `read(size)` gives str or bytes. See `copy_expert`."""
        if not hasattr(file, "read"):
            raise TypeError("argument 1 must have a .read() method")
        _check_size(size)
        self._greenpg_copy_table(
            c_cursor.copy_from, "FROM stdin", table, file, size, (sep, null, columns)
        )

    def copy_to(
        self,
        file: Any,
        table: str,
        sep: str = "\t",
        null: str = "\\N",
        columns: Iterable[str] | None = None,
    ) -> None:
        """Write a table to a file, some 64 kB a `write()`. See `copy_expert`."""
        if not hasattr(file, "write"):
            raise TypeError("argument 1 must have a .write() method")
        self._greenpg_copy_table(
            c_cursor.copy_to, "TO stdout", table, file, 0, (sep, null, columns)
        )

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        """Run a COPY statement from or to a file.

        psycopg2's manual, "Using COPY TO and COPY FROM". What `read()` raises fails the copy,
        and is the cause of the server's error; what `write()` raises propagates. The file's
        methods may wait, but not use the connection.
        """
        _check_size(size)
        self._greenpg_copy(partial(c_cursor.copy_expert, self, sql, file, size), sql, file, size)

    def copy(self, statement: Any, params: Any = None) -> Copy:
        """Run a COPY for the length of a with block, which writes or reads its data.

        psycopg 3's `Cursor.copy`. An exception in the block fails the COPY.
        """
        state = getattr(self.connection, "_greenpg_state", None)
        if state is not None and self in state.cursors_fetching:
            raise _being_fetched()
        return Copy(self, statement, params)

    def _greenpg_copy_table(
        self, method: Any, direction: str, table: str, file: Any, size: int, options: Any
    ) -> None:
        sep, null, columns = options
        listed = None if columns is None else tuple(columns)
        arguments = {"size": size} if size else {}
        plain = partial(method, self, file, table, sep, null, columns=listed, **arguments)
        if self._greenpg_copies_in_c():
            plain()
        else:
            sql = command(self.connection, table, direction, sep, null, listed)
            self._greenpg_copy(plain, sql, file, size)

    def _greenpg_copy(self, plain: Callable[[], None], sql: Any, file: Any, size: int) -> None:
        if self._greenpg_copies_in_c():
            plain()
            return
        if not hasattr(file, "read") and not hasattr(file, "write"):
            raise TypeError(
                "file must be a readable file-like object for COPY FROM; "
                "a writable file-like object for COPY TO."
            )
        job = FileTransfer(self.connection, file, size)
        try:
            self._greenpg_run(_execute_job, job, *written(self, sql, None))
        except Error as err:
            if job.error is None or err is job.error:
                raise
            if job.incoming and isinstance(job.error, Exception):
                raise err from job.error  # as psycopg2: the server's error, and why
            raise job.error from None
        if job.error is not None:
            raise job.error

    def _greenpg_copies_in_c(self) -> bool:
        """Return True if C has to raise the error, or to copy, blocking, where nothing is green."""
        conn = self.connection
        plain = self.closed or not hasattr(conn, "_greenpg_state") or conn.async_
        return plain or get_wait_callback() is not wait_callback

    def callproc(self, procname: Any, parameters: Any = None) -> Any:
        """Call a stored function."""
        if parameters is None:
            return self._greenpg_run(c_cursor.callproc, procname)
        if not hasattr(self.connection, "_greenpg_state"):  # on a plain connection
            return c_cursor.callproc(self, procname, parameters)
        done = self._greenpg_run(c_cursor.callproc, procname, write_each(self, parameters))
        return None if done is None else parameters

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Fetch all rows that are left; a large result is built in time slices.

        Between them other tasks run, except that they cannot execute on this cursor. After an
        interrupt the cursor stands between two rows, and those fetched are lost.
        """
        try:
            rows: list[Any] = _fetchmany(self, SLICE_ROWS)
            if len(rows) == SLICE_ROWS:
                fetch_on(self, _fetchmany, rows, sys.maxsize)
            return rows
        except BaseException as error:
            _interrupted(self, error)
            raise

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Fetch `size` rows, by default `arraysize`; many are built in time slices."""
        try:
            if size is None or size <= SLICE_ROWS:
                return _fetchmany(self, size)
            rows: list[Any] = _fetchmany(self, SLICE_ROWS)
            if len(rows) == SLICE_ROWS:
                fetch_on(self, _fetchmany, rows, size - SLICE_ROWS)
            return rows
        except BaseException as error:
            _interrupted(self, error)
            check_count("size", size, -inf, none=True)
            raise

    def stream(self, query: Any, vars: Any = None) -> RowStream:
        """Run a query on a server-side cursor of its own and give its rows, in bounded memory.

        It fetches 100 rows at first, then more at a time, up to 4000 or some megabytes. Under
        autocommit the server keeps the result (WITH HOLD) until the iteration ends.
        """
        return stream(self, Cursor.execute, query, vars)

    def _greenpg_run(
        self, method: Callable[..., _T], *args: Any, finish_on_interrupt: bool = False
    ) -> _T:
        conn = self.connection
        state = getattr(conn, "_greenpg_state", None)
        if state is None:  # of a class that skips our __init__, or on a plain connection
            return method(self, *args)
        if state.cursors_fetching and self in state.cursors_fetching:
            raise _being_fetched()
        return guarded(
            conn, method, self, *args, finish_on_interrupt=finish_on_interrupt, failed=_failed
        )


def _check_size(size: int) -> None:
    """Raise unless `size` is that of a file's `read`, where 0 would mean the end of the file."""
    check_count("size", size, -1)
    if size == 0:
        raise ValueError("size=0: give at least 1, or -1 to read all at once")


def _being_fetched() -> ProgrammingError:
    return ProgrammingError(BEING_FETCHED)


def _execute_job(cur: Cursor, job: CopyJob, sql: Any, vars: Any) -> None:
    state = cur.connection._greenpg_state
    state.job = job
    try:
        _execute(cur, sql, vars)
    finally:
        state.job = None


def _execute_many(cur: Cursor, query: Any, rows: Any) -> int | None:
    """Return the number of touched rows, None if psycopg2 counts them."""
    if may_pipeline(cur, query, rows):
        return execute_many(cur, query, iter(rows), partial(cur._greenpg_many, query))
    cur._greenpg_many(query, rows)
    return None


def _execute_rows(cur: Cursor, query: Any, rows: Iterable[Any]) -> None:
    c_cursor.executemany(cur, PLACEHOLDER, _statements(cur, query, rows))


def _failed(state: State, error: BaseException) -> None:
    if isinstance(error, ProgrammingError):
        state.note_copy()  # C raises it too, where a COPY that has begun has no file


def _interrupted(cur: Cursor, error: BaseException) -> None:
    """Note what an operation of several steps raises, which may have come between two steps."""
    state = getattr(cur.connection, "_greenpg_state", None)
    if state is not None and not isinstance(error, Exception):
        state.note_outside(cur.connection)


def _statements(
    cur: Cursor, query: Any, rows: Iterable[Any]
) -> Generator[tuple[Written], None, None]:
    """Yield a statement for each row; while the next one is made, the task is outside C."""
    conn, source = cur.connection, iter(rows)
    state = conn._greenpg_state
    while True:
        state.in_driver = False
        try:
            statement = write(cur, query, next(source))
        except StopIteration:
            return
        finally:
            state.in_driver = True
        if conn.closed:  # by another task meanwhile; C would call its pointer NULL
            raise state.closed_error()
        yield (statement,)


class NamedCursor(Cursor):
    """A server-side cursor: its fetches run statements, so they are guarded too."""

    def fetchone(self) -> tuple[Any, ...] | None:
        """Fetch the next row."""
        row: tuple[Any, ...] | None = self._greenpg_run(named.fetch, named.fetchone)
        return row

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Fetch `size` rows, by default `arraysize`; many are built in time slices."""
        return self._greenpg_run(
            named.fetch, named.fetchmany, self.arraysize if size is None else size
        )

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Fetch all rows that are left; a large result is built in time slices.

        Other tasks wait for the connection until then.
        """
        return self._greenpg_run(named.fetch, named.fetchmany, named.ALL)

    def scroll(self, value: int, mode: str = "relative") -> None:
        """Move the cursor."""
        self._greenpg_run(c_cursor.scroll, value, mode)

    def close(self) -> None:
        """Close the cursor on the server too."""
        if self.closed:
            return
        close = partial(self._greenpg_run, c_cursor.close, finish_on_interrupt=True)
        try:
            close()  # allowed in a transaction that has failed
        except InvalidCursorName:
            state = getattr(self.connection, "_greenpg_state", None)
            if state is None or not state.must_roll_back:
                raise
            close()  # its DECLARE was never sent; this sends nothing

    def __next__(self) -> tuple[Any, ...]:
        return self._greenpg_run(named.next_row)

    def __exit__(self, kind: Any, exc: Any, trace: Any) -> None:
        try:
            self.close()
        except Error:
            if kind is None:  # else the block's own exception says more
                raise
