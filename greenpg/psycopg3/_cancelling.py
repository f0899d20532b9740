"""Cancel requests of psycopg 3's connections, and a cancel by another task."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from psycopg import OperationalError, generators
from psycopg._capabilities import capabilities
from psycopg.errors import CancellationTimeout

from greenpg._session.lock import IN_HUB
from greenpg._session.shield import Shield, Unrecovered

from ._cancel_request import blocking_request

if TYPE_CHECKING:
    from greenpg._session.session import Session
    from greenpg.backend import Backend


def cancel_query(state: Session, pgconn: Any, shield: Shield) -> None:
    """Send a cancel request and wait until the server has taken it; Unrecovered or Error if not.

    libpq's PQcancelStart, and before libpq 17 PQcancel in a thread.
    """
    if state.forked:
        raise Unrecovered  # the query is the parent's
    if capabilities.has_cancel_safe():
        _drive(_request(pgconn), shield)
    else:
        _cancel_in_thread(pgconn, shield)


def cancel(conn: Any, timeout: float | None) -> None:
    """Cancel what runs on the connection, and never what runs next."""
    state: Session = conn._greenpg_state
    if state.forked:
        raise state.parents_error()
    if not state.can_wait():
        raise state.errors.programming(IN_HUB)
    with state.cancelling():
        if state.in_driver:
            _send_cancel(conn, state, timeout)
            return
    state.acquire(state.current())  # nothing runs: keep a query from starting meanwhile
    try:
        _send_cancel(conn, state, timeout)
    finally:
        if state.closing:
            state.shut(conn.pgconn)
        state.relinquish()


def _send_cancel(conn: Any, state: Session, timeout: float | None) -> None:
    """Await the request's end even when interrupted: cut short it might hit a later query.

    If it does not end the connection is closed.
    """
    seconds = timeout or state.cancel_timeout
    verdict, failure = state.bounded(None, seconds, partial(cancel_query, state, conn.pgconn))
    if failure is not None:
        state.close_soon()
        state.waiter.interrupt(state.closed_error())
        raise verdict or _undelivered(failure) from failure
    if verdict is not None:
        raise verdict


def _undelivered(failure: BaseException) -> Exception:
    if isinstance(failure, Unrecovered):
        return CancellationTimeout("cancellation timeout expired; the connection is closed")
    return OperationalError(f"cancel: {str(failure).strip()}; the connection is closed")


def _request(pgconn: Any) -> Any:
    """Return the steps of a cancel request, as `Connection._cancel_gen` does."""
    request = pgconn.cancel_conn()
    request.start()
    yield from generators.cancel(request)


def wait_once(backend: Backend, fd: int, events: int, timeout: float | None = None) -> int:
    """Wait with a waiter of its own for a descriptor that is not kept."""
    waiter = backend.waiter()
    try:
        return waiter.wait(fd, events, timeout)
    finally:
        waiter.close()


def _drive(gen: Any, shield: Shield) -> None:
    try:
        fd, want = next(gen)
        while True:
            shield.wait(partial(wait_once, shield.backend, fd, want))
            fd, want = gen.send(want)
    except StopIteration:
        return
    finally:
        gen.close()


def _cancel_in_thread(pgconn: Any, shield: Shield) -> None:
    backend, request = shield.backend, blocking_request(pgconn)
    done = backend.event()
    outcome: list[object] = []

    def job() -> None:
        try:
            outcome.append(backend.in_thread(request))
        except OperationalError as error:
            outcome.append(error)
        finally:
            done.set()

    backend.spawn(job)
    shield.wait(done.wait)
    if outcome != [None]:
        raise OperationalError(f"cancel request not delivered: {outcome}")
