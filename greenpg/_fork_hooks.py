"""What runs in a forked child, in a stated order: `os.register_at_fork` knows only that of imports.

Backends first, since what follows may wake tasks; then connections, whose sockets are cut off;
then what stands on them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import IntEnum
from typing import Final


class Order(IntEnum):
    """Whose hook it is; hooks of the same rank run in the order in which they were registered."""

    BACKEND = 0
    CONNECTIONS = 1
    POOLS = 2
    LISTENERS = 3
    WATCHES = 4
    MONITORS = 5


_hooks: Final[dict[Order, list[Callable[[], object]]]] = {order: [] for order in Order}


def in_child(order: Order, hook: Callable[[], object]) -> None:
    """Call `hook` in each child that is forked from now on; register it once per process."""
    _hooks[order].append(hook)


def _run() -> None:
    for order in Order:
        for hook in _hooks[order]:
            hook()


os.register_at_fork(after_in_child=_run)
