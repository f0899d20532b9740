"""A pool's numbers for monitoring, which no `pop_stats` sets back."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ._slots import Phase

if TYPE_CHECKING:
    from ._state import PoolState

log = logging.getLogger("greenpg.pool")
# in seconds, as OpenTelemetry's conventions advise ("db.client.connection.use_time"), and a minute
BOUNDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0)
BRIEF: Final = BOUNDS[0]


@dataclass(frozen=True, slots=True)
class Durations:
    """Numbers of durations up to each of BOUNDS (the last one: above all), and their sum."""

    counts: tuple[int, ...]
    total: float


class Histogram:
    """Counts durations; `listener`, if set, is called with each one, without the pool's lock."""

    __slots__ = ("counts", "listener", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0
        self.listener: Callable[[float], object] | None = None

    def note(self, seconds: float) -> bool:
        """Count a duration; return True if it is to be reported."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds
        return self.listener is not None

    def report(self, seconds: float) -> None:
        """Call the listener, if there is one; its errors are logged."""
        try:
            if self.listener is not None:
                self.listener(seconds)
        except Exception:
            log.exception("a listener of a pool's times failed")

    def durations(self, brief: int = 0) -> Durations:
        """Return what was counted, and `brief` more durations of next to nothing."""
        return Durations((self.counts[0] + brief, *self.counts[1:]), self.total)


class Times:
    """The durations of a pool's waits, loans and connects.

    Loans of up to `Performer.brief` seconds are not noted, since that would make all loans dearer
    (`greenpg bench -w pool`): `returned` counts them, and `Performer.used` adds them up.
    """

    def __init__(self) -> None:
        self.waits, self.loans, self.connects = Histogram(), Histogram(), Histogram()
        self.timeouts = 0


@dataclass(frozen=True, slots=True)
class Measures:
    """A pool's numbers at one moment; times in seconds, counters since the start.

    `waits` has all requests that got a connection, those without a wait too; `closed` the
    numbers of closed connections by reason.
    """

    in_use: int
    idle: int
    connecting: int
    waiting: int
    oldest_wait: float
    oldest_loan: float
    timeouts: int
    waits: Durations
    loans: Durations
    connects: Durations
    closed: Mapping[str, int]


def measures(state: PoolState, times: Times, used: float, now: float) -> Measures:
    """Return a pool's numbers; does not wait. `used` is the sum of all loans."""
    asked = [waiter.since for waiter in list(state.waiters)]
    lent = [slot.since for slot in list(state.lent.values())]
    return Measures(
        in_use=len(lent),
        idle=len(state.idle),
        connecting=sum(slot.phase is Phase.CONNECTING for slot in list(state.slots)),
        waiting=len(asked),
        oldest_wait=max(now - min(asked, default=now), 0.0),
        oldest_loan=max(now - min(lent, default=now), 0.0),
        timeouts=times.timeouts,
        waits=times.waits.durations(taken(state) - state.withdrawn - _unconfirmed(state)),
        loans=_loans(state, times, used),
        connects=times.connects.durations(),
        closed=dict(state.closings),
    )


def _loans(state: PoolState, times: Times, used: float) -> Durations:
    noted = times.loans.counts[1:]
    return Durations((returned(state) - sum(noted), *noted), used)


def taken(state: PoolState) -> int:
    """Return how many connections have been lent to tasks that did not have to wait."""
    return _loans_of(state) - state.passed


def returned(state: PoolState) -> int:
    """Return how many connections have been returned by their borrowers."""
    return _loans_of(state) - state.undone - len(state.lent)


def count_on(state: PoolState, old: PoolState) -> None:
    """Continue the counters of another state, whose lent connections never come back."""
    state.former, state.passed, state.closings = _loans_of(old), old.passed, old.closings
    state.undone = old.undone + len(old.lent)
    state.withdrawn = old.withdrawn + _unconfirmed(old)


def _loans_of(state: PoolState) -> int:
    return state.former + sum(int(slot.loan) for slot in list(state.slots))


def _unconfirmed(state: PoolState) -> int:
    """Return how many connections are lent that may yet prove to be unusable."""
    return sum(slot.holder is None for slot in list(state.lent.values()))
