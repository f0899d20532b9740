"""psycopg2's wait callback: the only place that waits for connections' sockets."""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

from psycopg2 import Error, OperationalError, ProgrammingError
from psycopg2 import extensions as ext
from psycopg2._psycopg import connection as c_connection

from . import _repair
from ._attempt import Attempt, attempts
from ._state import IN_HUB, State
from .backend import READ, WRITE, Backend, Waiter, current
from .errors import DeadlineExceeded

__all__ = ["install", "wait", "wait_callback"]

POLL_OK: Final = ext.POLL_OK
POLL_READ: Final = ext.POLL_READ
CONNECTED: Final = (ext.STATUS_READY, ext.STATUS_BEGIN, ext.STATUS_PREPARED)
_poll = c_connection.poll


def install() -> None:
    """Make `wait_callback` the process's, unless the program has set another."""
    if ext.get_wait_callback() is None:
        ext.set_wait_callback(wait_callback)


def wait_callback(conn: Any) -> None:
    """Drive one wait of psycopg2 through the connection's backend.

    An interrupt is noted, the query cancelled and its end awaited; the operation that called
    psycopg2 then raises it. For a connection that greenpg did not make it is raised here,
    upon which psycopg2 closes the connection.
    """
    state = getattr(conn, "_state", None)
    if state is None:
        _wait_plain(conn)
    elif state.inside and state.live and state.pending is None:
        _wait(conn, state)
    else:
        _wait_specially(conn, state)


def _wait(conn: Any, state: State) -> None:
    polling = True
    try:
        while True:
            want = _poll(conn)
            if want == POLL_OK:
                return
            polling = False
            if state.until is None and not state.closing:
                state.wait(state.fd, READ if want == POLL_READ else READ | WRITE, None)
            else:
                _bounded(state, READ if want == POLL_READ else READ | WRITE)
            polling = True
    except BaseException as exc:
        if polling and isinstance(exc, Exception):
            state.waiter.close()
            raise
        _repair.interrupted(conn, state, exc)


def _bounded(state: State, events: int) -> None:
    """Wait no longer than the operation's deadline, and not at all while closing."""
    if state.closing:
        raise _repair.closed()
    left = None if state.until is None else state.until - monotonic()
    if left is not None and (left <= 0 or not state.wait(state.fd, events, left)):
        raise DeadlineExceeded("canceling statement due to the deadline of its task")
    if left is None:
        state.wait(state.fd, events, None)


def _wait_specially(conn: Any, state: State) -> None:
    if state.pending is not None:
        _repair.interrupted(conn, state, state.pending)
        return
    if not state.live:
        if conn.status not in CONNECTED:
            _connect(conn, state.backend)
            return
        state.fd = conn.fileno()
        state.live = True
    if state.inside:
        _wait(conn, state)
    else:
        _wait_unguarded(conn, state)


def _connect(conn: Any, backend: Backend) -> None:
    """Wait while libpq connects, when the descriptor may change between two waits."""
    attempt = attempts.get()
    if attempt is not None:
        attempt.begin(conn)
    while (want := _poll_connecting(conn, attempt)) != POLL_OK:
        left = None if attempt is None else attempt.left()
        events = READ if want == POLL_READ else WRITE
        if not _repair.wait_once(backend, conn.fileno(), events, left) and attempt is not None:
            raise attempt.failed(conn, "timeout expired\n")
    if attempt is not None:
        attempt.end(conn)


def _poll_connecting(conn: Any, attempt: Attempt | None) -> int:
    try:
        return _poll(conn)
    except OperationalError as err:
        raise err if attempt is None else attempt.failed(conn, str(err)) from None


def _wait_plain(conn: Any) -> None:
    """Wait for a connection of psycopg2's own class."""
    backend = current()
    if not backend.can_wait():
        raise ProgrammingError(IN_HUB)
    waiter = backend.waiter()
    try:
        if conn.status in CONNECTED:
            _wait_raising(conn, backend, waiter)
        else:
            _connect(conn, backend)
    finally:
        waiter.close()


def _wait_raising(conn: Any, backend: Backend, waiter: Waiter) -> None:
    fd = conn.fileno()
    try:
        while (want := _poll(conn)) != POLL_OK:
            waiter.wait(fd, READ if want == POLL_READ else READ | WRITE, None)
    except Error:
        raise
    except BaseException as exc:
        raise _repair.stopped(conn, backend, waiter, exc) from None


def _wait_unguarded(conn: Any, state: State) -> None:
    """Wait for an operation that came into C past our classes (`cursor.execute(cur, ...)`).

    The lock is given back by a task of its own: more of the same operation may follow without
    a switch, and nobody else may enter C before its end.
    """
    backend = state.backend
    if not backend.can_wait():
        raise ProgrammingError(IN_HUB)
    ours = state.held.setdefault(0, state) is state
    state.inside = True
    try:
        _wait_raising(conn, backend, state.waiter)
    finally:
        state.inside = False
        if ours and "hub" in backend.capabilities:
            backend.spawn(_release_unguarded, state)
        elif ours:
            state.release()


def _release_unguarded(state: State) -> None:
    if not state.inside and state.held.get(0) is state:
        state.release()


def wait(conn: Any, timeout: float | None = None) -> None:
    """Wait until an asynchronous connection (`async_=1`) has connected or run its query.

    It is psycopg2.extras.wait_select for every backend: other tasks run, and wait their turn
    for the connection. TimeoutError after `timeout` seconds and any interrupt leave the query
    running, as they find it; wait again, or cancel.
    """
    state = getattr(conn, "_state", None) or State(current())
    end = None if timeout is None else monotonic() + timeout
    state.acquire(state.current(), timeout)
    try:
        while (want := conn.poll()) != POLL_OK:
            events = READ if want == POLL_READ else WRITE
            left = None if end is None else end - monotonic()
            if not _repair.wait_once(state.backend, conn.fileno(), events, left):
                raise TimeoutError(f"the operation was not over in {timeout:g} s")
    finally:
        state.relinquish()
