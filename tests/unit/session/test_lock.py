"""The connection's lock, with tasks in the orders that hypothesis generates."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg2 import ProgrammingError

from greenpg import DeadlineExceeded
from greenpg._psycopg2.state import State
from greenpg._session import lock as _lock
from greenpg._session import session as _session
from greenpg.threads import backend as threads
from tests.unit.session.simtasks import Killed, Sim, leave


class Room:
    """The resource that the lock guards; it records its users and their order."""

    def __init__(self, sim: Sim, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (_lock, _session):
            monkeypatch.setattr(module, "monotonic", sim.clock)
        self.sim = sim
        self.state: Any = State(sim)  # type: ignore[arg-type]  # it has all that a lock needs
        self.inside: list[Any] = []
        self.queue: list[Any] = []
        self.served: list[Any] = []

    def use(self, pauses: int = 1) -> None:
        """One operation in C, with a number of waits."""
        self._arrive()
        try:
            self.state.enter()
        except BaseException:
            self._depart()
            raise
        self._begin()
        try:
            for _ in range(pauses):
                self.sim.pause()
        finally:
            self._end()
            leave(self.state)

    def block(self, uses: int = 1, timeout: float | None = None) -> None:
        """An exclusive block with operations and the user's code in it."""
        self.acquire(timeout)
        try:
            for _ in range(uses):
                self.use()
                self.sim.pause()
        finally:
            self.state.depth -= 1
            self.state.let_go()

    def hold(self, seconds: float) -> None:
        """Hold the lock outside C for a time."""
        self.acquire()
        self.sim.park(seconds)
        self.state.depth -= 1
        self.state.let_go()

    def acquire(self, timeout: float | None = None, first: bool = False) -> None:
        self._arrive(first)
        try:
            self.state.acquire(self.sim.current(), timeout, first)
        except BaseException:
            self._depart()
            raise
        self._served()

    def free(self) -> bool:
        """Return True if the lock is in its initial state."""
        state = self.state
        left = (state.holder, state.in_driver, state.depth, list(state.queue), state.granted)
        return left == (None, False, 0, [], None)

    def _arrive(self, first: bool = False) -> None:
        if self.state.holder != self.sim.current():
            in_hand = self.state.granted is not None  # the first one has the lock already
            self.queue.insert(in_hand if first else len(self.queue), self.sim.current())

    def _depart(self) -> None:
        if self.sim.current() in self.queue:
            self.queue.remove(self.sim.current())

    def _served(self) -> None:
        me = self.sim.current()
        if me in self.queue:
            assert self.queue.pop(0) is me, "a task was served before one that came earlier"
            self.served.append(me)

    def _begin(self) -> None:
        self._served()
        self.inside.append(self.sim.current())
        assert len(self.inside) == 1, "two tasks are inside"

    def _end(self) -> None:
        self.inside.remove(self.sim.current())


@pytest.fixture
def room(monkeypatch):
    return Room(Sim(), monkeypatch)


def log(target: list[Any], fn: Any, *args: Any) -> None:
    """Run `fn`, and record how it ended."""
    try:
        fn(*args)
    except (DeadlineExceeded, ProgrammingError, Killed) as exc:
        target.append(type(exc))
    else:
        target.append("done")


def test_free_lock_is_taken_without_a_wait(room):
    room.sim.spawn(room.use, 0)

    room.sim.run()

    assert room.free()


def test_waiters_are_served_in_order_and_at_once(room):
    start = room.sim.now
    tasks = [room.sim.spawn(room.use) for _ in range(5)]

    room.sim.run()

    assert room.served == tasks
    assert room.sim.now == start
    assert room.free()


def test_lock_is_handed_to_the_waiter_and_not_left_for_newcomers(room):
    order = []

    def holder():
        room.use(3)
        room.use()
        order.append("holder again")

    def waiter():
        room.use()
        order.append("waiter")

    room.sim.spawn(holder)
    room.sim.spawn(waiter)
    room.sim.run()

    assert order == ["waiter", "holder again"]


def test_block_spans_operations_and_is_re_entrant(room):
    def nested():
        room.acquire()
        room.block(uses=2)
        room.state.depth -= 1
        room.state.let_go()

    first, second = room.sim.spawn(nested), room.sim.spawn(room.use)

    room.sim.run()

    assert room.served == [first, second]
    assert room.free()


def test_operation_is_never_re_entered(room):
    ended: list[Any] = []

    def again():
        room.state.enter()
        log(ended, room.use)
        leave(room.state)

    room.sim.spawn(again)
    room.sim.run()

    assert ended == [ProgrammingError]
    assert room.free()


def test_nothing_is_entered_in_the_hub(room):
    with pytest.raises(ProgrammingError, match="nothing may wait"):
        room.state.enter()

    assert room.free()


def test_hub_takes_a_free_lock_but_never_waits_for_one(room):
    room.state.acquire("hub")
    room.state.depth -= 1
    room.state.let_go()
    room.state.holder = "a task"
    room.state.in_driver = True

    with pytest.raises(ProgrammingError, match="nothing may wait"):
        room.state.acquire("hub")

    assert not room.state.queue


def test_waiter_gives_its_place_up_after_its_timeout(room):
    ended: list[Any] = []
    room.sim.spawn(room.hold, 10)
    room.sim.spawn(log, ended, room.acquire, 3)
    room.sim.spawn(log, ended, room.use)
    room.sim.run()

    assert ended == [DeadlineExceeded, "done"]
    assert room.free()


def test_deadline_of_the_task_bounds_its_wait(room):
    ended: list[Any] = []

    def hurried():
        room.state.deadlines[room.sim.current()] = room.sim.now + 2
        log(ended, room.use)
        ended.append(room.sim.now)

    start = room.sim.now
    room.sim.spawn(room.hold, 10)
    room.sim.spawn(hurried)
    room.sim.run()

    assert ended == [DeadlineExceeded, start + 2]


@pytest.mark.parametrize("timeout", [0, 0.0, -1])
def test_timeout_of_nothing_does_not_wait(room, timeout):
    ended: list[Any] = []

    def hurried():
        log(ended, room.acquire, timeout)
        ended.append(room.sim.now)

    start = room.sim.now
    room.sim.spawn(room.hold, 10)
    room.sim.spawn(hurried)
    room.sim.run()

    assert ended == [DeadlineExceeded, start]


def test_waiter_killed_in_the_queue_gives_its_place_up(room):
    ended: list[Any] = []
    room.sim.spawn(room.use, 4)
    victim = room.sim.spawn(log, ended, room.use)
    room.sim.spawn(log, ended, room.use)

    room.sim.spawn(room.sim.kill, victim)
    room.sim.run()

    assert ended == [Killed, "done"]
    assert room.free()


def test_waiter_killed_with_the_lock_in_hand_passes_it_on(room):
    ended: list[Any] = []

    def holder():
        room.use(2)
        room.sim.kill(victim)  # it already has the lock, but has not run since

    room.sim.spawn(holder)
    victim = room.sim.spawn(log, ended, room.use)
    room.sim.spawn(log, ended, room.use)
    room.sim.run()

    assert ended == [Killed, "done"]
    assert room.free()


def test_closer_goes_before_the_waiters(room):
    room.sim.spawn(room.use, 3)
    waiter = room.sim.spawn(room.use)

    def close():
        room.acquire(first=True)
        room.state.depth -= 1
        room.state.let_go()

    closer = room.sim.spawn(close)
    room.sim.run()

    assert room.served[1:] == [closer, waiter]
    assert room.free()


@pytest.mark.parametrize("waiters", [1, 3])
def test_abandoned_lock_is_found_by_those_who_wait(room, waiters):
    room.state.holder = "a task that lost it by a signal between two steps"
    tasks = [room.sim.spawn(room.use) for _ in range(waiters)]

    room.sim.run()

    assert room.served == tasks
    assert room.free()


def test_lock_is_handed_on_once_when_two_threads_would_serve(room):
    class Turns(deque[Any]):
        def popleft(self):
            if len(self) == 2:
                room.state.serve()  # as another thread may at this moment
            return super().popleft()

    queue = [_lock.Waiting(name, room.sim.event()) for name in ("first", "second")]
    room.state.queue = Turns(queue)

    room.state.serve()

    assert [waiting.granted for waiting in queue] == [True, False]
    assert room.state.holder is queue[0]


def test_task_that_gives_up_while_the_lock_is_passed_to_it_does_not_hold_it(room):
    found: list[Any] = []

    class Impatient(_lock.Waiting):
        def settle(self, value: Any) -> Any:
            super().settle(False)  # its thread's timeout, this very moment
            found.append(room.state.claim(self.task))  # and that thread's next operation
            return super().settle(value)

    waiting = Impatient("a task", room.sim.event())
    room.state.holder = "another"
    room.state.queue.append(waiting)
    room.state.release()

    assert found == [waiting]
    assert room.state.holder is None


def test_lock_that_comes_back_in_time_is_not_taken_for_abandoned(room):
    room.state.holder = "a task between two steps"

    def late():
        room.sim.park(_lock._LOOK / 2)
        assert room.state.holder == "a task between two steps"
        room.state.release()

    waiter = room.sim.spawn(room.use)
    room.sim.spawn(late)
    room.sim.run()

    assert room.served == [waiter]
    assert room.free()


@dataclass(frozen=True)
class Step:
    """What a task of the property test does next."""

    kind: str
    count: int
    timeout: float | None


STEPS = st.builds(
    Step,
    st.sampled_from(["use", "block", "close"]),
    st.integers(0, 2),
    st.sampled_from([None, None, 0.01, 0.2]),
)


def perform(room: Room, steps: list[Step]) -> None:
    for step in steps:
        with suppress(DeadlineExceeded):
            if step.kind == "use":
                room.use(step.count)
            elif step.kind == "block":
                room.block(step.count, step.timeout)
            else:
                room.acquire(first=True)
                room.state.depth -= 1
                room.state.let_go()


def strike(sim: Sim, tasks: list[Any], victims: list[int]) -> None:
    for victim in victims:
        sim.pause()
        sim.kill(tasks[victim % len(tasks)])


@pytest.mark.timeout(300)  # many examples, on a machine that may be busy
@settings(max_examples=400)
@given(
    programs=st.lists(st.lists(STEPS, min_size=1, max_size=4), min_size=1, max_size=5),
    victims=st.lists(st.integers(0, 4), max_size=6),
    schedule=st.lists(st.integers(0, 7), max_size=80),
)
def test_lock_is_exclusive_fair_and_never_lost(programs, victims, schedule):
    order: Iterator[int] = iter(schedule)
    sim = Sim(order)
    with pytest.MonkeyPatch.context() as patch:
        room = Room(sim, patch)
        ended: list[Any] = []
        tasks = [sim.spawn(log, ended, perform, room, steps) for steps in programs]
        sim.spawn(strike, sim, tasks, victims)

        sim.run()

    assert set(ended) <= {"done", Killed}
    assert room.free()


def test_a_thread_with_an_ended_holders_ident_is_not_the_holder(monkeypatch):
    monkeypatch.setattr(_lock, "_LOOK", 0.02)
    state, idents, refused = State(threads), list[int](), list[bool]()

    def hold():
        state.acquire(threads.current())
        idents.append(threading.get_ident())

    def enter():
        idents.append(threading.get_ident())
        with pytest.raises(ProgrammingError, match="has ended inside a block"):
            state.enter()
        refused.append(True)

    run_in_thread(hold)
    run_in_thread(enter)
    while idents[-1] != idents[0]:  # the system gives an ident again soon, but when is its matter
        run_in_thread(enter)

    assert len(refused) == len(idents) - 1


def run_in_thread(fn: Any) -> None:
    """Call a function in a new OS thread, and wait for the thread's own end."""
    thread = threading.Thread(target=fn)
    thread.start()
    thread.join()
