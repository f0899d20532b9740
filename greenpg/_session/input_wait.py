"""Waiting for unsolicited data: notifications, a replication stream."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from greenpg.backend import READ

if TYPE_CHECKING:
    from greenpg.backend import Backend

    from .session import Session


class _Wake(BaseException):
    """Ends a wait: there is other work."""


class InputWait:
    """Waits as `wait_for_input`, or another such function, and can be woken by other tasks."""

    def __init__(self, conn: Any, wait: Callable[..., bool] | None = None) -> None:
        self._conn = conn
        self._wait = wait_for_input if wait is None else wait
        self._backend: Backend = conn._greenpg_state.backend
        self._may_miss = "hub" not in self._backend.capabilities
        self._expect: Callable[[bool], object] = _nothing
        if wait is wait_while_held:  # else the next wait may be another task's
            self._expect = getattr(conn._greenpg_state.waiter, "expect", _nothing)
        self._wakers: list[object] = []
        self.waiting = False
        self._woken = False

    def wait(self, timeout: float | None, has_work: Callable[[], object], events: int) -> bool:
        """Return True if data has arrived; do not wait if `has_work` returns something true.

        A wake-up from another OS thread may come just before the wait; it is lost, but not the
        next one. Where the task holds the connection none is lost.
        """
        self.waiting, self._woken = True, False
        try:
            self._expect(True)
            return not has_work() and self._wait(self._conn, timeout, events)
        except _Wake:
            self._woken = False
            return False
        finally:
            self.waiting = False
            while self._wakers:  # another OS thread's interrupt must not hit a later wait
                self._backend.pause()
            self._expect(False)
            if self._woken:
                self._absorb()

    def _absorb(self) -> None:
        """Take the wake-up that is on its way: the next wait must not meet it."""
        try:
            if not self._conn.closed:
                self._wait(self._conn, 0)
        except _Wake:
            return

    def wake(self) -> None:
        """End the wait, if there is one; from any thread, and in the hub."""
        try:
            self._wakers.append(None)  # before the look at `waiting`; inside, for Ctrl-C
            if self.waiting and (self._may_miss or not self._woken):
                self._woken = True
                self._conn._greenpg_state.waiter.interrupt(_Wake())
        finally:
            self._wakers.pop()


def _nothing(expected: bool) -> None:
    """Do nothing: a wake-up comes from the task's own thread, or may be missed."""


def wait_for_input(conn: Any, timeout: float | None, events: int = READ) -> bool:
    """Hold the connection until unsolicited data arrives; False after `timeout` seconds.

    Data that libpq has read already does not count: take it first. The wait is outside the driver,
    so an interrupt changes nothing on the connection and `close()` from another task ends it with
    the driver's error. The task's deadline raises DeadlineExceeded.
    """
    state: Session = conn._greenpg_state
    me = state.current()
    state.acquire(me)
    try:
        deadline = state.deadlines.get(me)
        left = timeout if deadline is None else _nearest(timeout, deadline - monotonic())
        ready = _wait(conn, state, events, left)
        if not ready and deadline is not None and monotonic() >= deadline:
            text = "the deadline passed while waiting for the server to speak"
            raise state.errors.deadline_exceeded(text)
        return bool(ready)
    finally:
        state.depth -= 1
        state.let_go()


def wait_while_held(conn: Any, timeout: float | None, events: int = READ) -> bool:
    """Wait as `wait_for_input`, in the task that holds the connection; it has no deadline.

    Raises the driver's error if another task has closed it, also where data arrived meanwhile.
    """
    state: Session = conn._greenpg_state
    ready = _wait(conn, state, events, timeout)
    if state.closing:
        raise state.closed_error()
    return bool(ready)


def _nearest(timeout: float | None, left: float) -> float:
    return left if timeout is None else min(timeout, left)


def _wait(conn: Any, state: Session, events: int, timeout: float | None) -> int:
    if conn.closed:
        raise state.closed_error()
    if state.fd < 0:
        state.settle_descriptor(conn)
    state.waiting_outside = True
    try:
        return state.wait(state.fd, events, timeout)
    finally:
        state.waiting_outside = False
        if state.closing:
            state.shut(conn)
