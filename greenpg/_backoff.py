"""How long to wait before another attempt to connect."""

from __future__ import annotations

from random import uniform
from typing import Final

__all__ = ["backoff"]

FIRST: Final = 0.05
LONGEST: Final = 1.0


def backoff(failures: int) -> float:
    """Return seconds that double with each failure up to a limit, at random from their half on."""
    longest = min(LONGEST, FIRST * 2.0 ** min(failures, 10))
    return uniform(longest / 2, longest)
