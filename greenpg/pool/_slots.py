"""The records of the pool: slots, waiters, limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import inf
from types import CodeType
from typing import Any, Final, TypeAlias

from greenpg._checks import check_count, check_number


class Phase(Enum):
    """The current phase of a slot."""

    CONNECTING = "connecting"
    IDLE = "idle"
    LENT = "lent"
    CHECKING = "checking"
    CLEANING = "cleaning"
    CLOSING = "closing"
    GONE = "gone"


IDLE: Final = Phase.IDLE  # access through the class is slow before Python 3.12 (enum.py)
LENT: Final = Phase.LENT
LONGEST_REST: Final = 10.0  # seconds
SHORTEST_REST: Final = 0.05  # seconds; limits of zero must not cause a busy loop


# where and by whom a connection was asked for: the code, an offset in it, a reference to the task
Borrower: TypeAlias = tuple[CodeType, int, Callable[[], Any]]


def _no_input(_: int) -> tuple[()]:
    return ()


def _no_connection() -> None:
    """Return None, as the reference of a slot that another OS thread has just emptied."""


@dataclass(slots=True, eq=False)
class Slot:
    """The right to one session on the server, from before its connect until after its close.

    `conn` is None while a connection is lent: then only the holder keeps it alive, and `ref`
    is called when it is garbage-collected.
    """

    since: float  # when the phase began
    phase: Phase = Phase.CONNECTING
    expires: float = inf
    loan: float = 0.0  # the number of the current or last loan
    last_loan: float = inf  # both are floats, for a faster comparison: `bench -w pool`
    stale: bool = False  # to be checked before it is lent
    warned: float = 0.0  # the loan that has been warned of
    worker: Any = None  # the task that does the work of the phase, once it has begun
    key: int = 0  # of `PoolState.lent`
    conn: Any = None
    ref: Callable[[], Any] = _no_connection  # one of a connection adds itself to `Performer.lost`
    alarm: Any = None  # called after that
    has_input: Callable[[int], Any] = _no_input  # called with 0; see ConnectionManager
    holder: Borrower | None = None
    stack: str | None = None
    done: Any = None  # the event to set when the connection has been cleaned

    def empty(self) -> Any:
        """Remove the connection from the slot and return it."""
        conn, self.conn, self.ref, self.alarm = self.conn, None, _no_connection, None
        self.has_input = _no_input
        return conn


@dataclass(slots=True, eq=False)
class Waiter:
    """A task that waits for a slot, or for a condition of the pool.

    `tick` ends the wait at `deadline`, which is inf for a task that limits its own wait.
    """

    event: Any
    deadline: float = inf
    borrower: Borrower | None = None  # None if it waits for no connection
    since: float = -inf  # when the connection was asked for
    slot: Slot | None = None
    loan: float = 0.0  # the number of the slot's loan
    error: Exception | None = None

    def served(self) -> bool:
        """Return True if the wait is over."""
        return self.slot is not None or self.error is not None


@dataclass(slots=True, kw_only=True)
class Limits:
    """A pool's limits, times in seconds; ValueError for impossible ones, TypeError for texts."""

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
        for name in "max_waiting", "max_lifetime", "max_idle", "reconnect_timeout", "warn_held":
            check_number(name, getattr(self, name))
        check_number("max_uses", self.max_uses, 1)
        check_count("num_workers", self.num_workers, 1)
        if self.always_check:
            self.fresh = -inf

    def timed(self) -> bool:
        """Return True if a connection can be too old, idle for too long, or lent for too long."""
        return min(self.max_lifetime, self.max_idle, self.warn_held) < inf

    def rest(self) -> float:
        """Return the longest sleep between ticks in seconds, for changed limits to take effect."""
        wanted = min(LONGEST_REST, self.max_idle / 2, self.max_lifetime / 4, self.warn_held / 2)
        return max(wanted, SHORTEST_REST)

    def resize(self, min_size: int, max_size: int) -> None:
        """Set new sizes; ValueError if they are impossible, TypeError if they are no numbers."""
        check_count("min_size", min_size)
        check_count("max_size", max_size, 1)
        if max_size < min_size:
            raise ValueError(f"max_size={max_size} is below min_size={min_size}; set both")
        self.min_size, self.max_size = min_size, max_size
