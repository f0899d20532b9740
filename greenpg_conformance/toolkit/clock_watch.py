"""A process that only ticks: when a tick is late, a core or the whole machine stood still.

A virtual machine's cores are threads of its host, which may stop each of them for some while
without a word in the statistics.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import Final

from greenpg._helper_process import Reply, send, serve

from .machine import clock_of_this_thread

INTERVAL: Final = 0.005
REMEMBERED: Final = 10_000
MOST_CORES: Final = 8


class Ticker:
    """The late ticks of one core, with what was not a mere wait for it."""

    def __init__(self, cores: set[int]) -> None:
        self._cores = cores
        self._late: deque[tuple[float, float, float]] = deque(maxlen=REMEMBERED)
        self._ticked = time.monotonic()
        threading.Thread(target=self._tick, daemon=True).start()

    def stood_still(self, began: float, ended: float) -> float:
        """Return how long the core stood still between two moments."""
        while self._ticked < ended:
            time.sleep(INTERVAL)
        late = [*self._late]
        overlaps = (min(gap, min(end, ended) - max(start, began)) for start, end, gap in late)
        return sum(seconds for seconds in overlaps if seconds > 0)

    def _tick(self) -> None:
        if self._cores:
            os.sched_setaffinity(0, self._cores)  # of this thread
        clock = clock_of_this_thread()
        before = clock()
        while True:
            time.sleep(INTERVAL)
            moment, now = time.monotonic(), clock()
            late = now - before - INTERVAL
            if late > INTERVAL:
                self._late.append((self._ticked, moment, late))
            self._ticked, before = moment, now


def _each_core() -> list[set[int]]:
    """Return the cores to pin a ticker to; an empty set where none can be pinned."""
    if not hasattr(os, "sched_getaffinity"):
        return [set()]
    return [{core} for core in sorted(os.sched_getaffinity(0))[:MOST_CORES]]


def main() -> None:
    """Tick and answer, until standard input ends."""
    tickers = [Ticker(cores) for cores in _each_core()]

    def stood_still(began: float, ended: float) -> Reply:
        return {"seconds": max(ticker.stood_still(began, ended) for ticker in tickers)}

    send({})
    serve({"stood_still": stood_still})


if __name__ == "__main__":
    main()
