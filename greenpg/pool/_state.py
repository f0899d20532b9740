"""The pool's decisions: events in, effects out, time an argument; nothing here waits."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from enum import Enum, auto
from itertools import islice
from math import inf
from random import random
from typing import Any, Final

from greenpg._session.backoff import backoff

from ._slots import IDLE, LENT, Borrower, Limits, Phase, Slot, Waiter

LONGEST_DELAY: Final = 0.8  # seconds; reconnects within 1 s of the server's return
PATIENCE: Final = 1.0  # seconds; a connect that takes longer does not delay the others
CHECK_PATIENCE: Final = 0.1  # seconds; after that a new connect no longer waits for the check
JITTER: Final = 0.1  # of max_lifetime


class Effect(Enum):
    """A requested action; its subject is a waiter, a slot, or the pool (None)."""

    WAKE = auto()  # a waiter with a slot, an error, an expired deadline, or a true condition
    CONNECT = auto()  # answered by `connected` or `connect_failed`
    CHECK = auto()  # answered by `restored` or `retire`
    CLEAN = auto()  # answered by `restored` or `retire`
    CLOSE = auto()  # answered by `closed`
    WARN_HELD = auto()  # a slot has been lent for `warn_held` seconds
    WARN_LOST = auto()  # a lent connection was garbage-collected
    GIVE_UP = auto()  # connecting has failed for `reconnect_timeout`
    TICK_EARLIER = auto()  # `planned` is earlier than it was
    ABANDON = auto()  # a waiter's task has ended its wait by an error
    RECLAIM = auto()  # an error has cut a loan short; the subject is a slot and its loan's number
    REPORT = auto()  # a task's report has failed; the subject is a function to be called again
    KEEP_TIME = auto()  # `tick` may be needed, and no task may be calling it
    STRAND = auto()  # the hub of the pool's tasks was destroyed


BROKEN: Final = "broken"  # the reason of a close
WAKE: Final = Effect.WAKE  # access through the class is slow before Python 3.12 (enum.py)


class PoolState:
    """Each method is one event, which appends the actions it requests to `effects`.

    A waiter whose deadline has passed stays in line until `abandon` is called.
    """

    def __init__(self, limits: Limits, jitter: Callable[[], float] = random) -> None:
        self.limits = limits
        self.effects: deque[tuple[Effect, Any]] = deque()
        self.slots: set[Slot] = set()
        self.idle: list[Slot] = []
        self.lent: dict[int, Slot] = {}
        self.waiters: OrderedDict[Waiter, None] = OrderedDict()  # 20,000 may be killed at once
        self.soonest = inf  # no waiter's deadline is earlier
        self.watches: list[tuple[Waiter, Callable[[], bool]]] = []
        self.open = False
        self.ended = False
        self.winding_down = False  # connections go to waiters, or are closed
        self.error: Exception | None = None  # for waiters, once the pool has ended
        self.surplus = False  # more slots than max_size, after a resize
        self.failures = 0  # to connect, in a row
        self.failing_since = inf
        self.retry_at = -inf
        self.given_up = False
        self.last_error: BaseException | None = None
        self.planned = inf  # when `tick` will be called next
        self.passed = 0  # loans by `_lend_to_first`
        self.withdrawn = 0  # loans by `take` that never had a holder
        self.undone = 0  # loans that ended otherwise than by their return
        self.former = 0  # loans of slots that are gone
        self.closings: Counter[str] = Counter()  # by reason
        self._jitter = jitter

    # Lending

    def take(self, now: float) -> Slot | None:
        """Lend the connection that was returned last; None if the caller must wait."""
        idle = self.idle
        if not idle or self.waiters:
            return None
        slot = idle[-1]
        slot.stale = now - slot.since > self.limits.fresh
        slot.since = now
        slot.loan += 1.0
        slot.holder = None  # until it is known to be usable
        self.lent[slot.key] = slot
        slot.phase = LENT
        del idle[-1]  # no call, which could fail; and last
        return slot

    def queue(self, waiter: Waiter, now: float) -> bool:
        """Append a waiter to the line; False if the line is full."""
        if 0 < self.limits.max_waiting <= len(self.waiters):
            return False
        self.waiters[waiter] = None
        self._plan_expiry(waiter)
        self._feed(now)
        self.grow(now)
        return True

    def _plan_expiry(self, waiter: Waiter) -> None:
        if waiter.deadline < self.soonest:
            self.soonest = waiter.deadline
            self._plan(self.soonest)

    def _plan(self, instant: float) -> None:
        if instant < self.planned:
            self.planned = instant
            self.effects.append((Effect.TICK_EARLIER, None))

    def suspect(self, slot: Slot, waiter: Waiter, now: float) -> None:
        """Schedule a check of a connection that was just taken; `waiter` becomes first in line."""
        if self.ended:
            waiter.error = self.error
            self.effects.append((WAKE, waiter))
            self.undo(slot, now)
            return
        self.check(slot, now)
        self._discount(slot, slot.holder)
        self.waiters[waiter] = None
        self.waiters.move_to_end(waiter, last=False)
        self._plan_expiry(waiter)
        if not slot.stale:  # data has arrived on it, and perhaps on others
            self.check_input(now)
        self._feed(now)
        self.grow(now)

    def _feed(self, now: float) -> None:
        """Give the remaining idle connections to waiters; stale ones are checked first."""
        while self.idle and self.waiters:
            slot = self.idle[-1]
            if now - slot.since <= self.limits.fresh:
                self._lend_to_first(slot, now)
            elif self._count(Phase.CHECKING) < len(self.waiters):
                self.check(slot, now)
            else:
                return
            self.idle.pop()

    def abandon(self, waiter: Waiter, now: float) -> None:
        """Remove a waiter; if it already has a slot, the slot goes to the next one."""
        slot = waiter.slot
        self.waiters.pop(waiter, None)
        if slot is not None and self._is_loan(slot, waiter.loan):
            self.undo(slot, now)
        waiter.slot = None

    def undo(self, slot: Slot, now: float) -> None:
        """Take back a connection that nobody has used."""
        holder = slot.holder  # before the next one's
        self.give_back(slot, now)
        self._discount(slot, holder)

    def _discount(self, slot: Slot, holder: Borrower | None) -> None:
        slot.last_loan += 1.0
        self._undone(holder)

    def _undone(self, holder: Borrower | None) -> None:
        self.undone += 1
        self.withdrawn += holder is None

    def reclaim(self, slot: Slot, loan: float, now: float) -> None:
        """Close the connection of a loan that an error has cut short, unless it is back."""
        if self._is_loan(slot, loan):
            self._undone(slot.holder)
            self.retire(slot, now, BROKEN)

    def _is_loan(self, slot: Slot, loan: float) -> bool:
        return slot.loan == loan and self.lent.get(slot.key) is slot

    def give_back(self, slot: Slot, now: float) -> None:
        """Take back a clean connection; the first in line gets it at once."""
        if now >= slot.expires or slot.loan >= slot.last_loan or self.surplus:
            self.retire(slot, now, self._reason(slot, now))
        elif self.waiters or self.watches or self.winding_down:
            (self.check if self.limits.always_check else self._offer)(slot, now)
        else:
            slot.phase = IDLE
            slot.since = now
            self.idle.append(slot)
            del self.lent[slot.key]

    def _lend_to_first(self, slot: Slot, now: float) -> None:
        waiter = self.waiters.popitem(last=False)[0]
        slot.since = now
        slot.phase = LENT
        slot.stale = False
        slot.loan += 1.0
        self.passed += 1
        slot.holder = waiter.borrower
        self.lent[slot.key] = slot
        waiter.loan, waiter.slot = slot.loan, slot
        self.effects.append((WAKE, waiter))

    def _offer(self, slot: Slot, now: float) -> None:
        if self.waiters:
            self._lend_to_first(slot, now)
        elif self.winding_down:
            self.retire(slot, now, self._reason(slot, now))
        else:
            slot.since = now
            slot.phase = IDLE
            self.idle.append(slot)
            self.lent.pop(slot.key, None)
        if self.watches:
            self._watch()

    # Cleaning, checking, closing

    def return_dirty(self, slot: Slot, now: float) -> None:
        slot.phase, slot.since, slot.worker = Phase.CLEANING, now, None
        self.effects.append((Effect.CLEAN, slot))
        del self.lent[slot.key]

    def check(self, slot: Slot, now: float) -> None:
        slot.phase, slot.since, slot.worker = Phase.CHECKING, now, None
        self.effects.append((Effect.CHECK, slot))
        self.lent.pop(slot.key, None)

    def check_idle(self, slots: list[Slot], now: float) -> None:
        """Schedule a check of those slots that are still idle."""
        for slot in slots:
            if slot in self.idle:
                self.check(slot, now)
                self.idle.remove(slot)

    def check_input(self, now: float) -> None:
        """Schedule a check of idle connections on which unsolicited data has arrived."""
        self.check_idle([slot for slot in self.idle if slot.has_input(0)], now)

    def restored(self, slot: Slot, now: float) -> None:
        if now >= slot.expires or slot.loan >= slot.last_loan or self.surplus:
            self.retire(slot, now, self._reason(slot, now))
        else:
            self._offer(slot, now)

    def retire(self, slot: Slot, now: float, reason: str = BROKEN) -> None:
        """Schedule the close of a connection, in any phase."""
        self._close(slot, now, reason)
        self.lent.pop(slot.key, None)
        self._feed(now)
        if self.watches:
            self._watch()

    def _reason(self, slot: Slot, now: float) -> str:
        """Return why a connection that works is closed."""
        if self.ended:
            return "closed"
        if self.winding_down or slot.expires == -inf:
            return "drained"
        if now >= slot.expires:
            return "lifetime"
        return "uses" if slot.loan >= slot.last_loan else "surplus"

    def _close(self, slot: Slot, now: float, reason: str) -> None:
        self.closings[reason] += 1
        slot.phase, slot.since, slot.worker = Phase.CLOSING, now, None
        self.effects.append((Effect.CLOSE, slot))

    def closed(self, slot: Slot, now: float) -> None:
        if slot.phase is not Phase.GONE:
            if self.lent.get(slot.key) is slot:  # a later connection may have its key
                del self.lent[slot.key]
                self.undone += 1
            slot.phase = Phase.GONE
            self.former += int(slot.loan)
            self.slots.discard(slot)
            self.surplus = len(self.slots) > self.limits.max_size
            self.grow(now)
            self._watch()

    def lost(self, slot: Slot, now: float) -> None:
        """Note that a lent connection was garbage-collected."""
        self.effects.append((Effect.WARN_LOST, slot))
        self.closings["lost"] += 1
        self.closed(slot, now)

    # Connecting

    def grow(self, now: float) -> None:
        """Start the connects that are needed and allowed, each with a new slot."""
        if not self.open:
            return
        at_once = 1 if self.failures else self.limits.num_workers
        while len(self.slots) < self.limits.max_size and self._needed(now) > 0:
            if now < self.retry_at or self._count(Phase.CONNECTING, now - PATIENCE) >= at_once:
                self._plan(self.due(now))
                return
            slot = Slot(now)
            self.slots.add(slot)
            self.effects.append((Effect.CONNECT, slot))

    def _needed(self, now: float) -> int:
        if not self.waiters:
            return self._minimum() - len(self.slots)
        coming = self._count(Phase.CONNECTING) + self._count(Phase.CHECKING, now - CHECK_PATIENCE)
        return len(self.waiters) - coming  # connects for min_size would delay the waiters

    def _minimum(self) -> int:
        return 0 if self.given_up or self.winding_down else self.limits.min_size

    def _count(self, phase: Phase, after: float = -inf) -> int:
        slots = list(self.slots)  # without the lock, others may add some
        return sum(1 for slot in slots if slot.phase is phase and slot.since > after)

    def connected(self, slot: Slot, key: int, now: float) -> None:
        """Note a new connection; `key` is its key in `lent`."""
        slot.key, slot.last_loan = key, self.limits.max_uses
        if not self.open:
            self.retire(slot, now, self._reason(slot, now))
            return
        self.failures, self.failing_since = 0, inf
        self.retry_at, self.given_up, self.last_error = -inf, False, None
        if self.surplus or slot.expires < now:
            self.retire(slot, now, self._reason(slot, now))
            return
        slot.expires = now + self.limits.max_lifetime * (1 - JITTER * self._jitter())
        self._offer(slot, now)
        self.grow(now)

    def adopt(self, slot: Slot, key: int, now: float) -> None:
        """Add a slot with a connection made by the caller, if there is room and no task waits."""
        self.open = not self.ended
        if not self.waiters and len(self.slots) < self.limits.max_size:
            self.slots.add(slot)
            self.connected(slot, key, now)

    def connect_failed(self, slot: Slot, error: BaseException, now: float) -> None:
        """Note that an attempt to connect failed; the next one begins after a backoff."""
        self.retry_at = now + backoff(self.failures, LONGEST_DELAY, self._jitter)
        self.failures += 1
        if not self.ended:
            self.last_error = error
        self.failing_since = min(self.failing_since, now)
        if not self.given_up and now - self.failing_since >= self.limits.reconnect_timeout:
            self.given_up = True
            self.effects.append((Effect.GIVE_UP, None))
        self.closed(slot, now)

    # Time

    def tick(self, now: float) -> float | None:
        """Do what is due; return the seconds until the next call, None for never.

        Due are connects, waiters' deadlines, closes of old or surplus connections, and warnings.
        """
        self.planned = -inf
        self.grow(now)
        for slot in [slot for slot in self.idle if now >= slot.expires]:
            self._retire_idle(slot, now, self._reason(slot, now))
        while self._spare() and now - self.idle[0].since >= self.limits.max_idle:
            self._retire_idle(self.idle[0], now, "idle")
        self._expire(now)
        for slot in self.lent.values():
            if slot.warned != slot.loan and now - slot.since >= self.limits.warn_held:
                slot.warned = slot.loan
                self.effects.append((Effect.WARN_HELD, slot))
        self.planned = self.due(now) if self.alive() else inf
        return max(self.planned - now, 0.001) if self.alive() else None

    def _expire(self, now: float) -> None:
        for waiter in self.waiters:
            if now >= waiter.deadline:
                waiter.deadline = inf
                self.effects.append((WAKE, waiter))
        self.soonest = min((waiter.deadline for waiter in self.waiters), default=inf)

    def alive(self) -> bool:
        """Return True if `tick` may have something to do now or later."""
        if not self.open or not (self.slots or self.waiters or self._minimum()):
            return False
        return self.limits.timed() or self.planned < inf or self._count(Phase.CHECKING) > 0

    def due(self, now: float) -> float:
        return min((instant for instant in self._instants(now) if instant > now), default=inf)

    def _instants(self, now: float) -> Iterator[float]:
        limits = self.limits
        yield self.soonest
        if self.open and len(self.slots) < limits.max_size:
            yield self.retry_at if self._needed(now) > 0 else inf
            yield from (s.since + PATIENCE for s in self.slots if s.phase is Phase.CONNECTING)
            yield from (s.since + CHECK_PATIENCE for s in self.slots if s.phase is Phase.CHECKING)
        yield from (slot.expires for slot in self.idle)
        if self._spare():
            yield self.idle[0].since + limits.max_idle
        yield from (s.since + limits.warn_held for s in self.lent.values() if s.warned != s.loan)

    def _spare(self) -> bool:
        return bool(self.idle) and self._staying() > self.limits.min_size

    def _staying(self) -> int:
        return len(self.slots) - self._count(Phase.CLOSING)

    def _retire_idle(self, slot: Slot, now: float, reason: str) -> None:
        self._close(slot, now, reason)
        self.idle.remove(slot)
        self._feed(now)
        self._watch()

    # The pool as a whole

    def begin(self, now: float) -> None:
        """Open the pool, unless it has been closed."""
        self.open = not self.ended
        self.grow(now)

    def resize(self, min_size: int, max_size: int, now: float) -> None:
        """Set new sizes; connections beyond them are closed once they are idle."""
        self.limits.resize(min_size, max_size)
        while self.idle and self._staying() > max_size:
            self._retire_idle(self.idle[0], now, "surplus")
        self.surplus = len(self.slots) > max_size
        self.grow(now)

    def drain(self, now: float) -> None:
        """Replace every connection: idle ones at once, the others when they are returned."""
        for slot in self.slots:
            slot.expires = -inf
        while self.idle:
            self._close(self.idle[0], now, self._reason(self.idle[0], now))
            del self.idle[0]
        self._feed(now)
        self._watch()

    def clear(self, now: float) -> list[Slot]:
        """Return the idle slots for the caller to close; the others are retired on return."""
        for slot in self.slots:
            slot.expires = -inf
        idle, self.idle = self.idle, []
        for slot in idle:
            slot.phase, slot.since = Phase.CLOSING, now
        return idle

    def strand(self, now: float) -> None:
        """Free the slots that tasks were at work on: they never run again."""
        for slot in [slot for slot in self.slots if slot.worker is not None]:
            if slot.phase in (Phase.CHECKING, Phase.CLEANING):
                self.retire(slot, now)
            elif slot.phase in (Phase.CONNECTING, Phase.CLOSING):
                self.closed(slot, now)

    def wind_down(self, now: float) -> None:
        """Serve those who wait, with new connections, and keep none after that."""
        self.winding_down = True
        self.drain(now)

    def end(self, error: Exception, now: float) -> None:
        """Close the pool: waiters fail, connections are closed when they are returned.

        The error of the last failed connect, if any, is the cause of all later errors.
        """
        error.__cause__ = self.last_error
        self.open, self.ended, self.error = False, True, error
        self.drain(now)
        while self.waiters:
            waiter = self.waiters.popitem(last=False)[0]
            waiter.error = error
            self.effects.append((WAKE, waiter))
        self.effects.append((Effect.TICK_EARLIER, None))
        self._watch()

    def watch(self, waiter: Waiter, true: Callable[[], bool], now: float) -> None:
        """Wake a waiter as soon as a condition is true."""
        self.watches.append((waiter, true))
        self._watch()

    def unwatch(self, waiter: Waiter, now: float) -> None:
        self.watches = [watch for watch in self.watches if watch[0] is not waiter]

    def _watch(self) -> None:
        for watch in [watch for watch in self.watches if watch[1]()]:
            self.watches.remove(watch)
            self.effects.append((WAKE, watch[0]))

    def helpers(self) -> list[Waiter]:
        """Return tasks that wait, one of each kind; a wake-up makes them carry out the effects."""
        return [*islice(self.waiters, 1), *[watch[0] for watch in self.watches[:1]]]

    def filled(self) -> bool:
        """Return True if there are `min_size` connections."""
        return self._staying() - self._count(Phase.CONNECTING) >= self.limits.min_size

    def empty(self) -> bool:
        return not self.slots
