"""A pool's statistics, its load, and the places where its connections were borrowed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from ._slots import LENT, Slot

if TYPE_CHECKING:
    from ._state import PoolState

SECONDS: Final = ("requests_wait", "usage", "connections")


@dataclass(slots=True)
class Stats:
    """Counters since the start, or since they were last popped; times in seconds.

    `requests_*` count calls for a connection, `usage` is the time that connections were lent,
    `returns_*` count returned connections, `connections_*` sessions.
    """

    requests_num: int = 0
    requests_queued: int = 0
    requests_wait: float = 0.0
    requests_errors: int = 0
    usage: float = 0.0
    returns_bad: int = 0
    connections_num: int = 0
    connections: float = 0.0
    connections_errors: int = 0
    connections_lost: int = 0

    def report(self, state: PoolState) -> dict[str, int]:
        """Return psycopg_pool's statistics; times in milliseconds, zeros left out as there."""
        limits = state.limits
        counted = asdict(self)
        for name in SECONDS:
            counted[f"{name}_ms"] = int(1000 * counted.pop(name))
        return {
            "pool_min": limits.min_size,
            "pool_max": limits.max_size,
            "pool_size": len(state.slots),
            "pool_available": len(state.idle),
            "requests_waiting": len(state.waiters),
            **{name: value for name, value in counted.items() if value},
        }


def describe_holder(slot: Slot) -> str:
    """Return the place in the code where a connection was borrowed: file:line in function."""
    if slot.holder is None:
        return "an unknown place"
    code, offset = slot.holder
    line = next((line for start, end, line in code.co_lines() if start <= offset < end), None)
    function = getattr(code, "co_qualname", code.co_name)  # Python 3.10 has no co_qualname
    place = f"{PurePath(code.co_filename).name}:{line} in {function}"
    return f"{place}\n{slot.stack}" if slot.stack else place


def describe_load(state: PoolState, now: float) -> str:
    """Return the numbers lent, waiting and broken, and where the oldest loan was borrowed."""
    lent = list(state.lent.values())
    ours = len(state.slots) - len(state.idle) - len(lent)
    counts = f"{len(lent)} lent, {len(state.waiters)} waiting, {ours} broken or being connected"
    held = [slot for slot in lent if slot.phase is LENT and slot.holder is not None]
    if not held:
        return counts
    oldest = min(held, key=lambda slot: slot.since)
    return f"{counts}; the oldest lent {now - oldest.since:.1f} s ago at {describe_holder(oldest)}"
