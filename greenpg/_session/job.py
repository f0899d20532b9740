"""A function for a task to run, which is not lost with a task that never begins."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from .lock import Once

_RUN: Final = "run"
_CANCELLED: Final = "cancelled"
_LOST: Final = "lost"


class Job:
    """Calls `run` in the task that calls it, or `lost` if the task ends before `run` has begun.

    `run` is given a function that it calls before all else, and goes on only if that returns True:
    where memory or stack ends on the way to it, nothing has begun. `lost` is called by the
    finalizer, in any task or thread and in the hub; it may not wait.
    """

    __slots__ = ("_fate", "_lost", "_run")

    def __init__(
        self, run: Callable[[Callable[[], bool]], object], lost: Callable[[], object]
    ) -> None:
        self._run = run
        self._lost = lost
        self._fate = Once()

    def __call__(self) -> None:
        """Run, unless it was cancelled."""
        self._run(self._begin)

    def _begin(self) -> bool:
        return self._fate.settle(_RUN) is _RUN

    def cancel(self) -> bool:
        """Return True if nothing of it has run, nor will."""
        return self._fate.settle(_CANCELLED) is _CANCELLED

    def __del__(self) -> None:
        fate = getattr(self, "_fate", None)  # there may have been no memory for it
        if fate is not None and not sys.is_finalizing() and fate.settle(_LOST) is _LOST:
            self._lost()
