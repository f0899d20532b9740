"""psycopg2's wait callback: the only place that waits for connections' sockets."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from psycopg2 import Error, OperationalError, ProgrammingError
from psycopg2 import extensions as ext
from psycopg2._psycopg import connection as c_connection

from greenpg._protocol.generators import copy_status
from greenpg._protocol.libpq import PGRES_COPY_BOTH, PGRES_COPY_OUT, libpq
from greenpg.backend import READ, WRITE, Backend, Waiter, current
from greenpg.errors import DeadlineExceeded
from greenpg.threads import write_check

from . import recovery
from .attempt import attempts
from .state import IN_HUB, State, not_ours

__all__ = [
    "SLICE",
    "Turns",
    "install",
    "set_wait_callback",
    "settle_descriptor",
    "wait",
    "wait_callback",
]

POLL_OK: Final = ext.POLL_OK
POLL_READ: Final = ext.POLL_READ
EVENTS: Final = (0, READ, READ | WRITE)  # for POLL_READ and POLL_WRITE
CONNECTED: Final = (ext.STATUS_READY, ext.STATUS_BEGIN, ext.STATUS_PREPARED)
ACTIVE: Final = ext.TRANSACTION_STATUS_ACTIVE
# libpq's CONNECTION_MADE: about to send something short; elsewhere TCP may be so at once
MADE: Final = 3 if sys.platform == "linux" else -1
LOCAL: Final = "/@"  # begins the names of Unix-domain sockets, which are connected at once
SLICE: Final = 0.005  # seconds without a turn for other tasks
_poll = c_connection.poll
_transaction_status = c_connection.get_transaction_status


_installed = False


def install() -> None:
    """Make `wait_callback` the process's; one that the program sets after that stays.

    Not so one of the chosen library's own, such as some monkey-patching brings: it would
    lose what the backend adds.
    """
    callback = ext.get_wait_callback()
    if _installed and callback is wait_callback:
        return
    owner = str(getattr(callback, "__module__", "")).partition(".")[0]
    if not _installed or callback is None or owner == current().name:
        set_wait_callback(wait_callback)


def set_wait_callback(callback: Callable[[Any], object] | None) -> None:
    """Let `callback(conn)` drive every wait of the process, as psycopg2's own function does.

    It calls `conn.poll()` until that returns POLL_OK, waiting for `conn.fileno()` in between;
    what it raises closes the connection. None puts greenpg's callback back.
    """
    global _installed
    _installed = True
    ext.set_wait_callback(wait_callback if callback is None else callback)


def wait_callback(conn: Any) -> None:
    """Drive one wait of psycopg2 through the connection's backend.

    An interrupt is noted, the query cancelled and its end awaited; the operation that called
    psycopg2 then raises it. For a connection that greenpg did not make it is raised here,
    upon which psycopg2 closes the connection.
    """
    try:
        state = conn._state_made
    except AttributeError:
        state = getattr(conn, "_state", None)
        if state is None:
            _wait_plain(conn)
            return
    if (state.odd or not state.inside) and _served_specially(conn, state):
        return
    try:
        while True:
            want = _poll(conn)
            if want == POLL_OK:
                if state.job is None or _transfer(conn, state):
                    return
            elif state.odd:
                _bounded(state, EVENTS[want])
            else:
                wait = state.wait
                wait(state.fd, EVENTS[want], None)
    except BaseException as exc:
        if isinstance(exc, Error) and _lost(conn, state, exc):
            state.waiter.close()
            raise
        recovery.interrupted(conn, state, exc)


def _lost(conn: Any, state: State, exc: Error) -> bool:
    """Tell an error of poll(), which means that the server is gone, from an interrupt."""
    if conn.closed:
        return True
    if libpq.has("PQstatus"):
        return bool(libpq.PQstatus(conn.pgconn_ptr))
    return not state.closing and not isinstance(exc, DeadlineExceeded)


def _transfer(conn: Any, state: State) -> bool:
    """Run the job of a COPY that has begun; False if its result is to be waited for now.

    Data may be ready always, so after a time slice the other tasks have their turn.
    """
    job = state.job
    if job is None or _transaction_status(conn) != ACTIVE:
        return True  # the BEGIN before it
    state.job = None
    status = copy_status(conn.pgconn_ptr)
    if status == PGRES_COPY_BOTH:
        return True
    turns = Turns(state)
    for _, events in job.steps(conn.pgconn_ptr, state.fd, status):
        turns.take(events)
    if job.error is not None and status == PGRES_COPY_OUT:
        recovery.stop_command(conn, state, job.error)
    elif job.error is not None and not isinstance(job.error, Exception):
        state.interrupted(job.error)  # it came out of read(), and the server fails the COPY
    return job.lasting


class Turns:
    """Waits for steps, and gives other tasks their turn where a step need not wait."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._slice_end = monotonic() + SLICE

    def take(self, events: int) -> None:
        """Wait for the events; without any, pause if the time slice is over."""
        if events:
            _bounded(self._state, events)
        elif monotonic() < self._slice_end:
            return
        else:
            _check(self._state)
            self._state.backend.pause()
        self._slice_end = monotonic() + SLICE


def _bounded(state: State, events: int) -> None:
    """Wait no longer than the operation's deadline, and not at all while closing."""
    left = _check(state)
    if not state.wait(state.fd, events, left) and left is not None:
        _check(state)


def _check(state: State) -> float | None:
    """Return the seconds left; raises once the deadline has passed or another task closes."""
    if state.closing:
        raise recovery.closed()
    left = None if state.until is None else state.until - monotonic()
    if left is not None and left <= 0:
        raise DeadlineExceeded("canceling statement due to the deadline of its task")
    return left


def _served_specially(conn: Any, state: State) -> bool:
    """Serve what is no plain wait of a guarded operation; False if it is one after all."""
    if state.pending is not None:
        recovery.interrupted(conn, state, state.pending)
        return True
    if state.forked:
        raise not_ours()
    if not state.live:
        if conn.status not in CONNECTED:
            _connect(conn, state)
            return True
        settle_descriptor(conn, state)
    if not state.inside:
        _wait_unguarded(conn, state)
    return not state.inside


def settle_descriptor(conn: Any, state: State) -> None:
    """Note the descriptor, which does not change any more once connected."""
    state.fd = conn.fileno()
    state.live = True
    state.look_closer()


def _connect(conn: Any, state: State) -> None:
    """Connect with the lock taken: another task that closes has to end the wait first."""
    me = state.current()
    if state.claim(me) == me:
        state.depth += 1
    else:
        state.acquire(me)
    state.waiting = True
    try:
        _advance(conn, state)
    except BaseException:
        state.waiter.close()  # for what it watches
        raise
    finally:
        state.waiting = False
        if state.chores or state.turns:
            state.relinquish()
        else:  # what that does when there is nothing else to do
            state.depth -= 1
            state.holder = None
            if state.turns:  # one queued up this moment
                state.serve()


def _advance(conn: Any, state: State) -> None:
    """Go through libpq's steps; it may have gone on with another socket after any of them.

    It asks for nothing but WRITE when it begins with one. On an error the caller closes the
    waiter, for what it watches.
    """
    attempt = state.attempt
    info, fd, left = conn.info, -1, None
    if attempt is not None and attempt.telling:
        attempt.tell(conn, verbose=True)
    while True:
        try:
            want = _poll(conn)
        except OperationalError as err:
            raise err if attempt is None else attempt.failed(conn, str(err)) from None
        if want == POLL_OK:
            break
        if want != POLL_READ:
            if (
                info.status == MADE and fd >= 0
                and info.host[:1] not in LOCAL and not info.ssl_in_use
            ):  # fmt: skip
                continue  # it has just been found writable, or has answered what was sent
            before, fd = fd, conn.fileno()
            if before >= 0 and not _is_watched(state.waiter, before, fd):
                state.waiter.close()
            if write_check(fd)(0):  # as it is nearly always
                continue
        if attempt is not None and attempt.deadline is not None:
            left = attempt.left()
        if not state.wait(fd, READ if want == POLL_READ else WRITE, left) and attempt is not None:
            raise attempt.failed(conn, "timeout expired\n")
    if attempt is not None and attempt.telling:
        attempt.tell(conn, verbose=False)


def _is_watched(waiter: Waiter, before: int, fd: int) -> bool:
    """Tell whether a waiter that was given `before` watches what `fd` is the number of."""
    kept = waiter.fileno()
    if kept < 0 or fd != before:
        return False
    return os.fstat(kept).st_ino == (os.fstat(fd).st_ino or -1)  # 0: this system does not tell


def _wait_plain(conn: Any) -> None:
    """Wait for a connection of psycopg2's own class."""
    backend = current()
    if not backend.can_wait():
        raise ProgrammingError(IN_HUB)
    state = State(backend)
    try:
        if conn.status in CONNECTED:
            _wait_raising(conn, backend, state.waiter)
        else:
            state.attempt = attempts.get()
            if state.attempt is not None:
                state.attempt.conn = conn
            _connect(conn, state)
    finally:
        state.waiter.close()


def _wait_raising(conn: Any, backend: Backend, waiter: Waiter) -> None:
    fd = conn.fileno()
    try:
        while (want := _poll(conn)) != POLL_OK:
            waiter.wait(fd, READ if want == POLL_READ else READ | WRITE, None)
    except Error:
        raise
    except BaseException as exc:
        raise recovery.stopped(conn, backend, waiter, exc) from None


def _wait_unguarded(conn: Any, state: State) -> None:
    """Wait for an operation that came into C past our classes (`cursor.execute(cur, ...)`).

    The lock is given back by a task of its own: more of the same operation may follow without
    a switch, and nobody else may enter C before its end.
    """
    backend = state.backend
    if not backend.can_wait():
        raise ProgrammingError(IN_HUB)
    ours = state.claim(state) is state
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
    if not state.inside and state.holder is state:
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
    state.waiting = True
    try:
        while (want := conn.poll()) != POLL_OK:
            left = None if end is None else end - monotonic()
            if not _wait_outside(conn, state, READ if want == POLL_READ else WRITE, left):
                raise TimeoutError(f"the operation was not over in {timeout:g} s")
    finally:
        state.waiting = False
        recovery.close_if_told(conn, state)
        state.relinquish()
        if state is not getattr(conn, "_state", None):
            state.waiter.close()


def _wait_outside(conn: Any, state: State, events: int, timeout: float | None) -> int:
    """Wait while nobody is in C; until connected the descriptor may change between two waits."""
    try:
        return state.wait(conn.fileno(), events, timeout)
    finally:
        if conn.status not in CONNECTED:
            state.waiter.close()
