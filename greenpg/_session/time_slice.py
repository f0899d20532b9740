"""The one rule of fairness: a task that goes on without waiting pauses after a time slice."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from greenpg.backend import Backend

SECONDS: Final = 0.005
CALLS: Final = 100  # between two looks at the clock, where calls are many and short


class TimeSlice:
    """The time that a task may go on without a turn for other tasks."""

    __slots__ = ("_backend", "_calls", "_end")

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._calls = 0
        self._end = monotonic() + SECONDS

    def restart(self) -> None:
        """Begin again: other tasks have just had their turn."""
        self._end = monotonic() + SECONDS

    def is_over(self) -> bool:
        """Return True if the other tasks are due."""
        return monotonic() >= self._end

    def pause_if_over(self) -> None:
        """Let other tasks run if they are due, unless nothing may wait here."""
        if monotonic() >= self._end:
            if self._backend.can_wait():
                self._backend.pause()
            self.restart()

    def count_call(self) -> None:
        """Call `pause_if_over` at every hundredth call."""
        self._calls += 1
        if self._calls >= CALLS:
            self._calls = 0
            self.pause_if_over()
