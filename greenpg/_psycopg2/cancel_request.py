"""Cancel requests: a connection of its own to the server, stepwise where libpq can do that."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any, Final

import psycopg2._psycopg
from psycopg2 import OperationalError

from greenpg._protocol.cancel_blocking import cancel_blocking
from greenpg._protocol.generators import can_cancel_stepwise, cancel
from greenpg._protocol.libpq import libpq
from greenpg._session.cancelling import cancel_in_thread, wait_once
from greenpg._session.counts import counts
from greenpg._session.shield import Shield, Unrecovered

from .psycopg2_c import c_connection

REQUESTS_TO_POOLER: Final = 2
LARGEST_PID: Final = 1 << 22  # Linux's PID_MAX_LIMIT; those of other systems are smaller


class Canceller:
    """Cancels what runs on a connection; called again while nothing comes of it.

    Unrecovered at the third call behind a pooler: it takes a request, but cannot cancel a query
    that it still queues (PgBouncer 1.18).
    """

    def __init__(self, conn: Any, shield: Shield) -> None:
        self._conn = conn
        self._shield = shield
        self._left = REQUESTS_TO_POOLER if is_poolers(conn) else sys.maxsize

    def __call__(self) -> None:
        if not self._left:
            raise Unrecovered
        self._left -= 1
        cancel_query(self._conn, self._shield)


def is_poolers(conn: Any) -> bool:
    """Return True if a pooler made up the session's process id: PgBouncer's are random."""
    return not 0 < conn.get_backend_pid() <= LARGEST_PID


def cancel_query(conn: Any, shield: Shield) -> None:
    """Send a cancel request and wait until the server has taken it; Unrecovered or Error if not.

    libpq's PQcancelStart, and before libpq 17 PQcancel in a thread.
    """
    state = getattr(conn, "_greenpg_state", None)
    if state is not None and state.forked:
        raise Unrecovered  # the query is the parent's
    counts.cancels += 1
    if can_cancel_stepwise():
        _cancel_stepwise(conn, shield)
    elif libpq.has("PQcancel"):
        request = cancel_blocking(psycopg2._psycopg.__file__, conn.pgconn_ptr)
        cancel_in_thread(request, shield, OperationalError)
    else:
        c_connection.cancel(conn)


def _cancel_stepwise(conn: Any, shield: Shield) -> None:
    request = libpq.PQcancelCreate(conn.pgconn_ptr)
    try:
        shield.take(cancel(request), partial(wait_once, shield.backend))
    finally:  # not in the generator: on a full stack that would end without it
        libpq.PQcancelFinish(request)
