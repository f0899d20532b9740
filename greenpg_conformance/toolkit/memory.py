"""Measures this process's memory, for tests that bound what an operation holds."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

__all__ = ["resident"]


def resident() -> int:
    """Bytes of memory resident now; where the system does not say, the most there ever were."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
