"""How much was done in each of the last seconds, and how long those who asked waited."""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias
from weakref import WeakKeyDictionary

from ._watched import flow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._watched import Flow, One

STEP: Final = 1.0  # seconds
KEPT: Final = 300  # samples

Sample: TypeAlias = tuple[float, float]  # loans or the like per second, seconds of a wait


class Series:
    """The samples of one object, the latest last; `key` is its number in this process."""

    def __init__(self, key: int) -> None:
        self.key = key
        self.samples: deque[Sample] = deque(maxlen=KEPT)
        self._before: tuple[float, Flow] | None = None

    def note(self, now: float, flow: Flow) -> None:
        """Append a sample: what has happened since the last call.

        The wait is the mean of those that have ended, or that of the oldest which has not: where
        nobody is served, it grows.
        """
        before, self._before = self._before, (now, flow)
        if before is None or now <= before[0]:
            return
        then, past = before
        count = max(flow.done - past.done, 0)
        mean = max(flow.waited - past.waited, 0.0) / count if count else 0.0
        rate = count / (now - then)
        self.samples.append((round(rate, 2), round(max(mean, flow.oldest_wait), 5)))


class History:
    """The series of all objects; one that is freed takes its own with it."""

    def __init__(self) -> None:
        self.number = 0  # of the last sample
        self._due: float | None = None
        self._series: WeakKeyDictionary[One, Series] = WeakKeyDictionary()
        self._keys = itertools.count(1)

    def note(self, now: float, watched: Iterable[One]) -> None:
        """Take a sample of each if one is due."""
        if self._due is not None and now < self._due:
            return
        self._due = now + STEP if self._due is None else max(self._due, now - STEP) + STEP
        self.number += 1
        for one in watched:
            self.of(one).note(now, flow(one))

    def of(self, one: One) -> Series:
        """Return the series of a pool, multiplexer or listener."""
        found = self._series.get(one)
        if found is None:
            found = self._series.setdefault(one, Series(next(self._keys)))
        return found
