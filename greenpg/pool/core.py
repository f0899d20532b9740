"""The pool without a driver, for adapters that lend connections of their own."""

from greenpg._checks import check_count, check_functions, check_members, check_seconds, check_texts
from greenpg._instances import Instances
from greenpg._session.failures import Failure

from ._borrowers import Holder, Waiting, describe_load, with_oldest_stacks
from ._connections import BROKEN, CLEAN, DIRTY, Condition, ConnectionManager, PoolErrors
from ._managed import session_of
from ._measures import BOUNDS, Durations, Measures
from ._pool import Pool, all_pools
from ._slots import Limits, Slot
from ._state import WAKE

__all__ = [
    "BOUNDS", "BROKEN", "CLEAN", "DIRTY", "WAKE", "Condition", "ConnectionManager", "Durations",
    "Failure", "Holder", "Instances", "Limits", "Measures", "Pool", "PoolErrors", "Slot",
    "Waiting", "all_pools", "check_count", "check_functions", "check_members", "check_seconds",
    "check_texts", "describe_load", "session_of", "with_oldest_stacks",
]  # fmt: skip
