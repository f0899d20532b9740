"""The records of the pool: slots, waiters, limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, Final

__all__ = [
    "CHECKING",
    "CLEANING",
    "CLOSING",
    "CONNECTING",
    "GONE",
    "IDLE",
    "LENT",
    "Limits",
    "Slot",
    "Waiter",
]

CONNECTING: Final = "connecting"  # the pool's own task opens its connection
IDLE: Final = "idle"
LENT: Final = "lent"
CHECKING: Final = "checking"
CLEANING: Final = "cleaning"
CLOSING: Final = "closing"
GONE: Final = "gone"
LONGEST_REST: Final = 10.0
SHORTEST_REST: Final = 0.05  # limits of zero are no reason to spin


def _silent(_: int) -> tuple[()]:
    return ()


class Slot:
    """The right to one session on the server, from before its connect until after its close.

    `conn` is empty while a connection is lent: if its holder loses it, `ref` tells.
    """

    __slots__ = (
        "conn", "done", "expires", "holder", "key", "peek", "phase", "ref", "since", "stack",
        "stale", "uses", "warned",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self.phase = CONNECTING
        self.since = now  # when it came into this phase
        self.expires = inf
        self.uses = 0.0  # a float as `max_uses` is: CPython compares it faster
        self.stale = False  # to be checked before it is lent
        self.warned = False
        self.key = 0
        self.conn: Any = None
        self.ref: Any = None
        self.peek: Callable[[int], Any] = _silent
        self.holder: tuple[Any, int] | None = None  # a code object and an offset into it
        self.stack: str | None = None
        self.done: Any = None  # what to set when the connection has been cleaned

    def empty(self) -> Any:
        """Return the connection and keep nothing of it."""
        conn, self.conn, self.ref, self.peek = self.conn, None, None, _silent
        return conn

    def __repr__(self) -> str:
        return f"<Slot {self.phase} since {self.since:.3f}, {self.uses:.0f} uses>"


class Waiter:
    """A task that waits: for a slot, or for the pool to come into some state.

    `deadline` is for `tick` to see to; a task that wakes by itself has none.
    """

    __slots__ = ("deadline", "error", "event", "slot")

    def __init__(self, event: Any, deadline: float = inf) -> None:
        self.event = event
        self.deadline = deadline
        self.slot: Slot | None = None
        self.error: Exception | None = None


@dataclass(slots=True, kw_only=True)
class Limits:
    """What the user asks of a pool; ValueError for what cannot be."""

    min_size: int = 4
    max_size: int = 4
    max_waiting: int = 0
    max_lifetime: float = 3600.0
    max_idle: float = 600.0
    max_uses: float = inf
    reconnect_timeout: float = 300.0
    num_workers: int = 3
    warn_held: float = inf
    fresh: float = 1.0  # a connection that was idle for longer is checked before it is lent
    always_check: bool = False

    def __post_init__(self) -> None:
        self.resize(self.min_size, self.max_size)
        if self.always_check:
            self.fresh = -inf
        if self.num_workers < 1:
            raise ValueError("num_workers must be at least 1")
        if self.max_uses < 1:
            raise ValueError("max_uses must be at least 1")

    def timed(self) -> bool:
        """Tell whether age or disuse ever ends a connection, or a long loan has a warning."""
        return min(self.max_lifetime, self.max_idle, self.warn_held) < inf

    def rest(self) -> float:
        """Return how long whoever keeps time may sleep, lest new limits come too late."""
        wanted = min(LONGEST_REST, self.max_idle / 2, self.max_lifetime / 4, self.warn_held / 2)
        return max(wanted, SHORTEST_REST)

    def resize(self, min_size: int, max_size: int) -> None:
        """Take new sizes, if they make sense."""
        if min_size < 0:
            raise ValueError("min_size cannot be negative")
        if max_size < max(min_size, 1):
            raise ValueError("max_size must be at least 1 and not below min_size")
        self.min_size, self.max_size = min_size, max_size
