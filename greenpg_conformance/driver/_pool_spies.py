"""What looks on while a pool decides and starts its tasks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from greenpg.pool.core import WAKE

if TYPE_CHECKING:
    from greenpg.backend import Task


class Line(deque[Any]):
    """Notes the order in which a pool's waiters asked and the order in which they were served.

    `jumps` counts those who got a connection while others waited for one.
    """

    def __init__(self, state: Any) -> None:
        super().__init__()
        self.asked: dict[Any, None] = {}
        self.served: list[Any] = []
        self.jumps = 0
        self._state, self._queue, self._take = state, state.queue, state.take
        state.queue, state.take = self._ask, self._note_take  # called with the pool's lock held
        state.effects = self

    def _ask(self, waiter: Any, now: float) -> Any:
        self.asked[waiter] = None
        return self._queue(waiter, now)

    def _note_take(self, now: float) -> Any:
        slot = self._take(now)
        self.jumps += slot is not None and bool(self._state.waiters)
        return slot

    def append(self, effect: Any) -> None:
        kind, subject = effect
        if kind is WAKE and subject in self.asked and subject.slot is not None:
            self.served.append(subject)
        super().append(effect)


class Starter:
    """A backend that remembers the tasks it started."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.tasks: list[Task] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def spawn(self, fn: Callable[..., object], *args: object) -> Task:
        self.tasks.append(self._backend.spawn(fn, *args))
        return self.tasks[-1]
