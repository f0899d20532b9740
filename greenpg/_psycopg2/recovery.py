"""What follows an interrupt: cancel the query, await its end, put the connection right."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Final

from psycopg2 import Error, InterfaceError, OperationalError, ProgrammingError
from psycopg2 import extensions as ext
from psycopg2._psycopg import connection as c_connection

from greenpg._protocol.generators import Steps, can_cancel_stepwise, cancel, end_copy, finish
from greenpg._protocol.libpq import libpq
from greenpg.backend import READ, WRITE, Backend, Event

from .state import CANCEL_TIMEOUT, State

__all__ = [
    "Shield",
    "Unrepaired",
    "cancel_query",
    "close_if_told",
    "closed",
    "graver",
    "interrupted",
    "leave",
    "stop_command",
    "stopped",
    "wait_once",
]

CLOSE_TIMEOUT: Final = 1.0
AGAIN: Final = 0.25  # seconds until a cancel request is repeated: it may have overtaken its query
log = logging.getLogger("greenpg")
ACTIVE: Final = ext.TRANSACTION_STATUS_ACTIVE
_poll = c_connection.poll
_autocommit: Final[Any] = c_connection.autocommit.__get__  # type: ignore[attr-defined]  # C's
_transaction_status = c_connection.get_transaction_status
_HARD: Final = (KeyboardInterrupt, SystemExit)


class Unrepaired(Exception):
    """The connection could not be brought to rest in time."""


class Shield:
    """Bounds a repair and keeps what interrupts it meanwhile.

    `verdict` is what the operation will raise: an exit outranks a timeout, and anything the
    error of another task's close; else the last interrupt counts, since an outer timeout
    expires after an inner one.
    """

    def __init__(self, backend: Backend, first: BaseException | None, seconds: float) -> None:
        self.backend = backend
        self.verdict = first
        self._end = monotonic() + seconds

    def wait(self, once: Callable[[float], Any], pause: float = inf) -> bool:
        """Call `once(seconds left)` until it returns something true; Unrepaired at the end.

        False if nothing came of it for `pause` seconds.
        """
        until = min(self._end, monotonic() + pause)
        while True:
            left = until - monotonic()
            if left <= 0 and until < self._end:
                return False
            if left <= 0:
                raise Unrepaired
            try:
                if once(left):
                    return True
            except BaseException as exc:
                self.note(exc)

    def note(self, exc: BaseException) -> None:
        """Weigh another interrupt; Unrepaired if it is the second Ctrl-C."""
        exits = (*self.backend.exits, *_HARD)
        if isinstance(self.verdict, _HARD) and isinstance(exc, _HARD):
            self.verdict = exc
            raise Unrepaired from None  # Ctrl-C again: the user will not wait
        if self.verdict is None or _rank(exc, exits) >= _rank(self.verdict, exits):
            self.verdict = exc


def _rank(exc: BaseException, exits: tuple[type[BaseException], ...]) -> int:
    return 2 if isinstance(exc, exits) else int(not isinstance(exc, InterfaceError))


def graver(backend: Backend, first: BaseException, later: BaseException) -> BaseException:
    """Return which of two interrupts an operation raises that both have met."""
    shield = Shield(backend, first, 0.0)
    with suppress(Unrepaired):
        shield.note(later)
    assert shield.verdict is not None
    return shield.verdict


def closed() -> InterfaceError:
    """Return psycopg2's error for the use of a closed connection."""
    return InterfaceError("connection already closed")


def close_if_told(conn: Any, state: State) -> None:
    """Close what another task has told to close while it was waited for outside C."""
    if state.closing:
        c_connection.close(conn)
        state.waiter.close()


def wait_once(backend: Backend, fd: int, events: int, timeout: float | None = None) -> int:
    """Wait with a waiter of its own for a descriptor that is not kept."""
    waiter = backend.waiter()
    try:
        return waiter.wait(fd, events, timeout)
    finally:
        waiter.close()


def interrupted(conn: Any, state: State, exc: BaseException) -> None:
    """Bring the running command to its end and keep `exc` for the operation to raise.

    If that fails `exc` is raised here, upon which psycopg2 closes the connection.
    """
    seconds = state.cancel_timeout
    if state.closing:
        seconds = min(seconds, CLOSE_TIMEOUT)
    shield = Shield(state.backend, state.pending, seconds)
    try:
        if exc is not state.pending:
            shield.note(exc)
        if state.patient:
            _drain(conn, state.fd, state.wait, shield)
        else:
            _stop(conn, state.fd, state.wait, shield)
    except (Unrepaired, Error):
        state.waiter.close()
        state.pending = None
        assert shield.verdict is not None
        raise shield.verdict from None
    if not state.patient:
        _bar(conn, state)
    state.interrupted(shield.verdict)  # last: what Ctrl-C raises before this comes out itself


def stopped(conn: Any, backend: Backend, waiter: Any, exc: BaseException) -> BaseException:
    """Cancel and drain a connection that psycopg2 will close; return what to raise."""
    shield = Shield(backend, exc, CANCEL_TIMEOUT)
    try:
        _stop(conn, conn.fileno(), waiter.wait, shield)
    except (Unrepaired, Error):
        log.warning("a query could not be cancelled before its connection was closed")
    return shield.verdict or exc


def cancel_query(conn: Any, shield: Shield) -> None:
    """Deliver a cancel request and await the server's taking it; Unrepaired or Error if not."""
    state = getattr(conn, "_state", None)
    if state is not None and state.forked:
        raise Unrepaired  # the query is the parent's
    if can_cancel_stepwise():
        _run(cancel(conn.pgconn_ptr), shield)
    elif libpq.has("PQgetCancel", "PQfreeCancel"):
        _cancel_in_thread(conn, shield)
    else:
        c_connection.cancel(conn)


def _run(steps: Steps, shield: Shield) -> None:
    with closing(steps):  # an error that is kept must not keep the request's socket open
        for fd, events in steps:
            shield.wait(partial(wait_once, shield.backend, fd, events))


def _cancel_in_thread(conn: Any, shield: Shield) -> None:
    backend, key = shield.backend, libpq.PQgetCancel(conn.pgconn_ptr)
    done = backend.event()
    outcome: list[str | None] = []

    def job() -> None:
        try:
            outcome.append(backend.in_thread(libpq.cancel_blocking, key))
        finally:
            libpq.PQfreeCancel(key)
            done.set()

    backend.spawn(job)
    shield.wait(done.wait)
    if outcome != [None]:
        raise OperationalError(f"cancel request not delivered: {outcome}")


def _stop(conn: Any, fd: int, wait: Callable[..., int], shield: Shield) -> None:
    """Cancel the running command and await its end.

    The server ignores a request that comes before the query, which travels apart from it.
    """
    cancel_query(conn, shield)
    while not _drain(conn, fd, wait, shield, AGAIN):
        cancel_query(conn, shield)


def _drain(
    conn: Any, fd: int, wait: Callable[..., int], shield: Shield, pause: float = inf
) -> bool:
    """Take all that is left of the running command, so that psycopg2 adopts its result.

    False after `pause` seconds without a word from the server.
    """
    while True:
        while (want := _poll(conn)) != ext.POLL_OK:
            events = READ if want == ext.POLL_READ else READ | WRITE
            if not shield.wait(partial(wait, fd, events), pause):
                return False
        if _transaction_status(conn) != ext.TRANSACTION_STATUS_ACTIVE:
            return True
        for copy_fd, events in end_copy(conn.pgconn_ptr, fd):
            shield.wait(partial(wait, copy_fd, events))


def stop_command(conn: Any, state: State, error: BaseException) -> None:
    """Cancel the running command and await its end; `error`, or an interrupt, is left pending.

    If the connection cannot be brought to rest it is raised, upon which psycopg2 closes it.
    """
    shield = Shield(state.backend, error, state.cancel_timeout)
    try:
        _stop(conn, state.fd, state.wait, shield)
    except (Unrepaired, Error):
        state.waiter.close()
        raise shield.verdict or error from None
    state.interrupted(shield.verdict)


def _bar(conn: Any, state: State) -> None:
    """Keep psycopg2 from sending the operation's next command: after BEGIN, after a row."""
    if not state.barred and libpq.has("PQenterPipelineMode", "PQexitPipelineMode"):
        state.barred = bool(libpq.PQenterPipelineMode(conn.pgconn_ptr))


def leave(conn: Any, state: State) -> None:
    """End a guarded operation: put right what is wrong, pass the lock on, raise the interrupt."""
    if state.troubled():
        _settle(conn, state)
    elif not state.depth:
        state.release()
        state.look_closer()


def _settle(conn: Any, state: State) -> None:
    state.inside = True
    try:
        pending = _put_right(conn, state)
    except BaseException:  # Ctrl-C between two steps: nobody knows what is left to do
        c_connection.close(conn)
        raise
    finally:
        state.inside = False
        state.pending = None
        state.look_closer()
        if not state.depth:
            state.release()
    _deliver(state)
    if pending is not None:
        raise pending


def _put_right(conn: Any, state: State) -> BaseException | None:
    pending = state.pending
    if state.cancels and state.quiet is not None:
        pending = state.pending = _await_cancels(conn, state, state.quiet)
    if state.barred:
        state.barred = False
        if not conn.closed:
            libpq.PQexitPipelineMode(conn.pgconn_ptr)
    stray, state.stray = state.stray, False
    if stray and not (conn.closed or conn.async_) and _transaction_status(conn) == ACTIVE:
        pending = state.pending = _past_psycopg2(conn, state, cancel_query)
    if (pending is not None or state.broken) and _failed_unseen(conn):
        pending = state.pending = _past_psycopg2(conn, state, _roll_back)
    if state.closing and not conn.closed:
        c_connection.close(conn)
    if conn.closed:
        state.waiter.close()
    elif pending is not None or (state.broken and _outside(conn)):
        _after_interrupt(conn, state)
        pending = state.pending
    elif state.doomed:
        status = _transaction_status(conn)
        undone = state.undoing and status == ext.TRANSACTION_STATUS_INTRANS
        ended = state.undoing or conn.status != ext.STATUS_BEGIN
        state.doomed = not undone and not (ended and status == ext.TRANSACTION_STATUS_IDLE)
    state.broken = False
    return pending


def _past_psycopg2(
    conn: Any, state: State, begin: Callable[[Any, Shield], object]
) -> BaseException | None:
    """Begin what psycopg2 is not to know of, such as the end of a COPY that it has let go of."""
    shield = Shield(state.backend, state.pending, state.cancel_timeout)
    try:
        begin(conn, shield)
        for fd, events in finish(conn.pgconn_ptr, state.fd):
            if events:
                shield.wait(partial(state.wait, fd, events))
    except (Unrepaired, Error):
        c_connection.close(conn)
    return shield.verdict


def _failed_unseen(conn: Any) -> bool:
    """Tell whether a failed transaction is open that psycopg2 takes to have ended.

    So it is after a COMMIT that was cancelled before the server had begun with it.
    """
    if conn.closed or conn.async_ or not libpq.has("PQsendQueryParams"):
        return False
    if _transaction_status(conn) != ext.TRANSACTION_STATUS_INERROR:
        return False
    return bool(conn.status == ext.STATUS_READY and not _autocommit(conn))


def _roll_back(conn: Any, shield: Shield) -> None:
    libpq.PQsendQueryParams(conn.pgconn_ptr, b"ROLLBACK", 0, None, None, None, None, 0)


def _await_cancels(conn: Any, state: State, quiet: Event) -> BaseException | None:
    """Wait for other tasks' cancel requests: one that came late would hit the next query."""
    shield = Shield(state.backend, state.pending, state.cancel_timeout)
    try:
        shield.wait(quiet.wait)
    except Unrepaired:
        c_connection.close(conn)
        return shield.verdict or closed()
    return shield.verdict


def _after_interrupt(conn: Any, state: State) -> None:
    if _outside(conn):
        state.patient = True
        try:
            c_connection.rollback(conn)  # else psycopg2 would send no BEGIN for what follows
        except ProgrammingError:  # PREPARE failed: its tpc_rollback() is to come
            state.doomed = True
            return
        except Error:
            c_connection.close(conn)
            return
    state.doomed = conn.status == ext.STATUS_BEGIN or not _idle(conn)


def _outside(conn: Any) -> bool:
    """Tell whether psycopg2 takes a transaction to be open that has ended."""
    return conn.status == ext.STATUS_BEGIN and _idle(conn)


def _idle(conn: Any) -> bool:
    status: int = _transaction_status(conn)
    return status == ext.TRANSACTION_STATUS_IDLE


def _deliver(state: State) -> None:
    """Hand notifications to the user's collector, outside C and without the lock."""
    if state.delivering:
        return  # the task that does it goes on with what has come meanwhile
    state.delivering = True
    try:
        while state.notifies is not None and state.inbox:
            _append(state.notifies, state.inbox.pop(0))
    finally:
        state.delivering = False


def _append(collector: Any, note: Any) -> None:
    try:
        collector.append(note)
    except Exception:
        log.exception("conn.notifies.append failed for channel %r", note.channel)
