"""What a pool does in tasks of its own: connecting, checking, cleaning, closing, keeping time."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from greenpg.backend import Event

    from ._pool import Pool
    from ._slots import Slot

__all__ = ["JOBS", "WAKING", "fill", "keep"]

log = logging.getLogger("greenpg.pool")


def connect(pool: Pool, slot: Slot) -> None:
    """Fill a slot with a connection; whoever asked for it may be gone by now."""
    began = monotonic()
    pool.stats.connections_num += 1
    try:
        conn = pool.driver.connect()
        peek = pool.driver.peek(conn)
    except BaseException as error:
        pool.stats.connections_errors += 1
        level = logging.DEBUG if pool.state.failures else logging.WARNING
        log.log(level, "pool %r: no connection: %s", pool.name, _said(error))
        pool.report("connect_failed", slot, error)
        return
    pool.stats.connections += monotonic() - began
    pool.report("connected", slot, fill(pool, slot, conn, peek))


def fill(pool: Pool, slot: Slot, conn: Any, peek: Callable[[int], Any]) -> int:
    """Put a connection into a slot; returns the key that names it among the lent ones."""
    key = id(conn)
    slot.conn, slot.peek = conn, peek
    slot.ref = weakref.ref(conn, partial(_lost, weakref.ref(pool), key))
    return key


def _lost(whose: Callable[[], Pool | None], key: int, ref: Any) -> None:
    """Free the slot of a connection that its holder has lost; called by the garbage collector."""
    pool = whose()
    if pool is not None:
        pool.note_lost(key, ref)


def inspect(pool: Pool, slot: Slot) -> None:
    """Find out whether a connection still works."""
    try:
        pool.driver.check(slot.conn)
    except BaseException as error:
        log.info("pool %r: a connection is broken: %s", pool.name, _said(error))
        pool.stats.connections_lost += 1
        pool.report("retire", slot)
    else:
        pool.report("restored", slot)


def clean(pool: Pool, slot: Slot) -> None:
    """Make a connection that came back fit for the next user, or close it."""
    done, slot.done = slot.done, None
    try:
        pool.driver.clean(slot.conn)
    except BaseException as error:
        log.warning("pool %r: a connection could not be cleaned: %s", pool.name, _said(error))
        pool.stats.returns_bad += 1
        pool.report("retire", slot)
    else:
        pool.report("restored", slot)
    finally:
        if done is not None:
            done.set()


def close(pool: Pool, slot: Slot) -> None:
    """Close a connection; its slot is free once the server has ended the session."""
    conn = slot.empty()
    try:
        pool.driver.close(conn)
    except BaseException as error:
        log.warning("pool %r: closing a connection failed: %s", pool.name, _said(error))
    finally:
        pool.report("closed", slot)


def _said(error: BaseException) -> str:
    return str(error).strip() or repr(error)


JOBS: Final[dict[str, Callable[[Pool, Slot], None]]] = {
    "connect": connect,
    "inspect": inspect,
    "clean": clean,
    "close": close,
}
WAKING: Final = frozenset({"serve", "fail", "expire"})


def keep(whose: Callable[[], Pool | None], keeping: Any) -> None:
    """Call the pool when something is due, for as long as it lives and has connections."""
    try:
        while (rest := _tick(whose())) is not None:
            alarm, seconds = rest
            alarm.wait(seconds)
    finally:
        keeping.release()
        pool = whose()
        if pool is not None:
            pool.keep_time()  # killed, or something came between the last tick and the release


def _tick(pool: Pool | None) -> tuple[Event, float] | None:
    return None if pool is None else pool.tick()
