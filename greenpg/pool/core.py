"""The pool without a driver, for adapters that lend connections of their own."""

from ._connections import BROKEN, CLEAN, DIRTY, Condition, ConnectionManager, PoolErrors
from ._pool import Pool
from ._report import describe_load
from ._slots import Limits, Slot
from ._state import WAKE

__all__ = [
    "BROKEN", "CLEAN", "DIRTY", "WAKE", "Condition", "ConnectionManager", "Limits", "Pool",
    "PoolErrors", "Slot", "describe_load",
]  # fmt: skip
