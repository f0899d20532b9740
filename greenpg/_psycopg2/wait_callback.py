"""psycopg2's wait callback: the only place that waits for connections' sockets."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from psycopg2 import Error, OperationalError, ProgrammingError
from psycopg2 import extensions as ext

from greenpg._protocol.generators import copy_status
from greenpg._protocol.libpq import PGRES_COPY_BOTH, PGRES_COPY_OUT, libpq
from greenpg._session.lock import IN_HUB
from greenpg._session.shield import is_shortage
from greenpg._session.time_slice import TimeSlice
from greenpg.backend import READ, WRITE, Waiter, current
from greenpg.errors import DeadlineExceeded
from greenpg.threads import write_check

from . import interrupts
from .attempt import LOCAL, current_request
from .psycopg2_c import checked_poll, garbled, poll, transaction_status
from .state import State

POLL_OK: Final = ext.POLL_OK
POLL_READ: Final = ext.POLL_READ
EVENTS: Final = (0, READ, READ | WRITE)  # for POLL_READ and POLL_WRITE
CONNECTED: Final = (ext.STATUS_READY, ext.STATUS_BEGIN, ext.STATUS_PREPARED)
ACTIVE: Final = ext.TRANSACTION_STATUS_ACTIVE
# libpq's CONNECTION_MADE: about to send something short; elsewhere TCP may be so at once
MADE: Final = 3 if sys.platform == "linux" else -1

_installed = False
_on_plain: Callable[[Any], object] = id


def install() -> None:
    """Make `wait_callback` the process's; a callback that the program sets later stays.

    A callback of the chosen library, which its monkey-patching may set, is replaced: it lacks
    what the backend adds.
    """
    callback = ext.get_wait_callback()
    if _installed and callback is wait_callback:
        return
    owner = str(getattr(callback, "__module__", "")).partition(".")[0]
    if not _installed or callback is None or owner == current().name:
        set_wait_callback(wait_callback)


def set_wait_callback(callback: Callable[[Any], object] | None) -> None:
    """Let `callback(conn)` drive every wait of the process, as psycopg2's own function does.

    The callback calls `conn.poll()` until that returns POLL_OK, and waits for `conn.fileno()` in
    between. An exception that it raises closes the connection. None restores greenpg's callback.
    """
    global _installed
    _installed = True
    ext.set_wait_callback(wait_callback if callback is None else callback)


def on_plain(callback: Callable[[Any], object]) -> None:
    """Have `callback(conn)` called when a connection connects that greenpg does not make."""
    global _on_plain
    _on_plain = callback


def wait_callback(conn: Any) -> None:
    """Drive one wait of psycopg2 through the connection's backend.

    An interrupt is noted, the query cancelled and its end awaited; the operation that called
    psycopg2 then raises it. For a connection that greenpg did not make it is raised here,
    upon which psycopg2 closes the connection.
    """
    try:
        state = conn._greenpg_state_made
    except AttributeError:
        state = getattr(conn, "_greenpg_state", None)
        if state is None:
            _wait_plain(conn)
            return
    if (state.wait_needs_check or not state.in_driver) and _served_specially(conn, state):
        return
    try:
        while True:
            want = poll(conn)
            if want == POLL_OK:
                if state.job is None or _transfer(conn, state):
                    return
            elif state.wait_needs_check:
                state.wait_for(EVENTS[want])
            else:
                wait = state.wait
                wait(state.fd, EVENTS[want], None)
    except UnicodeDecodeError as error:  # poll() raised it
        state.waiter.close()
        raise garbled(error) from None
    except BaseException as exc:
        if isinstance(exc, Error) and _lost(conn, state, exc):
            state.waiter.close()
            raise
        interrupts.interrupted(conn, state, exc)


def _lost(conn: Any, state: State, exc: Error) -> bool:
    """Return True if poll() raised the error: the server is gone. Else it is an interrupt."""
    if conn.closed:
        return True
    if libpq.has("PQstatus"):
        return bool(libpq.PQstatus(conn.pgconn_ptr))
    return not state.closing and not isinstance(exc, DeadlineExceeded)


def _transfer(conn: Any, state: State) -> bool:
    """Run the job of a COPY that has begun; return False if its result is still to come."""
    job = state.job
    if job is None or transaction_status(conn) != ACTIVE:
        return True  # the BEGIN before it
    state.job = None
    status = copy_status(conn.pgconn_ptr)
    if status == PGRES_COPY_BOTH:
        return True
    time_slice = TimeSlice(state.backend)
    for _, events in job.steps(conn.pgconn_ptr, state.fd, status):
        state.wait_or_pause(events, time_slice)
    if job.error is not None and status == PGRES_COPY_OUT:
        interrupts.stop_command(conn, state, job.error)
    elif job.error is not None and not isinstance(job.error, Exception):
        state.note_interrupt(job.error)  # read() raised it, and the server fails the COPY
    return job.lasting


def _served_specially(conn: Any, state: State) -> bool:
    """Do a wait that is special; return False if it is that of a guarded operation after all."""
    if state.pending is not None:
        interrupts.interrupted(conn, state, state.pending)
        return True
    if state.forked:
        raise state.parents_error()
    if state.fd < 0:
        if conn.status not in CONNECTED:
            _connect(conn, state, _advance)
            return True
        state.settle_descriptor(conn)
    if state.in_driver:
        return False
    if state.attempt is None:
        _wait_unguarded(conn, state)
    else:
        _connect(conn, state, _set_up)
    return True


def _connect(conn: Any, state: State, steps: Callable[[Any, State], None]) -> None:
    """Connect under the lock: another task that closes has to end the wait first."""
    state.acquire(state.current())
    state.waiting_outside = True
    try:
        steps(conn, state)
    except BaseException as exc:
        state.waiter.close()  # for what it watches
        if is_shortage(exc):
            raise OperationalError(f"could not wait for the server: {exc}\n") from exc
        raise
    finally:
        state.waiting_outside = False
        state.depth -= 1
        state.let_go()


def _advance(conn: Any, state: State) -> None:
    """Take libpq's steps to connect; after each it may have another socket.

    libpq asks for WRITE when it has just made one (libpq's manual, PQconnectPoll). On an error
    the caller closes the waiter, since it may watch a socket that is closed.
    """
    attempt = state.attempt
    info, fd, left = conn.info, -1, None
    if attempt is not None and attempt.verbose_errors:
        attempt.set_verbosity(conn, verbose=True)
    while True:
        try:
            want = checked_poll(conn)
        except OperationalError as err:
            if attempt is None:
                raise
            raise attempt.failed(conn, str(err)) from None
        if want == POLL_OK:
            break
        if want != POLL_READ:
            made, local = info.status == MADE, info.host[:1] in LOCAL
            if made and fd >= 0 and not local and not info.ssl_in_use:
                continue  # it has just been found writable, or has answered what was sent
            before, fd = fd, conn.fileno()
            if before >= 0 and not _is_watched(state.waiter, before, fd):
                state.waiter.close()
            if (made and local) or write_check(fd)(0):  # as it is nearly always
                continue
        if attempt is not None and attempt.deadline is not None:
            left = attempt.left()
        # a socket that is always ready would never let the wait expire
        over = left == 0 or not state.wait(fd, READ if want == POLL_READ else WRITE, left)
        if over and attempt is not None:
            raise attempt.failed(conn, "timeout expired\n")
    if attempt is not None and attempt.verbose_errors:
        attempt.set_verbosity(conn, verbose=False)


def _set_up(conn: Any, state: State) -> None:
    """Wait for the SET that psycopg2 may send after the handshake, within the attempt's time.

    conn_setup (psycopg2, connection_int.c) sends it where DateStyle is not ISO.
    """
    fd, attempt = conn.fileno(), state.attempt
    while (want := checked_poll(conn)) != POLL_OK:
        events = READ if want == POLL_READ else READ | WRITE
        if not state.wait(fd, events, attempt.left()):
            raise attempt.failed(conn, "timeout expired\n")


def _is_watched(waiter: Waiter, before: int, fd: int) -> bool:
    """Return True if a waiter that was given `before` watches the socket with the number `fd`."""
    kept = waiter.fileno()
    if kept < 0 or fd != before:
        return False
    return os.fstat(kept).st_ino == (os.fstat(fd).st_ino or -1)  # some systems give 0


def _wait_plain(conn: Any) -> None:
    """Wait for a connection of psycopg2's own class."""
    backend = current()
    if not backend.can_wait():
        raise ProgrammingError(IN_HUB)
    state, request, connected = State(backend), current_request(), conn.status in CONNECTED
    try:
        if connected and request.conn is not conn:
            _wait_raising(conn, state)
        else:
            state.attempt = request.attempt_of(conn)
            if state.attempt is None:
                _on_plain(conn)
            _connect(conn, state, _set_up if connected else _advance)
    finally:
        state.waiter.close()


def _wait_raising(conn: Any, state: State) -> None:
    fd = conn.fileno()
    try:
        while (want := checked_poll(conn)) != POLL_OK:
            state.wait(fd, READ if want == POLL_READ else READ | WRITE, None)
    except Error:
        raise
    except BaseException as exc:
        raise interrupts.stopped(conn, state, exc) from None


def _wait_unguarded(conn: Any, state: State) -> None:
    """Wait for an operation that entered C past the green classes (`cursor.execute(cur, ...)`).

    A task of its own gives the lock back: another wait of the same operation may follow without
    a switch, and no other task may enter C before its end.
    """
    backend = state.backend
    if not backend.can_wait():
        raise ProgrammingError(IN_HUB)
    ours = state.claim(state) is state
    state.in_driver = True
    try:
        _wait_raising(conn, state)
    finally:
        state.in_driver = False
        if ours and "hub" in backend.capabilities:
            backend.spawn(_release_unguarded, state)
        elif ours:
            state.release()


def _release_unguarded(state: State) -> None:
    if not state.in_driver and state.holder is state:
        state.release()


def wait(conn: Any, timeout: float | None = None) -> None:
    """Wait until an asynchronous connection (`async_=1`) has connected or run its query.

    psycopg2.extras.wait_select for every backend: other tasks run, and wait their turn for the
    connection. TimeoutError after `timeout` seconds, and any interrupt, leave the query running;
    wait again, or cancel.
    """
    state = getattr(conn, "_greenpg_state", None) or State(current())
    end = None if timeout is None else monotonic() + timeout
    state.acquire(state.current(), timeout)
    state.waiting_outside = True
    try:
        while (want := conn.poll()) != POLL_OK:
            left = None if end is None else end - monotonic()
            ready = _wait_outside(conn, state, READ if want == POLL_READ else WRITE, left)
            if not ready or (left is not None and left < 0):
                raise TimeoutError(f"the operation was not over in {timeout:g} s")
    finally:
        state.waiting_outside = False
        try:
            interrupts.close_if_asked(conn, state)
        finally:
            state.depth -= 1
            state.let_go()
        if state is not getattr(conn, "_greenpg_state", None):
            state.waiter.close()


def _wait_outside(conn: Any, state: State, events: int, timeout: float | None) -> int:
    """Wait while nobody is in C; until connected the descriptor may change between two waits."""
    try:
        return state.wait(conn.fileno(), events, timeout)
    finally:
        if conn.status not in CONNECTED:
            state.waiter.close()
