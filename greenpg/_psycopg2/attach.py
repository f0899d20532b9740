"""A connection's state: attached before it connects, or on first need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from greenpg._session.forks import Watched, watched
from greenpg._session.waiter_closer import WaiterCloser
from greenpg.backend import current

from .attempt import current_request
from .state import State

if TYPE_CHECKING:
    from greenpg.backend import Backend

    from .attempt import Attempt


class LazyState:
    """A connection's `_greenpg_state`: a user's `__new__` or `__init__` may skip ours.

    `_greenpg_state_made` is the same object; CPython reads it faster, since the class has no
    attribute of that name.
    """

    def __get__(self, conn: Any, owner: type) -> State:
        if conn is None:
            raise AttributeError("_greenpg_state")
        request = current_request()
        return attach_state(conn, request.backend or current(), request.attempt_of(conn))


def attach_state(conn: Any, backend: Backend, attempt: Attempt | None) -> State:
    """Give a connection its state."""
    state = State(backend)
    state.attempt = attempt
    # A new dict: the connection's own shares its keys with others, and CPython reads it slower.
    own = {
        "_greenpg_guard": WaiterCloser((state.waiter,)),
        "_greenpg_state": state,
        "_greenpg_state_made": state,
    }
    object.__setattr__(conn, "__dict__", {**own, **conn.__dict__})
    watched.add(Watched(conn, watched.discard))
    return state
