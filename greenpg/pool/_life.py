"""What concerns a pool as a whole: opening, waiting for a state, closing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from psycopg2 import ProgrammingError

from greenpg.errors import PoolClosed

from ._holders import load
from ._slots import CHECKING, Waiter

if TYPE_CHECKING:
    from ._pool import Pool
    from ._state import PoolState

__all__ = ["begin", "dismiss", "end", "inspect_all", "open_or_refuse", "until"]

CANCEL_SECONDS: Final = 1.0
log = logging.getLogger("greenpg.pool")


def begin(pool: Pool) -> None:
    """Open the pool; PoolClosed if it has been closed."""
    if pool.state.ended:
        raise PoolClosed(f"pool {pool.name!r} has been closed and cannot be opened again")
    pool.opens_itself = True
    pool.tell(pool.state.begin)


def open_or_refuse(pool: Pool, now: float) -> None:
    """Open the pool for its first borrower, unless it was closed or wants to be opened."""
    state = pool.state
    if state.ended:
        text = f"pool {pool.name!r} is closed ({load(state, now)})"
        raise PoolClosed(text) from state.last_error
    if not pool.opens_itself:
        text = f"pool {pool.name!r} is not open yet; call open(), or use it in a with"
        raise PoolClosed(text)
    state.begin(now)


def until(pool: Pool, holds: Callable[[], bool], timeout: float) -> bool:
    """Wait until something holds of the state; False after `timeout` seconds."""
    if not pool.backend.can_wait():
        raise ProgrammingError("in the event loop's own greenlet nothing may wait")
    waiter = Waiter(pool.backend.event())
    pool.tell(partial(_watch, pool.state, waiter, holds))
    try:
        waiter.event.wait(None if timeout == inf else max(timeout, 0.0))
    finally:
        pool.tell(partial(_unwatch, pool.state, waiter))
    return holds()


def dismiss(waiters: Iterable[Waiter], name: str) -> None:
    """Fail the copies that a forked child has of the parent's waiting tasks."""
    for waiter in waiters:
        waiter.error = PoolClosed(f"pool {name!r}: the forked child's copy of a waiting task")
        waiter.event.set()


def _watch(state: PoolState, waiter: Waiter, holds: Callable[[], bool], now: float) -> None:
    state.watch(waiter, holds)


def _unwatch(state: PoolState, waiter: Waiter, now: float) -> None:
    state.watches = [watch for watch in state.watches if watch[0] is not waiter]


def inspect_all(pool: Pool) -> None:
    """Check all idle connections; returns when that is done."""
    slots = list(pool.state.idle)
    pool.tell(pool.state.inspect_idle, slots)
    until(pool, lambda: all(slot.phase is not CHECKING for slot in slots), inf)


def end(pool: Pool, timeout: float) -> None:
    """Close: wait for what is lent, then cancel, then close; waiters get PoolClosed."""
    if not pool.state.ended:
        error = PoolClosed(f"pool {pool.name!r} was closed ({load(pool.state, monotonic())})")
        pool.tell(pool.state.end, error)
    if not pool.state.slots or not pool.backend.can_wait():
        return
    if not until(pool, pool.state.empty, timeout):
        _on_lent(pool, pool.driver.cancel)
        if not until(pool, pool.state.empty, CANCEL_SECONDS):
            _on_lent(pool, pool.driver.close)


def _on_lent(pool: Pool, act: Callable[[Any], None]) -> None:
    for slot in list(pool.state.lent.values()):
        conn = slot.ref()
        if conn is None:
            continue
        try:
            act(conn)
        except Exception as error:
            log.warning("pool %r: while closing: %s", pool.name, error)
