"""Measures whether code is green: a second task ticks, and its longest gap is the result."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, takewhile
from typing import TYPE_CHECKING, Final

from .machine import CoreWaits, clock_watch, stood_still

if TYPE_CHECKING:
    from greenpg.backend import Backend

__all__ = ["Heartbeat", "Stalled", "calibrated", "heartbeat"]

INTERVAL: Final = 0.005
IDLE_SECONDS: Final = 0.5
ENOUGH: Final = 10
TOLERANCE: Final = 10.0  # how many times the longest gap of an idle run is still called idle

_limits: dict[str, float] = {}


class Stalled(AssertionError):
    """The ticker stood still for longer than the limit."""


class Heartbeat:
    """What the ticker has seen: `beats`, and its `longest` gap in seconds.

    Time that the machine gave to other programs is not counted, where the system tells it.
    """

    def __init__(self, backend: Backend, limit: float) -> None:
        self.limit = limit
        self.longest = 0.0
        self.beats = 0
        self._backend = backend
        self._doubtful: list[tuple[float, float, float]] = []
        self._stopped = False

    def check(self) -> None:
        """Raise Stalled if a gap so far was too long and no core stood still in it."""
        for began, ended, gap in self._doubtful:
            seconds = gap - stood_still(began, ended)
            if seconds > self.limit:
                told = f"{seconds * 1000:.0f} ms (limit {self.limit * 1000:.0f} ms)"
                raise Stalled(f"{self._backend.name}: the ticker stood still for {told}")

    def enough(self) -> Iterator[int]:
        """Count for as long as shows that nobody is held up: ten times the limit."""
        end = time.monotonic() + ENOUGH * self.limit
        return takewhile(lambda _: time.monotonic() < end, count())

    @contextmanager
    def ticking(self) -> Iterator[None]:
        """Tick for the length of the block; a gap that ends with the block is seen too."""
        task = self._backend.spawn(self._run)
        try:
            while not self.beats:
                self._backend.sleep(INTERVAL)
            yield
        finally:
            self._stopped = True
            task.join()

    def _run(self) -> None:
        waits, beaten = CoreWaits(), time.monotonic()
        while not self._stopped:
            self._backend.sleep(INTERVAL)
            now = time.monotonic()
            gap = now - beaten - waits.since()
            self.longest = max(self.longest, gap)
            if gap > self.limit:
                self._doubtful.append((beaten, now, gap))
            beaten = now
            self.beats += 1


@contextmanager
def heartbeat(backend: Backend, limit: float | None = None) -> Iterator[Heartbeat]:
    """Raise Stalled after the block if a task beside it was held up for longer than `limit`.

    The default limit comes from an idle run of this process, made before the block if need be.
    """
    clock_watch()
    pulse = Heartbeat(backend, calibrated(backend) if limit is None else limit)
    with pulse.ticking():
        yield pulse
    pulse.check()


def calibrated(backend: Backend) -> float:
    """Return the limit for this process, measured once; call it first while nothing else runs."""
    if backend.name not in _limits:
        idle = Heartbeat(backend, 0.0)
        with idle.ticking():
            backend.sleep(IDLE_SECONDS)
        _limits[backend.name] = idle.longest * TOLERANCE
    return _limits[backend.name]
