"""Waiting for what the server says unasked: notifications, a replication stream."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from psycopg2._psycopg import connection as c_connection

from ._repair import closed
from ._wait import settle_descriptor
from .backend import READ
from .errors import DeadlineExceeded

if TYPE_CHECKING:
    from ._state import State

__all__ = ["wait_for_input"]


def wait_for_input(conn: Any, timeout: float | None) -> bool:
    """Hold the connection until the server says something; False after `timeout` seconds.

    What libpq has read already does not count: take that first. The wait is outside C, so an
    interrupt changes nothing on the connection and `close()` from another task ends it with
    InterfaceError. The task's deadline raises DeadlineExceeded.
    """
    state: State = conn._state
    me = state.current()
    state.acquire(me)
    try:
        deadline = state.deadlines.get(me)
        left = timeout if deadline is None else _nearest(timeout, deadline - monotonic())
        ready = _wait(conn, state, left)
        if not ready and deadline is not None and monotonic() >= deadline:
            raise DeadlineExceeded("the deadline passed while waiting for the server to speak")
        return bool(ready)
    finally:
        state.relinquish()


def _nearest(timeout: float | None, left: float) -> float:
    return left if timeout is None else min(timeout, left)


def _wait(conn: Any, state: State, timeout: float | None) -> int:
    if conn.closed:
        raise closed()
    if not state.live:
        settle_descriptor(conn, state)
    state.waiting = True
    try:
        return state.wait(state.fd, READ, timeout)
    finally:
        state.waiting = False
        if state.closing:
            c_connection.close(conn)
            state.waiter.close()
