"""`ConnectionLock` keeps a connection for one task, `Deadline` bounds a task's operations."""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import Any

from ._checks import check_seconds
from ._session.counts import counts
from ._session.session import Session

__all__ = ["ConnectionLock", "Deadline", "counts"]


def state_of(conn: Any) -> Session:
    """Return the session of a green connection; TypeError for another object."""
    state = getattr(conn, "_greenpg_state", None)
    if not isinstance(state, Session):
        raise TypeError(
            f"{type(conn).__name__!r} object is not a connection made by greenpg; "
            "connect with greenpg.connect or greenpg.psycopg3.connect, or patch the driver first"
        )
    return state


def is_green(conn: Any) -> bool:
    """Return True if greenpg made the connection, of whichever driver."""
    return isinstance(getattr(conn, "_greenpg_state", None), Session)


def must_roll_back(conn: Any) -> bool:
    """Return True if an interrupt has left a transaction that accepts only a rollback."""
    return state_of(conn).must_roll_back


class ConnectionLock:
    """Holds a connection for the running task until released; other tasks wait in order.

    Re-entrant per task. A Timeout or kill while waiting gives the place in the queue up.
    """

    def __init__(self, conn: Any) -> None:
        self._state = state_of(conn)

    def acquire(self, timeout: float | None = None) -> None:
        """Take the lock; DeadlineExceeded after `timeout` seconds or at the task's deadline."""
        if timeout is not None:
            check_seconds("timeout", timeout, none=True)
        state = self._state
        state.acquire(state.current(), timeout)

    def release(self) -> None:
        """Undo one `acquire` of this task; RuntimeError without one."""
        state = self._state
        if not state.depth or state.holder != state.current():
            raise RuntimeError("this task does not hold the connection's lock")
        state.depth -= 1
        state.let_go()

    def locked(self) -> bool:
        """Return True if any task has the connection now."""
        return self._state.holder is not None

    def __enter__(self) -> ConnectionLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        state = self._state
        state.depth -= 1
        state.let_go()


class Deadline:
    """Bounds the running task's operations on one connection, waiting for its lock included.

    The nearest of nested deadlines counts. An operation that it stops raises DeadlineExceeded,
    and the connection stays usable. A rollback may take `cancel_timeout` seconds beyond it.
    """

    def __init__(self, conn: Any, seconds: float) -> None:
        self._state = state_of(conn)
        try:  # as `check_seconds` does, without the call
            valid = seconds + 0.0 <= inf
        except (TypeError, OverflowError):
            valid = False
        if not valid:
            check_seconds("seconds", seconds)
        self._seconds = seconds
        self._task: Any = None
        self._outer: float | None = None

    def __enter__(self) -> Deadline:
        state = self._state
        self._task = state.current()
        self._outer = state.deadlines.get(self._task)
        instant = monotonic() + self._seconds
        state.set_deadline(
            self._task, instant if self._outer is None else min(instant, self._outer)
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._state.set_deadline(self._task, self._outer)
