"""`close()` of a connection on which another task waits."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from psycopg import Error

from greenpg._session.hang_up import hang_up
from greenpg.backend import has_ended

from ._cancelling import cancel_query
from ._errors import DeadlineExceeded
from ._state import CLOSE_TIMEOUT

if TYPE_CHECKING:
    from ._state import State

_AGAIN: Final = 0.02  # seconds until it is interrupted again: it may have been only about to wait


def close_after(conn: Any, state: State) -> None:
    """Close once the other task is out of libpq, unless it has closed; it may keep the lock."""
    end = monotonic() + 2 * CLOSE_TIMEOUT
    while not conn.closed:
        if has_ended(state.holder) or monotonic() >= end:
            _hang_up(conn, state)
            return
        if state.is_in_other_thread():  # where the operation's end closes; no queue here
            state.backend.sleep(_AGAIN)
            state.waiter.interrupt(state.closed_error())
            continue
        try:
            state.acquire(state.current(), _AGAIN, first=True)
        except DeadlineExceeded:
            state.waiter.interrupt(state.closed_error())
            continue
        try:
            state.shut(conn.pgconn)
        finally:
            state.relinquish()


def _hang_up(conn: Any, state: State) -> None:
    """End the session without libpq: cancel what runs, then shut the socket for sending."""
    with suppress(Error, OSError):
        state.bounded(None, CLOSE_TIMEOUT, partial(cancel_query, state, conn.pgconn))
        hang_up(state.fd)
