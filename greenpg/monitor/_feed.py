"""The events that all open pages get: one for each tick, made once however many they are."""

from __future__ import annotations

import json
import logging
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final

from ._history import History, Sample
from ._snapshot import Json, snapshot
from ._watched import Watched, watched

if TYPE_CHECKING:
    from greenpg.backend import Backend, Event

INTERVAL: Final = 0.4  # seconds; a change is seen at the second tick at the latest
LATE: Final = 5.0  # seconds without a tick after which another task ticks
log = logging.getLogger("greenpg")


class Frame:
    """What is shown at one tick, as events in text: `news`, or `whole` with all samples."""

    def __init__(self, number: int, shown: Json, samples: dict[int, list[Sample]]) -> None:
        self.number, self.shown = number, {"tick": number, **shown}
        self._samples = samples

    @cached_property
    def news(self) -> bytes:
        return _event(self.shown)

    @cached_property
    def whole(self) -> bytes:
        return _event(self.with_samples())

    def with_samples(self) -> Json:
        """Return what is shown, with the samples of the last minutes for each object."""
        shown, samples = dict(self.shown), self._samples
        for kind in Watched._fields:
            shown[kind] = [{**one, "samples": samples[one["key"]]} for one in shown[kind]]
        return shown


class Feed:
    """Samples what is watched in a task of its own, which the first reader starts."""

    def __init__(self, find_backend: Callable[[], Backend], details: bool) -> None:
        self._find_backend, self._details = find_backend, details
        self._history = History()
        self._number = 0  # of the last tick
        self._ticked, self._pid = -inf, -1  # when, and in which process
        self._seat: object = None  # the token of the task that ticks
        self._waiting: deque[Event] = deque()  # set by the next tick
        self._frame: Frame | None = None
        self._closed = False

    def start(self) -> None:
        """Sample from now on, if no task of this process does so."""
        fresh = self._pid == os.getpid() and monotonic() - self._ticked < LATE
        if fresh or self._closed:
            return
        seat = object()  # of two threads that come here at once, the task of one ends
        self._pid, self._seat = os.getpid(), seat
        self._tick()
        backend = self._find_backend()
        backend.spawn(_keep_ticking, weakref.ref(self), seat, backend.sleep)

    def close(self) -> None:
        """End the task and all streams."""
        self._closed, self._seat = True, None
        self._wake()

    def ticks(self, seat: object) -> bool:
        """Tick, if the task with this token is the one that does so."""
        if self._seat is not seat or self._pid != os.getpid():
            return False
        self._tick()
        return True

    def _tick(self) -> None:
        self._ticked = monotonic()
        try:
            self._history.note(self._ticked, watched().all())
        except Exception:
            log.exception("the monitor could not take a sample")
        self._number += 1
        self._wake()

    def _wake(self) -> None:
        with suppress(IndexError):  # another OS thread wakes them too
            for _ in range(len(self._waiting)):
                self._waiting.popleft().set()

    def frame(self) -> Frame:
        """Return what is shown since the last tick."""
        self.start()
        number, frame = self._number, self._frame
        if frame is not None and frame.number == number:
            return frame
        found, history = watched(), self._history
        shown = snapshot(self._find_backend(), found, history, details=self._details)
        samples = {series.key: list(series.samples) for series in map(history.of, found.all())}
        self._frame = frame = Frame(number, shown, samples)
        return frame

    def events(self) -> Iterator[bytes]:
        """Yield an event for each tick; after one that the reader was too slow for, a whole one."""
        seen = -inf
        while True:
            event = self._find_backend().event()
            self._waiting.append(event)  # before the look at what there is: no tick is missed
            if self._closed:
                return
            frame = self.frame()
            if frame.number != seen:
                yield frame.news if frame.number == seen + 1 else frame.whole
                seen = frame.number
            event.wait(LATE)


def _keep_ticking(
    whose: Callable[[], Feed | None], seat: object, sleep: Callable[[float], object]
) -> None:
    sleep(INTERVAL)
    while (feed := whose()) is not None and feed.ticks(seat):
        del feed  # this task must not keep it alive
        sleep(INTERVAL)


def _event(shown: Json) -> bytes:
    return f"data: {json.dumps(shown, separators=(',', ':'))}\n\n".encode()
