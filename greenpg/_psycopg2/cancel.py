"""`conn.cancel()`: green, and never for a later query."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from psycopg2 import Error, OperationalError, ProgrammingError
from psycopg2 import extensions as ext

from .recovery import CLOSE_TIMEOUT, Shield, Unrepaired, cancel_query, close_if_told, closed
from .state import IN_HUB, State, not_ours

__all__ = ["cancel", "cancel_block"]


def cancel(conn: Any) -> None:
    """Cancel what runs on the connection; return when the server has taken the request."""
    state: State = conn._state
    _refuse(conn, state)
    with _counted(state):
        if state.inside or conn.async_:
            _deliver(conn, state)
            return
    state.acquire(state.current())  # nothing runs: keep a query from starting meanwhile
    try:
        _deliver(conn, state)
    finally:
        close_if_told(conn, state)
        state.relinquish()


def cancel_block(conn: Any) -> None:
    """Cancel what a block has left running in the server, within a second, before a close."""
    state: State = conn._state
    if not state.can_wait():
        return
    shield = Shield(state.backend, None, CLOSE_TIMEOUT)
    with suppress(Unrepaired, Error):
        cancel_query(conn, shield)


@contextmanager
def _counted(state: State) -> Iterator[None]:
    """Keep the running operation from ending before the request has ended."""
    if not state.cancels:
        state.quiet = state.backend.event()
    state.cancels += 1
    state.chores = True
    try:
        yield
    finally:
        state.cancels -= 1
        if not state.cancels and state.quiet is not None:
            state.quiet.set()


def _refuse(conn: Any, state: State) -> None:
    if conn.closed:
        raise closed()
    if state.forked:
        raise not_ours()
    if conn.status == ext.STATUS_PREPARED:
        raise ProgrammingError("cancel cannot be used with a prepared two-phase transaction")
    if conn.status not in (ext.STATUS_READY, ext.STATUS_BEGIN):
        raise OperationalError("asynchronous connection attempt underway")
    if not state.can_wait():
        raise ProgrammingError(IN_HUB)


def _deliver(conn: Any, state: State) -> None:
    """Await the request's end even when interrupted: cut short it might hit a later query."""
    shield = Shield(state.backend, None, state.cancel_timeout)
    try:
        cancel_query(conn, shield)
    except (Unrepaired, Error) as err:
        state.close_soon()
        state.waiter.interrupt(closed())
        raise shield.verdict or OperationalError(
            f"cancel: the server did not take the request in {state.cancel_timeout:g} s; "
            "the connection is closed"
        ) from err
    if shield.verdict is not None:
        raise shield.verdict
