"""Cancel requests of psycopg 3's connections, and a cancel by another task."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from psycopg import OperationalError, generators, pq
from psycopg._capabilities import capabilities
from psycopg.errors import CancellationTimeout
from psycopg.pq.misc import find_libpq_full_path

from greenpg._protocol.cancel_blocking import cancel_blocking
from greenpg._session.cancelling import cancel_in_thread, send_cancel, wait_once
from greenpg._session.counts import counts
from greenpg._session.lock import IN_HUB
from greenpg._session.shield import Shield, Unrecovered

if TYPE_CHECKING:
    from greenpg._session.session import Session


def cancel_query(state: Session, pgconn: Any, shield: Shield) -> None:
    """Send a cancel request and wait until the server has taken it; Unrecovered or Error if not.

    libpq's PQcancelStart, and before libpq 17 PQcancel in a thread.
    """
    if state.forked:
        raise Unrecovered  # the query is the parent's
    counts.cancels += 1
    if capabilities.has_cancel_safe():
        _drive(_request(pgconn), shield)
    else:
        request = cancel_blocking(_library(pgconn), pgconn.pgconn_ptr)
        cancel_in_thread(request, shield, OperationalError)


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
        try:
            if state.closing:
                state.shut(conn.pgconn)
        finally:
            state.depth -= 1
            state.let_go()


def _library(pgconn: Any) -> Any:
    """Return the libpq of psycopg, or its module in C, which keeps the GIL when it cancels."""
    if pq.__impl__ == "python":
        return find_libpq_full_path()
    return sys.modules[type(pgconn).__module__].__file__


def _send_cancel(conn: Any, state: Session, timeout: float | None) -> None:
    send = partial(cancel_query, state, conn.pgconn)
    send_cancel(state, timeout or state.cancel_timeout, send, _undelivered)


def _undelivered(failure: BaseException) -> Exception:
    if isinstance(failure, Unrecovered):
        return CancellationTimeout("cancellation timeout expired; the connection is closed")
    return OperationalError(f"cancel: {str(failure).strip()}; the connection is closed")


def _request(pgconn: Any) -> Any:
    """Return the steps of a cancel request, as `Connection._cancel_gen` does."""
    request = pgconn.cancel_conn()
    request.start()
    yield from generators.cancel(request)


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
