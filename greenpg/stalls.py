"""Finds what holds the event loop up: an OS thread looks whether the loop's heartbeat is late."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections import deque
from dataclasses import dataclass
from math import inf
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Final

from ._checks import check_seconds
from ._connecting.default_backend import default_backend
from ._fork_hooks import Order, in_child
from ._instances import Instances
from .backend import as_backend
from .sync import counts
from .threads import Event, Task, this_thread

if TYPE_CHECKING:
    from .backend import Backend

__all__ = ["Stall", "Watch", "watch", "watches"]

KEPT: Final = 20  # stalls
PATIENCE: Final = 1.0  # seconds after which the thread itself reports a stall that goes on
CLOSE_TIMEOUT: Final = 1.0  # seconds
NO_STACK: Final = "  (nothing was seen: C code kept the interpreter's lock, or the machine stalled)"
log = logging.getLogger("greenpg")


@dataclass(frozen=True, slots=True)
class Stall:
    """One stall: the time of its end (`time.time`), its length, and the stack of what ran."""

    at: float
    seconds: float
    stack: str


class Watch:
    """Watches the event loop of the OS thread that made it, until `close()`; see `watch`.

    In a forked child it goes on if the thread that forked is the one with that event loop.
    `count` and `seconds` are those of all stalls, `stalls` has the last ones.
    """

    def __init__(self, threshold: float, backend: Backend) -> None:
        check_seconds("threshold", threshold, above=0)
        self.threshold = threshold
        self.count, self.seconds = 0, 0.0
        self.stalls: deque[Stall] = deque(maxlen=KEPT)
        self._backend = backend
        self._step = threshold / 4
        self._beat, self._due = 0, inf  # the number of the next heartbeat, and when it is due
        self._seen = -1, NO_STACK  # a beat that was late, and what ran instead
        self._reported = -1  # a beat
        self._stop = Event()
        self._looker: Task | None = None
        self._absent = False  # its task runs in a thread that a fork has not copied
        self._ident = this_thread().ident
        self._task = backend.spawn(self._run)
        _watches.add(self)

    def close(self) -> None:
        """End the watch; outside the event loop's own greenlet this waits for the end."""
        self._stop.set()
        if self._absent:
            return
        self._task.kill()
        if self._backend.can_wait():
            self._task.join()
            if self._looker is not None:
                self._looker.join(CLOSE_TIMEOUT)  # its log handler may need this loop

    @property
    def closed(self) -> bool:
        """True once the watch has ended; in a forked child, also if its event loop is not here."""
        return self._stop.is_set() or self._absent

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # In the loop

    def _run(self) -> None:
        self._ident = this_thread().ident
        try:
            while not self._stop.is_set():
                if self._looker is None:
                    self._looker = Task(self._look, ())
                self._due = monotonic() + self._step
                self._backend.sleep(self._step)
                late = monotonic() - self._due
                beat, self._due = self._beat, inf
                self._beat += 1
                if late >= self.threshold:
                    self._note(beat, late)
        finally:
            self._due = inf
            self._stop.set()

    def _note(self, beat: int, seconds: float) -> None:
        seen, stack = self._seen
        stall = Stall(time.time(), seconds, stack if seen == beat else NO_STACK)
        self.count += 1
        self.seconds += seconds
        self.stalls.append(stall)
        counts.stalls += 1
        counts.stalled += seconds
        log.warning("the event loop was held up for %.2f s by:\n%s", seconds, stall.stack)

    # In the OS thread

    def _look(self) -> None:
        while not self._stop.wait(self._step):
            beat = self._beat
            late = monotonic() - self._due
            if late < self.threshold / 2:
                continue
            if self._seen[0] != beat or late < self.threshold + self._step:
                stack = self._stacks()
                if self._beat != beat:
                    continue  # it is over, and the stack that of something else
                self._seen = beat, stack
            if late >= max(PATIENCE, 2 * self.threshold) and self._reported != beat:
                self._reported = beat
                log.warning(
                    "the event loop has been held up for %.2f s by:\n%s", late, self._seen[1]
                )

    def _stacks(self) -> str:
        """Return the stack of the loop's thread; without a loop, those of all other threads."""
        frames = sys._current_frames()
        if "hub" in self._backend.capabilities:
            return _stack(frames.get(self._ident))
        ours = {self._ident, this_thread().ident}
        return "\n".join(_stack(frame) for ident, frame in frames.items() if ident not in ours)


def watch(threshold: float = 0.1, *, backend: str | Backend | None = None) -> Watch:
    """Log what holds the running OS thread's event loop up for `threshold` seconds or longer.

    The log line, of the logger `greenpg`, has the stack and is written when the loop goes on, or
    after a second. On OS threads, what is found is code that keeps the interpreter's lock.
    """
    return Watch(threshold, default_backend(depth=3) if backend is None else as_backend(backend))


def watches() -> list[Watch]:
    """Return the watches of this process that are not closed."""
    return [one for one in _watches.all() if not one.closed]


def _stack(frame: FrameType | None) -> str:
    return NO_STACK if frame is None else "".join(traceback.format_stack(frame))


_watches: Final[Instances[Watch]] = Instances()


def _after_fork() -> None:
    for one in _watches.all():
        one._looker = None  # the parent's; the copy of the task, if there is one, starts another
        here = "hub" in one._backend.capabilities and one._ident == this_thread().ident
        one._absent = one._absent or not here


in_child(Order.WATCHES, _after_fork)
