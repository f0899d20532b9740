"""What a pool has counted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ._state import PoolState

__all__ = ["Stats"]

SECONDS: Final = ("requests_wait", "usage", "connections")


@dataclass(slots=True)
class Stats:
    """Counters since the start, or since they were last popped; times in seconds.

    `requests_*` are those who asked for a connection, `usage` is the time connections were
    lent, `returns_*` are connections that came back, `connections_*` are sessions.
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
        """Return psycopg_pool's measures; times in milliseconds, zeros left out as there."""
        limits = state.limits
        counted = {
            f"{name}_ms" if name in SECONDS else name: int(
                value * 1000 if name in SECONDS else value
            )
            for name, value in asdict(self).items()
        }
        return {
            "pool_min": limits.min_size,
            "pool_max": limits.max_size,
            "pool_size": len(state.slots),
            "pool_available": len(state.idle),
            "requests_waiting": len(state.waiters),
            **{name: value for name, value in counted.items() if value},
        }
