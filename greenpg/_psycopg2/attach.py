"""A connection's state, made before it connects or on first need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from greenpg._session.forks import Watched, watched

from .attempt import attempts, backend_of_next
from .state import State

if TYPE_CHECKING:
    from greenpg.backend import Backend, Waiter

    from .attempt import Attempt

__all__ = ["Guard", "Spent", "StateOnFirstNeed", "begin"]


class Spent(list["Waiter"]):
    """What remains of a guard that has no more to do: to delete it is no call in Python."""

    __slots__ = ()


class Guard(list["Waiter"]):
    """Freed before psycopg2's deallocator closes the socket, unlike a weakref's callback."""

    __slots__ = ()

    def __del__(self) -> None:
        for waiter in self:
            waiter.close()


class StateOnFirstNeed:
    """Makes a connection's state: a user's `__new__` or `__init__` may skip ours.

    `_state_made` is the same; CPython reads it faster, since no attribute of the class is
    behind it.
    """

    def __get__(self, conn: Any, owner: type) -> State:
        if conn is None:
            raise AttributeError("_state")
        before, attempt = conn.__dict__, attempts.get()
        backend = None if attempt is None else attempt.backend
        state = begin(conn, backend or backend_of_next(), attempt)
        conn.__dict__.update(before)
        if attempt is not None:
            attempt.conn = conn
        return state


def begin(conn: Any, backend: Backend, attempt: Attempt | None) -> State:
    """Give a connection its state, in a new dict of attributes."""
    state = State(backend)
    state.attempt = attempt
    # in the connection's own dict keys are shared with others: CPython reads it slower
    conn.__dict__ = {"_guard": Guard((state.waiter,)), "_state": state, "_state_made": state}
    watched.add(Watched(conn, watched.discard))
    return state
