"""A pool's statistics."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from ._measures import taken

if TYPE_CHECKING:
    from ._state import PoolState

SECONDS: Final = ("requests_wait", "usage", "connections")


@dataclass(slots=True)
class Stats:
    """Counters since the start, or since they were last popped; times in seconds.

    `requests_*` count calls for a connection, `usage` is the time that connections were lent,
    `returns_*` count returned connections, `connections_*` sessions.
    """

    requests_num: int = 0  # those that found no idle connection; `taken` has the others
    requests_queued: int = 0
    requests_wait: float = 0.0
    requests_errors: int = 0
    usage: float = 0.0  # `Performer.used` when the counting began
    returns_bad: int = 0
    connections_num: int = 0
    connections: float = 0.0
    connections_errors: int = 0
    connections_lost: int = 0
    taken: int = 0  # `taken` of the state when the counting began

    def report(self, state: PoolState, used: float) -> dict[str, int]:
        """Return psycopg_pool's statistics; times in milliseconds, zeros left out as there."""
        limits = state.limits
        counted = asdict(self)
        counted["usage"] = used - self.usage
        counted["requests_num"] += taken(state) - counted.pop("taken")
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
