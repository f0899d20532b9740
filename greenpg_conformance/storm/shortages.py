"""Shortages: threads that cannot be started, few descriptors, no memory, no stack, killed tasks."""

from __future__ import annotations

import inspect
import os
import resource
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import greenpg

if TYPE_CHECKING:
    from random import Random
    from types import FrameType

OURS: Final = str(Path(greenpg.__file__).parent)
CALLS: Final = 300  # of greenpg's functions, until memory runs out
FRAMES: Final = 60  # that are left at the most where the stack is short
LEFT: Final = 5  # descriptors
KEPT: Final = 50  # tasks that may be killed

ERRORS: Final = (MemoryError, RecursionError)


class SpawnError(RuntimeError):
    """What `threading` raises where no thread can be started."""


class StarvingBackend:
    """A backend whose tasks cannot always be started, and are killed when they have."""

    def __init__(self, backend: Any, dice: Random) -> None:
        self._inner = backend
        self._dice = dice
        self._tasks: deque[Any] = deque(maxlen=KEPT)
        self.refuses = False

    def spawn(self, fn: Callable[..., object], *args: object) -> Any:
        """Start a task, unless tasks are short."""
        if self.refuses and self._dice.random() < 0.7:
            raise self._dice.choice((SpawnError, MemoryError))("can't start new thread")
        task = self._inner.spawn(fn, *args)
        self._tasks.append(task)
        return task

    def kill_tasks(self) -> None:
        """Kill tasks of greenpg's own, some of which may not have begun."""
        tasks = list(self._tasks)
        self._tasks.clear()
        for task in tasks:
            task.kill()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@contextmanager
def few_descriptors(left: int) -> Iterator[None]:
    """Let no more than so many descriptors be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def short_of_stack(frames: int, function: Callable[[], object]) -> None:
    """Call a function where so many frames are left."""
    depth, frame = 0, sys._getframe()
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    _descend(sys.getrecursionlimit() - depth - frames - 10, function)


def _descend(levels: int, function: Callable[[], object]) -> None:
    if levels > 0:
        _descend(levels - 1, function)
    else:
        function()


@contextmanager
def short_of_memory(backend: Any, calls: int) -> Iterator[None]:
    """Raise MemoryError in this task, where it calls one of greenpg's functions."""
    me, left = backend.current(), calls
    ours = (OURS, os.path.dirname(str(inspect.getsourcefile(type(backend)))))

    def fail(frame: FrameType, event: str, _: object) -> None:
        nonlocal left
        theirs = not frame.f_code.co_filename.startswith(ours)
        if event != "call" or theirs or backend.current() != me:
            return
        left -= 1
        if left == 0:
            raise MemoryError("as many calls as were to be")

    sys.setprofile(fail)
    try:
        yield
    finally:
        sys.setprofile(None)
