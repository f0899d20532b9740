"""Random walks of the pool's state machine, with every invariant checked after every step."""

from __future__ import annotations

import random
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from greenpg.pool._measures import returned, taken
from greenpg.pool._slots import IDLE, LENT, Borrower, Limits, Phase, Slot, Waiter
from greenpg.pool._state import LONGEST_DELAY, WAKE, Effect, PoolState

WORK = {
    Effect.CONNECT: Phase.CONNECTING,
    Effect.CHECK: Phase.CHECKING,
    Effect.CLEAN: Phase.CLEANING,
    Effect.CLOSE: Phase.CLOSING,
}
BORROWER: Borrower = ((lambda: None).__code__, 0, lambda: None)
picks = st.randoms(use_true_random=False)


class Pool(RuleBasedStateMachine):
    """Simulates users, server and clock; effects are carried out later, or never."""

    @initialize(
        max_size=st.integers(1, 5),
        min_size=st.integers(0, 3),
        workers=st.integers(1, 3),
        max_uses=st.sampled_from([1, 3, inf]),
        max_waiting=st.sampled_from([0, 0, 3]),
        always=st.booleans(),
    )
    def start(self, max_size, min_size, workers, max_uses, max_waiting, always):
        self.now = 100.0
        self.keys = 0
        self.waiters: list[Waiter] = []  # in the order in which they must be served
        self.served: list[Waiter] = []  # with a slot, but not resumed yet
        self.deadlines: dict[Waiter, float] = {}
        self.expired: list[Waiter] = []  # woken because of their deadline
        self.held = []  # lent to users
        self.doubtful = []  # lent at once, and perhaps not usable
        self.taken = self.confirmed = self.returned = 0
        self.tasks = []  # the pool's running tasks
        self.allowed = max_size  # the maximal number of slots
        self.wake_at = inf  # when `tick` will be called
        limits = Limits(
            min_size=min(min_size, max_size),
            max_size=max_size,
            max_lifetime=50.0,
            max_idle=20.0,
            reconnect_timeout=5.0,
            warn_held=7.0,
            num_workers=workers,
            max_uses=max_uses,
            max_waiting=max_waiting,
            always_check=always,
        )
        self.state = PoolState(limits, random.Random(0).random)
        self.state.begin(self.now)
        self.perform()

    def perform(self):
        while self.state.effects:
            effect, subject = self.state.effects.popleft()
            if effect in WORK:
                assert subject.phase is WORK[effect]
                self.tasks.append((effect, subject))
            elif effect is WAKE:
                self.wake(subject)
            elif effect is Effect.TICK_EARLIER:
                self.wake_at = self.state.planned
            elif effect is Effect.WARN_HELD:
                assert self.now - subject.since >= 7.0
            else:
                assert effect in (Effect.WARN_LOST, Effect.GIVE_UP)

    def wake(self, waiter):
        if waiter.slot is None and waiter.error is None:
            self.expire(waiter)
            return
        assert waiter is self.waiters.pop(0), "served out of turn"
        if waiter.slot is not None:
            assert waiter.slot.phase is LENT
            self.served.append(waiter)

    def expire(self, waiter):
        assert self.now >= self.deadlines[waiter], "too early"
        self.expired.append(waiter)

    def take_task(self, pick, *effects):
        mine = [task for task in self.tasks if task[0] in effects]
        task = pick.choice(mine)
        self.tasks.remove(task)
        return task[1]

    def has(self, *effects):
        return any(effect in effects for effect, _ in self.tasks)

    # Users

    @precondition(lambda self: not self.state.ended)
    @rule(patience=st.sampled_from([inf, 0.0, 1.0, 40.0]))
    def request(self, patience):
        slot = self.state.take(self.now)
        if slot is not None:
            assert not self.waiters, "a newcomer overtook those who wait"
            self.doubtful.append(slot)
            self.taken += 1
            return
        waiter = self.waiter(patience)
        fresh = self.state.limits.fresh
        idle_now = [slot for slot in self.state.idle if self.now - slot.since <= fresh]
        assert self.waiters or not idle_now
        self.waiters.append(waiter)
        if not self.state.queue(waiter, self.now):
            self.waiters.remove(waiter)
        self.perform()

    def waiter(self, patience):
        waiter = Waiter(None, self.now + patience, BORROWER)
        self.deadlines[waiter] = waiter.deadline
        return waiter

    @precondition(lambda self: self.doubtful)
    @rule(pick=picks, how=st.sampled_from(["confirm", "undo", "reclaim"]))
    def settle_a_doubt(self, pick, how):
        slot = pick.choice(self.doubtful)
        self.doubtful.remove(slot)
        if how == "confirm":
            slot.holder = BORROWER
            self.held.append(slot)
            self.confirmed += 1
        elif how == "undo":
            self.state.undo(slot, self.now)
        else:
            self.state.reclaim(slot, slot.loan, self.now)
        self.perform()

    @precondition(lambda self: (self.doubtful or self.held) and not self.waiters)
    @rule(pick=picks, patience=st.sampled_from([inf, 0.0, 1.0]))
    def find_the_taken_one_suspicious(self, pick, patience):
        slot = (self.doubtful or self.held).pop()
        waiter = self.waiter(patience)
        self.waiters.insert(0, waiter)
        for other in self.state.idle:
            other.has_input = pick.choice([bool, str])  # false or true, given 0
        self.state.suspect(slot, waiter, self.now)
        self.perform()

    @precondition(lambda self: self.served)
    @rule(pick=picks)
    def wake_up(self, pick):
        waiter = pick.choice(self.served)
        self.served.remove(waiter)
        self.held.append(waiter.slot)

    @precondition(lambda self: self.waiters or self.served)
    @rule(pick=picks)
    def be_killed_while_waiting(self, pick):
        waiter = pick.choice(self.waiters + self.served)
        (self.waiters if waiter in self.waiters else self.served).remove(waiter)
        self.state.abandon(waiter, self.now)
        self.perform()

    @precondition(lambda self: self.held)
    @rule(pick=picks, how=st.sampled_from(["give_back", "return_dirty", "retire", "lost"]))
    def end_a_loan(self, pick, how):
        slot = pick.choice(self.held)
        self.held.remove(slot)
        self.returned += how != "lost"
        getattr(self.state, how)(slot, self.now)
        self.perform()

    @rule()
    def sweep(self):
        self.state.check_idle(list(self.state.idle), self.now)
        self.perform()

    # The pool's tasks

    @precondition(lambda self: self.has(Effect.CONNECT))
    @rule(pick=picks, works=st.booleans())
    def connect(self, pick, works):
        slot = self.take_task(pick, Effect.CONNECT)
        if works:
            self.keys += 1
            self.state.connected(slot, self.keys, self.now)
        else:
            self.state.connect_failed(slot, OSError(), self.now)
            assert 0 < self.state.retry_at - self.now <= LONGEST_DELAY
        self.perform()

    @precondition(lambda self: self.has(Effect.CHECK, Effect.CLEAN))
    @rule(pick=picks, works=st.booleans())
    def check_or_clean(self, pick, works):
        slot = self.take_task(pick, Effect.CHECK, Effect.CLEAN)
        (self.state.restored if works else self.state.retire)(slot, self.now)
        self.perform()

    @precondition(lambda self: self.has(Effect.CLOSE))
    @rule(pick=picks)
    def close_one(self, pick):
        self.state.closed(self.take_task(pick, Effect.CLOSE), self.now)
        self.perform()

    # The clock and the owner

    @rule(seconds=st.sampled_from([0.01, 0.5, 2.0, 30.0]))
    def pass_time(self, seconds):
        self.now += seconds
        self.state.tick(self.now)
        self.perform()
        self.wake_at = self.state.planned
        late = [waiter for waiter in self.waiters if self.now >= self.deadlines[waiter]]
        assert all(waiter in self.expired for waiter in late)
        assert self.wake_at > self.now

    @rule(max_size=st.integers(1, 5), min_size=st.integers(0, 3))
    def resize(self, max_size, min_size):
        self.allowed = max(max_size, len(self.state.slots))
        self.state.resize(min(min_size, max_size), max_size, self.now)
        self.perform()

    @rule()
    def drain(self):
        self.state.drain(self.now)
        self.perform()

    @precondition(lambda self: not self.state.ended)
    @rule()
    def adopt(self):
        self.keys += 1
        self.state.adopt(Slot(self.now), self.keys, self.now)
        self.perform()

    @rule(really=st.integers(0, 9))
    def wind_down(self, really):
        if really == 0:
            self.state.wind_down(self.now)
            self.perform()

    @rule()
    def clear(self):
        self.tasks += [(Effect.CLOSE, slot) for slot in self.state.clear(self.now)]

    @precondition(lambda self: not self.state.ended)
    @rule(really=st.integers(0, 9))
    def end(self, really):
        if really == 0:
            self.state.end(RuntimeError("closed"), self.now)
            self.perform()
            assert not self.waiters

    def lent(self):
        return [*self.doubtful, *self.held, *(waiter.slot for waiter in self.served)]

    # What must hold

    @invariant()
    def no_more_slots_than_allowed(self):
        self.allowed = min(self.allowed, max(self.state.limits.max_size, len(self.state.slots)))

        assert len(self.state.slots) <= self.allowed

    @invariant()
    def every_slot_is_in_one_place(self):
        places = [*self.state.idle, *self.lent()]
        places += [slot for _, slot in self.tasks]

        assert len(places) == len(set(places))
        assert set(places) == self.state.slots

    @invariant()
    def lent_and_idle_are_known(self):
        lent = set(self.lent())

        assert set(self.state.lent.values()) == lent
        assert all(slot.phase is LENT for slot in lent)
        assert all(slot.phase is IDLE for slot in self.state.idle)

    @invariant()
    def loans_are_counted(self):
        assert taken(self.state) == self.taken
        assert taken(self.state) - self.state.withdrawn - len(self.doubtful) == self.confirmed
        assert returned(self.state) == self.returned

    @invariant()
    def waiters_stand_in_order(self):
        assert list(self.state.waiters) == self.waiters

    @invariant()
    def nobody_waits_beside_what_he_could_have(self):
        checks = sum(slot.phase is Phase.CHECKING for slot in self.state.slots)

        assert not self.state.idle or checks >= len(self.waiters)

    @invariant()
    def pool_that_winds_down_keeps_nothing(self):
        assert not (self.state.winding_down and self.state.idle)

    @invariant()
    def somebody_works_for_those_who_wait(self):
        room = self.state.limits.max_size > len(self.state.slots)

        assert not (self.waiters and room) or self.tasks or self.wake_at < inf

    @invariant()
    def somebody_will_tell_when_time_is_up(self):
        left = [self.deadlines[w] for w in self.waiters if w not in self.expired]

        assert self.wake_at <= min(left, default=inf)

    @invariant()
    def attempts_are_bounded(self):
        young = [s for n, s in self.tasks if n is Effect.CONNECT and self.now - s.since < 1.0]

        assert len(young) <= self.state.limits.num_workers

    @invariant()
    def closed_pool_gives_all_the_same_cause(self):
        error = self.state.error

        assert error is None or error.__cause__ is self.state.last_error

    def teardown(self):
        """After any history, once all connections are returned, the pool can be emptied."""
        if not hasattr(self, "state"):
            return
        self.state.end(RuntimeError("over"), self.now)
        self.perform()
        for slot in self.lent():
            self.state.give_back(slot, self.now)
        self.perform()
        while self.tasks:
            effect, slot = self.tasks.pop()
            if effect is Effect.CONNECT:
                self.state.connect_failed(slot, OSError(), self.now)
            else:
                (self.state.closed if effect is Effect.CLOSE else self.state.retire)(slot, self.now)
            self.perform()
        assert self.state.empty()


TestPool = pytest.mark.timeout(120)(Pool.TestCase)
TestPool.settings = settings(max_examples=60, stateful_step_count=50)


class Compared(Waiter):
    """Counts how often waiters are compared: to find one in a line takes its length."""

    count = 0

    def __eq__(self, other):
        Compared.count += 1
        return self is other

    __hash__ = object.__hash__


def test_waiters_leave_without_a_search():
    state = PoolState(Limits(min_size=0, max_size=1))
    state.begin(0.0)
    waiters = [Compared(None) for _ in range(100)]
    for waiter in waiters:
        state.queue(waiter, 0.0)

    Compared.count = 0
    for waiter in reversed(waiters):
        state.abandon(waiter, 0.0)

    assert not state.waiters
    assert Compared.count == 0
