"""All pools of the process in the log, when a signal asks for them."""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING

from greenpg.threads import Task

from ._pool import all_pools

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from ._pool import Pool

log = logging.getLogger("greenpg.pool")


def log_pools() -> None:
    """Write the load, the holders and the waiters of all pools of the process to the log."""
    for pool in all_pools():
        _log(pool)


def _log(pool: Pool) -> None:
    try:
        log.warning("%s", "\n".join(_lines(pool)))
    except Exception:  # such as that of a task's repr()
        log.exception("pool %r cannot be described", pool.name)


def log_pools_on(number: int = signal.SIGUSR2) -> None:
    """Write all pools to the log whenever the process gets a signal; call it in the main thread.

    An OS thread writes, so that it works where the event loop is held up by Python code. A
    handler that the signal had before is called too.
    """
    before = signal.getsignal(number)
    if not isinstance(before, _Handler):
        signal.signal(number, _Handler(before))


class _Handler:
    """A signal's handler, and the one before it."""

    def __init__(self, before: object) -> None:
        self._before = before

    def __call__(self, number: int, frame: FrameType | None) -> None:
        Task(log_pools, ())
        if callable(self._before):
            self._before(number, frame)


def _lines(pool: Pool) -> Iterator[str]:
    numbers = pool.measures()
    counts = f"{numbers.in_use} lent, {numbers.idle} idle, {numbers.waiting} waiting"
    yield f"pool {pool.name!r}: {counts}, {numbers.connecting} being connected"
    for holder in pool.holders():
        session = f"{holder.state}, server process {holder.pid}, {holder.task!r}"
        yield f"  lent {holder.seconds:.1f} s ago at {holder.place}: {session}"
        if holder.stack:
            yield holder.stack
    for waiter in pool.waiters():
        yield f"  waiting for {waiter.seconds:.1f} s at {waiter.place}: {waiter.task!r}"
