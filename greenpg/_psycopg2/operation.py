"""Commands that greenpg speaks with libpq itself, past psycopg2's C code."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from psycopg2 import Error
from psycopg2._psycopg import connection as c_connection

from .recovery import AGAIN, CLOSE_TIMEOUT, Shield, Unrepaired, cancel_query, closed, leave
from .wait_callback import Turns, settle_descriptor

if TYPE_CHECKING:
    from greenpg._protocol.generators import Steps

    from .state import State

__all__ = ["Operation", "drive", "pgconn_of", "run", "stop"]

_T = TypeVar("_T")
Operation: TypeAlias = Generator[tuple[int, int], None, _T]


def run(conn: Any, operation: Operation[_T], rest: Callable[[], Steps]) -> _T | None:
    """Run an operation under the connection's lock and return its value.

    Interrupted, the command is cancelled and the steps of `rest` bring libpq back to idle; the
    connection is as after any other interrupted operation.
    """
    state = conn._state
    state.enter()
    try:
        return drive(conn, operation, rest)
    finally:
        state.inside = False
        leave(conn, state)


def drive(
    conn: Any,
    operation: Operation[_T],
    rest: Callable[[], Steps],
    turns: Turns | None = None,
) -> _T | None:
    """Run an operation of a task that is inside already; None if it was interrupted.

    Operations that follow one another with nothing to wait for share their `turns`.
    """
    state = conn._state
    turns = turns or Turns(state)
    stepping = True
    try:
        while True:
            stepping = True
            _, events = next(operation)
            stepping = False
            turns.take(events)
    except StopIteration as end:
        value: _T = end.value
        return value
    except BaseException as exc:
        operation.close()
        if stepping and isinstance(exc, Error):  # libpq has lost the server
            _close(conn, state)
            raise
        stop(conn, exc, rest)
        return None


def pgconn_of(conn: Any) -> tuple[int, int]:
    """Return the PGconn and its descriptor; psycopg2's error if the connection is closed."""
    if conn.closed:
        raise closed()
    state = conn._state
    if not state.live:
        settle_descriptor(conn, state)
    return conn.pgconn_ptr, state.fd


def stop(conn: Any, exc: BaseException | None, rest: Callable[[], Steps]) -> None:
    """Cancel the command and take the steps of `rest`; what is to be raised is left pending.

    The connection is closed if that does not succeed within `cancel_timeout`.
    """
    state = conn._state
    seconds = CLOSE_TIMEOUT if state.closing else state.cancel_timeout
    shield = Shield(state.backend, exc, seconds)
    try:
        cancel_query(conn, shield)
        for fd, events in rest():
            if events:
                while not shield.wait(partial(state.wait, fd, events), AGAIN):
                    cancel_query(conn, shield)
    except (Unrepaired, Error):
        _close(conn, state)
    state.interrupted(shield.verdict)


def _close(conn: Any, state: State) -> None:
    c_connection.close(conn)
    state.waiter.close()
