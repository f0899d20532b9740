"""A forked child must not speak, nor listen, on its parent's connections."""

from __future__ import annotations

import os
from contextlib import suppress
from posix import close  # a monkey-patch may have replaced that of os
from typing import Any, Final
from weakref import ref

from greenpg._fork_hooks import Order, in_child


class Watched(ref[Any]):
    """A connection that is cut off in children forked from now on, as long as it is in `watched`.

    It is found by itself: a user's class of connections may have no hash.
    """

    __slots__ = ()
    __eq__ = object.__eq__
    __hash__ = object.__hash__


watched: Final[set[Watched]] = set()


def _cut_off() -> None:
    """Put a dead socket in place of every inherited one.

    Copies of green threads that wait run on in the child, and an explicit close() there would
    end the parent's session: now they meet end of file, and the parent notices nothing.
    """
    connections = [conn for one in list(watched) if (conn := one()) is not None]
    watched.clear()
    if connections:
        dead = dead_socket()
        for conn in connections:
            _replace(conn, dead)
        close(dead)


def dead_socket() -> int:
    """Return a socket that meets end of file, to be put in place of inherited ones by `dup2`.

    A copy is not closed instead: to remove it from a loop that the parent shares (epoll) would
    remove the parent's.
    """
    import _socket  # late: importing greenpg must not load it before a monkey-patch

    one, other = _socket.socketpair()
    other.close()
    return one.detach()


def _replace(conn: Any, dead: int) -> None:
    state = conn._greenpg_state
    state.disable_in_child()
    state.waiter.interrupt(state.parents_error())
    with suppress(state.errors.error):  # it was closed before the fork
        os.dup2(dead, conn.fileno(), inheritable=False)
    kept = state.waiter.fileno()
    if kept >= 0:
        os.dup2(dead, kept, inheritable=False)


in_child(Order.CONNECTIONS, _cut_off)
