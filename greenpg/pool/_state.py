"""The pool's decisions: events in, effects out, time an argument; it waits for nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from math import inf
from random import random
from typing import Any, Final, TypeAlias

from ._slots import CHECKING, CLEANING, CLOSING, CONNECTING, GONE, IDLE, LENT, Limits, Slot, Waiter

__all__ = ["Effect", "PoolState"]

Effect: TypeAlias = tuple[str, Any]  # its name, and the slot or waiter it concerns

FIRST_DELAY: Final = 0.05
LONGEST_DELAY: Final = 0.8  # with the connect itself, a server that is back is found in 1 s
PATIENCE: Final = 1.0  # a connect that takes longer does not keep others from being tried
CHECK_PATIENCE: Final = 0.1  # after that a check's outcome is not counted on any more
JITTER: Final = 0.1  # of max_lifetime


class PoolState:
    """Slots, waiters and what is to be done next.

    Each method is one event. What it asks for is appended to `effects` as (name, object):
    "serve" and "fail" a waiter, "expire" one whose time is up (he stays in line until he leaves
    it), "connect", "inspect", "clean" and "close" a slot's connection, "warn" of a long hold,
    "wake" whoever calls `tick`, "give_up". The answers come back as `connected`,
    `connect_failed`, `restored`, `retire` and `closed`.
    """

    def __init__(self, limits: Limits, jitter: Callable[[], float] = random) -> None:
        self.limits = limits
        self.effects: deque[Effect] = deque()
        self.slots: set[Slot] = set()
        self.idle: list[Slot] = []
        self.lent: dict[int, Slot] = {}
        self.waiters: deque[Waiter] = deque()
        self.soonest = inf  # no waiter's deadline is before
        self.watches: list[tuple[Waiter, Callable[[], bool]]] = []
        self.open = False
        self.ended = False
        self.error: Exception | None = None  # what waiters get once it has ended
        self.surplus = False  # more slots than max_size, after a resize
        self.failures = 0  # connects in a row
        self.failing_since = inf
        self.retry_at = -inf
        self.given_up = False
        self.last_error: BaseException | None = None
        self.planned = inf  # when `tick` is to be called next, as far as its caller knows
        self._jitter = jitter

    # Lending

    def take(self, now: float) -> Slot | None:
        """Lend the connection that came back last; None if the caller has to wait."""
        idle = self.idle
        if not idle or self.waiters:
            return None
        slot = idle.pop()
        slot.stale = now - slot.since > self.limits.fresh
        slot.phase = LENT
        slot.since = now
        slot.uses += 1.0
        self.lent[slot.key] = slot
        return slot

    def queue(self, waiter: Waiter, now: float) -> bool:
        """Have a waiter stand in line; False if too many do."""
        if 0 < self.limits.max_waiting <= len(self.waiters):
            return False
        self.waiters.append(waiter)
        if waiter.deadline < self.soonest:
            self._bound(waiter)
        if self.idle:
            self._feed(now)
        if len(self.slots) < self.limits.max_size:
            self.grow(now)
        return True

    def _bound(self, waiter: Waiter) -> None:
        """Have `tick` called when a waiter's time is up."""
        self.soonest = waiter.deadline
        if self.soonest < self.planned:
            self.planned = self.soonest
            self.effects.append(("wake", None))

    def suspect(self, slot: Slot, others: list[Slot], waiter: Waiter, now: float) -> None:
        """Have a connection that was just taken checked, and then such idle ones as look alike.

        Its taker waits before all others; not for a pool that has been closed meanwhile.
        """
        if self.ended:
            waiter.error = self.error
            self.effects.append(("fail", waiter))
            self.give_back(slot, now)
            return
        del self.lent[slot.key]
        slot.uses -= 1.0
        self.waiters.appendleft(waiter)
        if waiter.deadline < self.soonest:
            self._bound(waiter)
        self.inspect(slot, now)
        self.inspect_idle(others, now)
        self._feed(now)
        self.grow(now)

    def _feed(self, now: float) -> None:
        """Give waiters the idle connections that are left, having the stale ones checked."""
        while self.idle and self.waiters:
            slot = self.idle[-1]
            if not self._stale(slot, now):
                self._offer(self.idle.pop(), now)
            elif self._count(CHECKING) < len(self.waiters):
                self.inspect(self.idle.pop(), now)
            else:
                return

    def _stale(self, slot: Slot, now: float) -> bool:
        return now - slot.since > self.limits.fresh

    def abandon(self, waiter: Waiter, now: float) -> None:
        """Forget a waiter; what it was already given is passed on."""
        slot, waiter.slot = waiter.slot, None
        if slot is not None and self.lent.get(slot.key) is slot:
            slot.uses -= 1.0
            self.give_back(slot, now)
        elif waiter in self.waiters:
            self.waiters.remove(waiter)

    def give_back(self, slot: Slot, now: float) -> None:
        """Take back a connection that is clean; the oldest waiter gets it at once."""
        del self.lent[slot.key]
        if now >= slot.expires or slot.uses >= self.limits.max_uses or self.surplus:
            self.retire(slot, now)
        elif self.waiters or self.watches:
            (self.inspect if self.limits.always_check else self._offer)(slot, now)
        else:
            slot.phase = IDLE
            slot.since = now
            self.idle.append(slot)

    def _offer(self, slot: Slot, now: float) -> None:
        slot.since = now
        if self.waiters:
            waiter = self.waiters.popleft()
            slot.phase = LENT
            slot.stale = False
            slot.uses += 1.0
            self.lent[slot.key] = slot
            waiter.slot = slot
            self.effects.append(("serve", waiter))
        else:
            slot.phase = IDLE
            self.idle.append(slot)
        if self.watches:
            self._watch()

    # Cleaning, checking, closing: what follows a loan or stands in for one

    def soil(self, slot: Slot, now: float) -> None:
        """Take back a connection that the pool's own task is to clean."""
        del self.lent[slot.key]
        slot.phase, slot.since = CLEANING, now
        self.effects.append(("clean", slot))

    def inspect(self, slot: Slot, now: float) -> None:
        """Have the pool's own task check a connection."""
        slot.phase, slot.since = CHECKING, now
        self.effects.append(("inspect", slot))

    def inspect_idle(self, slots: list[Slot], now: float) -> None:
        """Have those of the slots that are still idle checked."""
        for slot in slots:
            if slot in self.idle:
                self.idle.remove(slot)
                self.inspect(slot, now)

    def restored(self, slot: Slot, now: float) -> None:
        """Note that a connection came clean out of its cleaning or check."""
        if now >= slot.expires or slot.uses >= self.limits.max_uses or self.surplus:
            self.retire(slot, now)
        else:
            self._offer(slot, now)

    def retire(self, slot: Slot, now: float) -> None:
        """Have a connection closed, in whatever phase it is."""
        self.lent.pop(slot.key, None)
        slot.phase, slot.since = CLOSING, now
        self.effects.append(("close", slot))
        self._feed(now)
        if self.watches:
            self._watch()

    def closed(self, slot: Slot, now: float) -> None:
        """Note that a session is over: closed, or lost with its holder."""
        if slot.phase is not GONE:
            self.lent.pop(slot.key, None)
            slot.phase = GONE
            self.slots.discard(slot)
            self.surplus = len(self.slots) > self.limits.max_size
            self.grow(now)
            self._watch()

    # Connecting

    def grow(self, now: float) -> None:
        """Begin the connects that are wanted and allowed; a slot is reserved for each."""
        if not self.open:
            return
        while len(self.slots) < self.limits.max_size and self._wanted(now) > 0:
            if now < self.retry_at or self._count(CONNECTING, now - PATIENCE) >= self._at_once():
                self._plan(now)
                return
            slot = Slot(now)
            self.slots.add(slot)
            self.effects.append(("connect", slot))

    def _plan(self, now: float) -> None:
        """Have `tick` called in time for what could not be begun yet."""
        due = self.due(now)
        if due < self.planned:
            self.planned = due
            self.effects.append(("wake", None))

    def _wanted(self, now: float) -> int:
        if not self.waiters:
            return 0 if self.given_up else self.limits.min_size - len(self.slots)
        coming = self._count(CONNECTING) + self._count(CHECKING, now - CHECK_PATIENCE)
        return len(self.waiters) - coming  # the rest of min_size would only slow these down

    def _count(self, phase: str, after: float = -inf) -> int:
        return sum(1 for slot in self.slots if slot.phase is phase and slot.since > after)

    def _at_once(self) -> int:
        return 1 if self.failures else self.limits.num_workers

    def connected(self, slot: Slot, key: int, now: float) -> None:
        """Note a new connection; `key` names it among the lent ones."""
        slot.key = key
        if not self.open:
            self.retire(slot, now)
            return
        self.failures, self.failing_since = 0, inf
        self.retry_at, self.given_up, self.last_error = -inf, False, None
        if self.surplus or slot.expires < now:
            self.retire(slot, now)
            return
        slot.expires = now + self.limits.max_lifetime * (1 - JITTER * self._jitter())
        self._offer(slot, now)
        self.grow(now)

    def adopt(self, slot: Slot, key: int, now: float) -> None:
        """Take in a slot that was filled elsewhere, if there is room and nobody waits."""
        self.open = not self.ended
        if not self.waiters and len(self.slots) < self.limits.max_size:
            self.slots.add(slot)
            self.connected(slot, key, now)

    def connect_failed(self, slot: Slot, error: BaseException, now: float) -> None:
        """Note that no connection was made; the next attempt waits a little longer."""
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(self.failures, 10))
        self.failures += 1
        if not self.ended:
            self.last_error = error
        self.retry_at = now + delay * (0.5 + 0.5 * self._jitter())
        self.failing_since = min(self.failing_since, now)
        if not self.given_up and now - self.failing_since >= self.limits.reconnect_timeout:
            self.given_up = True
            self.effects.append(("give_up", None))
        self.closed(slot, now)

    # Time

    def tick(self, now: float) -> None:
        """Do what is due: connects put off, idle connections too old or too many, warnings."""
        self.planned = -inf
        self.grow(now)
        for slot in [slot for slot in self.idle if now >= slot.expires]:
            self._retire_idle(slot, now)
        while self._spare() and now - self.idle[0].since >= self.limits.max_idle:
            self._retire_idle(self.idle[0], now)
        self._expire(now)
        for slot in self.lent.values():
            if not slot.warned and now - slot.since >= self.limits.warn_held:
                slot.warned = True
                self.effects.append(("warn", slot))
        self.planned = self.due(now) if self.alive() else inf

    def _expire(self, now: float) -> None:
        for waiter in self.waiters:
            if now >= waiter.deadline:
                waiter.deadline = inf
                self.effects.append(("expire", waiter))
        self.soonest = min((waiter.deadline for waiter in self.waiters), default=inf)

    def alive(self) -> bool:
        """Tell whether `tick` may have something to do some time."""
        wanted = 0 if self.given_up else self.limits.min_size
        if not self.open or not (self.slots or self.waiters or wanted):
            return False
        return self.limits.timed() or self.planned < inf or self._count(CHECKING) > 0

    def due(self, now: float) -> float:
        """Return the instant at which `tick` will next have something to do."""
        return min((instant for instant in self._instants(now) if instant > now), default=inf)

    def _instants(self, now: float) -> Iterator[float]:
        limits = self.limits
        yield self.soonest
        if self.open and len(self.slots) < limits.max_size:
            yield self.retry_at if self._wanted(now) > 0 else inf
            yield from (s.since + PATIENCE for s in self.slots if s.phase is CONNECTING)
            yield from (s.since + CHECK_PATIENCE for s in self.slots if s.phase is CHECKING)
        yield from (slot.expires for slot in self.idle)
        if self._spare():
            yield self.idle[0].since + limits.max_idle
        yield from (s.since + limits.warn_held for s in self.lent.values() if not s.warned)

    def _spare(self) -> bool:
        return bool(self.idle) and len(self.slots) - self._count(CLOSING) > self.limits.min_size

    def _retire_idle(self, slot: Slot, now: float) -> None:
        self.idle.remove(slot)
        self.retire(slot, now)

    # The pool as a whole

    def begin(self, now: float) -> None:
        """Open the pool, unless it has been closed."""
        self.open = not self.ended
        self.grow(now)

    def resize(self, min_size: int, max_size: int, now: float) -> None:
        """Take new sizes; what is too many goes as it becomes idle."""
        self.limits.resize(min_size, max_size)
        while self.idle and len(self.slots) - self._count(CLOSING) > max_size:
            self._retire_idle(self.idle[0], now)
        self.surplus = len(self.slots) > max_size
        self.grow(now)

    def drain(self, now: float) -> None:
        """Replace every connection: the idle at once, the others when they come back."""
        for slot in self.clear(now):
            self.retire(slot, now)

    def clear(self, now: float) -> list[Slot]:
        """Give the caller the idle slots, to close; the others are retired as they come back."""
        for slot in self.slots:
            slot.expires = -inf
        idle, self.idle = self.idle, []
        for slot in idle:
            slot.phase, slot.since = CLOSING, now
        return idle

    def end(self, error: Exception, now: float) -> None:
        """Close the pool: waiters fail, connections go as they come back.

        Why it could not connect, if it could not, is from now on the cause of every failure.
        """
        error.__cause__ = self.last_error
        self.open, self.ended, self.error = False, True, error
        self.drain(now)
        while self.waiters:
            waiter = self.waiters.popleft()
            waiter.error = error
            self.effects.append(("fail", waiter))
        self.effects.append(("wake", None))
        self._watch()

    def watch(self, waiter: Waiter, holds: Callable[[], bool]) -> None:
        """Serve a waiter as soon as something holds."""
        self.watches.append((waiter, holds))
        self._watch()

    def _watch(self) -> None:
        for watch in [watch for watch in self.watches if watch[1]()]:
            self.watches.remove(watch)
            self.effects.append(("serve", watch[0]))

    def filled(self) -> bool:
        """Tell whether as many connections as `min_size` have been made."""
        there = sum(1 for slot in self.slots if slot.phase not in (CONNECTING, CLOSING))
        return there >= self.limits.min_size

    def empty(self) -> bool:
        """Tell whether no session is left."""
        return not self.slots
