"""`conn.cancel()`: green, and never for a later query."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from psycopg2 import OperationalError, ProgrammingError
from psycopg2 import extensions as ext

from greenpg._session.cancelling import send_cancel
from greenpg._session.lock import IN_HUB
from greenpg._session.session import CLOSE_TIMEOUT

from .cancel_request import cancel_query
from .interrupts import close_if_asked

if TYPE_CHECKING:
    from .state import State


def cancel(conn: Any) -> None:
    """Cancel what runs on the connection; return when the server has taken the request."""
    state: State = conn._greenpg_state
    _refuse(conn, state)
    with state.cancelling():
        if state.in_driver or conn.async_:
            _send_cancel(conn, state)
            return
    state.acquire(state.current())  # nothing runs: keep a query from starting meanwhile
    try:
        _send_cancel(conn, state)
    finally:
        try:
            close_if_asked(conn, state)
        finally:
            state.depth -= 1
            state.let_go()


def cancel_block(conn: Any) -> None:
    """Cancel what a block has left running in the server, within a second, before a close."""
    state: State = conn._greenpg_state
    if state.can_wait():
        state.bounded(None, CLOSE_TIMEOUT, partial(cancel_query, conn))


def _refuse(conn: Any, state: State) -> None:
    if conn.closed:
        raise state.closed_error()
    if state.forked:
        raise state.parents_error()
    if conn.status == ext.STATUS_PREPARED:
        raise ProgrammingError("cancel cannot be used with a prepared two-phase transaction")
    if conn.status not in (ext.STATUS_READY, ext.STATUS_BEGIN):
        raise OperationalError("asynchronous connection attempt underway")
    if not state.can_wait():
        raise ProgrammingError(IN_HUB)


def _send_cancel(conn: Any, state: State) -> None:
    def undelivered(failure: BaseException) -> Exception:
        late = f"the server did not take the request in {state.cancel_timeout:g} s"
        reason = str(failure).strip() or late
        return OperationalError(f"cancel: {reason}; the connection is closed")

    send_cancel(state, state.cancel_timeout, partial(cancel_query, conn), undelivered)
