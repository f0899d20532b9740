"""LISTEN: one connection's notifications as an iterator."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from psycopg2 import Error, ProgrammingError
from psycopg2 import extensions as ext

from ._checks import check_seconds
from ._green_classes import green_class
from ._psycopg2.identifiers import quoted
from ._psycopg2.psycopg2_c import c_connection, c_cursor, execute, transaction_status
from ._session.input_wait import InputWait
from ._session.time_slice import TimeSlice
from .backend import READ
from .sync import ConnectionLock, Deadline

if TYPE_CHECKING:
    from ._psycopg2.state import State

_TICK: Final = 0.005  # seconds
LONGEST: Final = 63  # bytes; the server truncates longer names (manual, "Identifiers")
_IDLE: Final = ext.TRANSACTION_STATUS_IDLE


class Notifications:
    """Iterates over a connection's notifications; made by `conn.listen`.

    The end of the iteration or of a with block, `close()` and garbage collection stop listening
    and release the connection to other tasks. In an open transaction UNLISTEN takes effect at
    its commit.
    """

    _open = False

    def __init__(self, conn: Any, channels: Iterable[str], timeout: float | None) -> None:
        check_seconds("timeout", timeout, none=True)
        self._conn = conn
        self._timeout = timeout
        self._names = checked(channels)
        self._own: list[str] = []  # channels that the session did not listen to before
        self._state: State = conn._greenpg_state
        self._task = self._state.current()
        self._time_slice = TimeSlice(self._state.backend)
        self._waits = self._stopped = False
        self._input = InputWait(conn)
        self._state.acquire(self._task)
        try:
            self._refuse_transaction()
            self._sorter = _Sorter(conn, self._names)
            self._listen()
        except BaseException:
            self._state.depth -= 1
            self._state.let_go()
            raise
        self._open = True

    def __iter__(self) -> Notifications:
        """Return itself: there is one iteration."""
        return self

    def __next__(self) -> ext.Notify:
        """Return the next notification; `timeout` seconds without one end the iteration."""
        if not self._open:
            raise StopIteration
        if self._state.current() != self._task:
            raise ProgrammingError("listen: the iteration belongs to the task that called listen")
        self._waits = True
        try:
            found = self._next()
        except BaseException as error:
            if not isinstance(error, Exception):
                self._state.note_outside(self._conn)
            self._end()
            raise
        finally:
            self._waits = False
        if found is None:
            self._end()
            raise StopIteration
        return found

    def __enter__(self) -> Notifications:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        """Stop listening, in a new task if this one may not wait for it."""
        if self._open and not sys.is_finalizing():
            self._let_go()
            self._state.call_in_finalizer(self._unlisten_in_turn)

    def close(self) -> None:
        """Stop listening; may be called again, and from any task.

        Notifications that were not yielded are left in `conn.notifies`.
        """
        if sys.is_finalizing():
            self._open = False  # the session ends with the process
        elif self._state.current() == self._task:
            self._end()
        elif self._waits:
            self._stop_waiting()
        elif self._open:
            self._let_go()
            self._unlisten()

    def _stop_waiting(self) -> None:
        self._stopped = True
        self._input.wake()
        while self._waits and self._state.can_wait():
            self._state.backend.sleep(_TICK)
            self._input.wake()  # an OS thread that was about to sleep missed the first one

    def _end(self) -> None:
        if self._open:
            try:
                self._unlisten()
            finally:
                self._let_go()

    def _let_go(self) -> None:
        self._open = False
        self._sorter.restore()
        self._state.depth -= 1
        self._state.let_go()

    def _next(self) -> ext.Notify | None:
        found = self._sorter.found
        if found:  # a burst is yielded without a wait
            self._state.pause_outside(self._conn, self._time_slice)
        else:
            self._find()
            self._time_slice.restart()
        return found.popleft() if found else None

    def _find(self) -> None:
        end = None if self._timeout is None else monotonic() + self._timeout
        while not self._stopped:
            self._refuse_transaction()
            self._conn.poll()
            left = None if end is None else end - monotonic()
            if self._sorter.found or (left is not None and left <= 0):
                return
            self._input.wait(left, lambda: self._stopped, READ)

    def _refuse_transaction(self) -> None:
        if self._conn.closed:
            raise self._state.closed_error()
        if self._conn.async_:
            raise ProgrammingError("listen cannot be used in asynchronous mode")
        if self._conn.get_transaction_status() != _IDLE:
            raise ProgrammingError(
                "listen cannot be used in a transaction: the server holds notifications back "
                "until its end; commit or roll back first"
            )

    def _listen(self) -> None:
        try:
            cur = _plain_cursor(self._conn)
            cur.execute("SELECT pg_catalog.pg_listening_channels()")
            known = {row[0] for row in cur.fetchall()}
            self._own = [name for name in self._names if name not in known]
            if self._own:
                cur.execute(statement(self._conn, "LISTEN", self._own))
            self._conn._greenpg_run(c_connection.commit, finish_on_interrupt=False)
        except BaseException:
            if not self._conn.closed:  # the interrupted statement may have run
                self._conn._greenpg_run(c_connection.rollback)
                self._unlisten()
            self._sorter.restore()
            raise

    def _unlisten_in_turn(self) -> None:
        with suppress(Error), ConnectionLock(self._conn):  # however long others use it
            self._unlisten()

    def _unlisten(self) -> None:
        conn = self._conn
        if self._own and not conn.closed:
            # a lost session has no channels; in spite of the 0 this waits up to `cancel_timeout`
            with suppress(Error), Deadline(conn, 0):
                conn._greenpg_run(_unlisten, self._own)


class _Sorter:
    """Replaces `conn.notifies`, and passes other channels' notifications on to it."""

    def __init__(self, conn: Any, names: Iterable[str]) -> None:
        self.found: deque[ext.Notify] = deque()
        self._conn = conn
        self._names = frozenset(names)
        self._others = conn.notifies
        conn.notifies = self

    def append(self, note: ext.Notify) -> None:
        """Keep a notification for the iteration, or pass it on."""
        mine = note.channel in self._names
        (self.found if mine else self._others).append(note)

    def restore(self) -> None:
        """Restore the program's `notifies`, and append what was not yielded."""
        self._names = frozenset()  # a later `_Sorter` may still pass notifications to this one
        if self._conn.notifies is self:
            self._conn.notifies = self._others
        while self.found:
            self._others.append(self.found.popleft())


def checked(channels: Iterable[str], wrong: type[Exception] = ProgrammingError) -> list[str]:
    """Return the channels' names, each once; `wrong` is raised for an impossible name."""
    names = list(dict.fromkeys(checked_type(channels)))
    if not names:
        raise wrong("listen: name at least one channel")
    for name in names:
        if not 0 < len(name.encode()) <= LONGEST or "\0" in name:
            raise wrong(
                f"channel {name[:LONGEST]!r}: a name has 1 to {LONGEST} bytes, none of them zero"
            )
    return names


def checked_type(channels: Iterable[str]) -> Iterable[str]:
    """Return the names; TypeError unless each is a str."""
    for name in channels:
        if not isinstance(name, str):
            raise TypeError(f"a channel's name is a str, not {type(name).__name__}: {name!r}")
    return channels


def statement(conn: Any, verb: str, names: Iterable[str]) -> str:
    """Return the LISTEN or UNLISTEN statements as one string."""
    return "; ".join(f"{verb} {quoted(conn, name)}" for name in names)


def _plain_cursor(conn: Any) -> Any:
    return c_connection.cursor(conn, None, green_class(c_cursor))


def _unlisten(conn: Any, names: list[str]) -> None:
    status = transaction_status(conn)
    if status in (_IDLE, ext.TRANSACTION_STATUS_INTRANS):
        execute(_plain_cursor(conn), statement(conn, "UNLISTEN", names))
    if status == _IDLE:
        c_connection.commit(conn)
