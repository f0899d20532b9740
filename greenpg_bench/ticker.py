"""Measures how long a piece of work holds up other tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from greenpg_conformance.toolkit.machine import clock

if TYPE_CHECKING:
    from .hosts import Crew

TICK = 0.001
IDLE = 0.3


def stall(tasks: Crew, work: Callable[[], object]) -> float:
    """Seconds by which a ticker's longest gap during the work exceeds that of an idle time."""
    idle = _longest_gap(tasks, lambda: tasks.sleep(IDLE))
    return max(_longest_gap(tasks, work) - idle, 0.0)


def _longest_gap(tasks: Crew, work: Callable[[], object]) -> float:
    longest, going = 0.0, True

    def tick() -> None:
        nonlocal longest
        last = clock()
        while going:
            tasks.sleep(TICK)
            now = clock()
            longest, last = max(longest, now - last), now

    tasks.start(tick)
    tasks.sleep(10 * TICK)
    try:
        work()
    finally:
        going = False
        tasks.finish()
    return longest
