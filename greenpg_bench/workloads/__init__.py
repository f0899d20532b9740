"""The workloads by name; a module here holds one, as `WORKLOAD`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from greenpg_bench.model import Workload

NAMES = (
    "select1", "multiplexer", "distance", "crowd", "copy", "lobject", "pool", "poolqueue",
    "replication", "notify", "many", "rows", "queries", "cancel", "connect",
)  # fmt: skip


def find(name: str) -> Workload:
    """The workload of that name."""
    workload: Workload = import_module(f"{__name__}.{name}").WORKLOAD
    return workload
