"""Cancel requests: a connection of its own to the server, stepwise where libpq can do that."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from psycopg2 import OperationalError

from greenpg._protocol.generators import can_cancel_stepwise, cancel
from greenpg._protocol.libpq import libpq
from greenpg._session.shield import Shield, Unrecovered

from .psycopg2_c import c_connection

if TYPE_CHECKING:
    from greenpg.backend import Backend


def cancel_query(conn: Any, shield: Shield) -> None:
    """Send a cancel request and wait until the server has taken it; Unrecovered or Error if not.

    libpq's PQcancelStart, and before libpq 17 PQcancel in a thread.
    """
    state = getattr(conn, "_state", None)
    if state is not None and state.forked:
        raise Unrecovered  # the query is the parent's
    if can_cancel_stepwise():
        _cancel_stepwise(conn, shield)
    elif libpq.has("PQgetCancel", "PQfreeCancel"):
        _cancel_in_thread(conn, shield)
    else:
        c_connection.cancel(conn)


def wait_once(backend: Backend, fd: int, events: int, timeout: float | None = None) -> int:
    """Wait with a waiter of its own for a descriptor that is not kept."""
    waiter = backend.waiter()
    try:
        return waiter.wait(fd, events, timeout)
    finally:
        waiter.close()


def _cancel_stepwise(conn: Any, shield: Shield) -> None:
    request = libpq.PQcancelCreate(conn.pgconn_ptr)
    try:
        shield.take(cancel(request), partial(wait_once, shield.backend))
    finally:  # not in the generator: on a full stack that would end without it
        libpq.PQcancelFinish(request)


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
