"""How many loans began in each of the last seconds, and how long their borrowers waited."""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from greenpg.pool.core import Measures, Pool

STEP: Final = 1.0  # seconds
KEPT: Final = 300  # samples

Sample: TypeAlias = tuple[float, float]  # loans per second, seconds of a wait


class Series:
    """The samples of one pool, the latest last; `key` is the pool's number in this process."""

    def __init__(self, key: int) -> None:
        self.key = key
        self.samples: deque[Sample] = deque(maxlen=KEPT)
        self._before: tuple[float, int, float] | None = None

    def note(self, now: float, numbers: Measures) -> None:
        """Append a sample: what has happened since the last call.

        The wait is the mean of those that have ended, or that of the oldest which has not: where
        nobody is served, it grows.
        """
        served, waited = sum(numbers.waits.counts), numbers.waits.total
        before, self._before = self._before, (now, served, waited)
        if before is None or now <= before[0]:
            return
        count = max(served - before[1], 0)
        mean = max(waited - before[2], 0.0) / count if count else 0.0
        rate = count / (now - before[0])
        self.samples.append((round(rate, 2), round(max(mean, numbers.oldest_wait), 5)))


class History:
    """The series of all pools; a pool that is freed takes its own with it."""

    def __init__(self) -> None:
        self.number = 0  # of the last sample
        self._due: float | None = None
        self._series: WeakKeyDictionary[Pool, Series] = WeakKeyDictionary()
        self._keys = itertools.count(1)

    def note(self, now: float, pools: Iterable[Pool]) -> None:
        """Take a sample of each pool if one is due."""
        if self._due is not None and now < self._due:
            return
        self._due = now + STEP if self._due is None else max(self._due, now - STEP) + STEP
        self.number += 1
        for pool in pools:
            self.of(pool).note(now, pool.measures())

    def of(self, pool: Pool) -> Series:
        """Return the series of a pool."""
        found = self._series.get(pool)
        if found is None:
            found = self._series.setdefault(pool, Series(next(self._keys)))
        return found
