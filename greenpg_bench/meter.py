"""Readings of this process: CPU time, wall time, memory."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class Reading:
    """Seconds spent in a block; complete when the block has ended."""

    cpu: float = 0.0
    wall: float = 0.0


@contextmanager
def meter() -> Iterator[Reading]:
    """Measure the block: client CPU of all threads, user and system, and wall time."""
    gc.collect()
    reading = Reading(-time.process_time(), -time.perf_counter())
    yield reading
    reading.cpu += time.process_time()
    reading.wall += time.perf_counter()
