"""A backend without a loop, a socket or a clock: its tasks run in the order that a test gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from greenlet import getcurrent, greenlet


def enter(state: Any) -> None:
    """Begin an operation as `Cursor.execute` does, which avoids a call where it can."""
    me, free = state.current(), False
    if state.last() == me and not state.entry_needs_check:
        state.holder = me if (free := state.holder is None) else state.holder
    if free:
        state.in_driver = True
    else:
        state.enter()


def leave(state: Any) -> None:
    """End an operation as `Cursor.execute` does."""
    state.in_driver = False
    if state.exit_needs_check:
        state.leave(None)
    else:
        state.holder = None
        if state.queue:
            state.serve()


class Killed(BaseException):
    """Raised in a task's wait, as a green library's kill is."""


class Deadlock(AssertionError):
    """Tasks wait, and no event can wake them."""


class Sim:
    """Runs greenlets one at a time; `schedule` chooses the next one of those that are ready.

    Time passes only when no task is ready.
    """

    name: Final = "sim"
    exits: Final = (Killed,)
    capabilities: Final = frozenset({"kill", "hub", "lazy_spawn"})

    def __init__(self, schedule: Iterator[int] | None = None) -> None:
        self.now = 1000.0
        self._schedule = schedule or iter(())
        self._hub = getcurrent()
        self._ready: list[greenlet] = []
        self._thrown: dict[greenlet, BaseException] = {}
        self._sleeping: dict[greenlet, float | None] = {}

    def clock(self) -> float:
        return self.now

    def can_wait(self) -> bool:
        return getcurrent() is not self._hub

    def current(self) -> greenlet:
        return getcurrent()

    def event(self) -> Event:
        return Event(self)

    def waiter(self) -> Waiter:
        return Waiter(self)

    def spawn(self, fn: Callable[..., object], *args: object) -> greenlet:
        task = greenlet(lambda: fn(*args), self._hub)
        self._ready.append(task)
        return task

    def pause(self) -> None:
        """Let other tasks run, in the order of the schedule."""
        self._ready.append(getcurrent())
        self._hub.switch()

    def park(self, timeout: float | None) -> None:
        """Sleep until `wake`, or for `timeout` seconds."""
        me = getcurrent()
        self._sleeping[me] = None if timeout is None else self.now + max(timeout, 0)
        try:
            self._hub.switch()
        finally:
            self._sleeping.pop(me, None)

    def wake(self, task: greenlet) -> None:
        if task in self._sleeping and task not in self._ready:
            self._ready.append(task)

    def kill(self, task: greenlet) -> None:
        """Raise Killed in the task if it waits now."""
        if task.gr_frame is not None and task is not getcurrent():
            self.throw(task, Killed())

    def throw(self, task: greenlet, exc: BaseException) -> None:
        """Raise `exc` in a task that waits."""
        self._thrown[task] = exc
        if task not in self._ready:
            self._ready.append(task)

    def run(self) -> None:
        """Run until all tasks have ended; Deadlock if some never end."""
        while self._ready or self._sleeping:
            if not self._ready:
                self._let_time_pass()
            task = self._ready.pop(next(self._schedule, 0) % len(self._ready))
            if task in self._thrown:
                task.throw(self._thrown.pop(task))
            else:
                task.switch()

    def _let_time_pass(self) -> None:
        ends = {task: end for task, end in self._sleeping.items() if end is not None}
        if not ends:
            raise Deadlock(f"{len(self._sleeping)} tasks wait forever")
        task = min(ends, key=ends.__getitem__)
        self.now = max(self.now, ends[task])
        self._ready.append(task)


class Event:
    def __init__(self, sim: Sim) -> None:
        self._sim = sim
        self._flag = False
        self._waiting: list[Any] = []

    def set(self) -> None:
        self._flag = True
        for task in self._waiting:
            self._sim.wake(task)

    def is_set(self) -> bool:
        return self._flag

    def wait(self, timeout: float | None = None) -> bool:
        if not self._flag:
            self._waiting.append(getcurrent())
            try:
                self._sim.park(timeout)
            finally:
                self._waiting.remove(getcurrent())
        return self._flag


class Waiter:
    """Waits for a socket that is ready in `delay` seconds."""

    def __init__(self, sim: Sim) -> None:
        self._sim = sim
        self.delay = 0.0
        self._task: Any = None

    def wait(self, fd: int, events: int, timeout: float | None) -> int:
        began, self._task = self._sim.now, getcurrent()
        try:
            self._sim.park(self.delay if timeout is None else min(timeout, self.delay))
        finally:
            self._task = None
            self.delay -= self._sim.now - began
        return 0 if self.delay > 0 else events

    def interrupt(self, exc: BaseException) -> None:
        if self._task is not None:
            self._sim.throw(self._task, exc)

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        pass
