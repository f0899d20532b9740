"""How long to wait between attempts to connect, and how to log why one failed."""

from __future__ import annotations

from collections.abc import Callable
from random import random
from typing import Final

FIRST: Final = 0.05  # seconds
LONGEST: Final = 1.0  # seconds


def backoff(failures: int, longest: float = LONGEST, jitter: Callable[[], float] = random) -> float:
    """Return seconds that double with each failure up to `longest`, of which half is random."""
    seconds = min(longest, FIRST * 2.0 ** min(failures, 10))
    return seconds * (0.5 + 0.5 * jitter())


def one_line(error: BaseException) -> str:
    """Return an error's text for a log: libpq's have several lines, others none."""
    return " ".join(str(error).split()) or repr(error)
