"""Attempts to connect again: how long to wait between them, and how to tell of them."""

from __future__ import annotations

from random import uniform
from typing import Final

__all__ = ["backoff", "one_line"]

FIRST: Final = 0.05
LONGEST: Final = 1.0


def backoff(failures: int) -> float:
    """Return seconds that double with each failure up to a limit, at random from their half on."""
    longest = min(LONGEST, FIRST * 2.0 ** min(failures, 10))
    return uniform(longest / 2, longest)


def one_line(error: Exception) -> str:
    """Return an error's text for a log: libpq's have several lines."""
    return " ".join(str(error).split())
