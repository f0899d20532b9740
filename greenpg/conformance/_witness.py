"""A process that does nothing but tick: when it was late, the whole machine stood still."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Final

from greenpg._child import Reply, send, serve

from ._machine import CoreWaits

INTERVAL: Final = 0.005
REMEMBERED: Final = 10_000


class Witness:
    """Its own late ticks, with what was not a mere wait for a core."""

    def __init__(self) -> None:
        self._late: deque[tuple[float, float, float]] = deque(maxlen=REMEMBERED)
        self._ticked = time.monotonic()

    def watch(self) -> None:
        """Tick for ever."""
        waits = CoreWaits()
        while True:
            time.sleep(INTERVAL)
            now = time.monotonic()
            late = now - self._ticked - INTERVAL - waits.since()
            if late > INTERVAL:
                self._late.append((self._ticked, now, late))
            self._ticked = now

    def stood_still(self, began: float, ended: float) -> Reply:
        """Return how long the machine stood still between two moments."""
        while self._ticked < ended:
            time.sleep(INTERVAL)
        seconds = 0.0
        for start, end, late in list(self._late):
            seconds += max(0.0, min(late, min(end, ended) - max(start, began)))
        return {"seconds": seconds}


def main() -> None:
    """Tick and tell, until standard input ends."""
    witness = Witness()
    threading.Thread(target=witness.watch, daemon=True).start()
    send({})
    serve({"stood_still": witness.stood_still})


if __name__ == "__main__":
    main()
