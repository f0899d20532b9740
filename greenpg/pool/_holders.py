"""Words about who holds a pool's connections, and why another gets none."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from ._slots import LENT

if TYPE_CHECKING:
    from ._slots import Slot
    from ._state import PoolState

__all__ = ["holder", "load"]


def holder(slot: Slot) -> str:
    """Return the place in the code from which a connection was taken: file:line in function."""
    if slot.holder is None:
        return "an unknown place"
    code, offset = slot.holder
    line = next((line for start, end, line in code.co_lines() if start <= offset < end), None)
    place = (
        f"{PurePath(code.co_filename).name}:{line} in {code.co_qualname}"
        if hasattr(code, "co_qualname")
        else f"{PurePath(code.co_filename).name}:{line} in {code.co_name}"
    )
    return f"{place}\n{slot.stack}" if slot.stack else place


def load(state: PoolState, now: float) -> str:
    """Return how many are lent, waiting and broken, and who has held one longest."""
    lent = list(state.lent.values())
    ours = len(state.slots) - len(state.idle) - len(lent)
    counts = f"{len(lent)} lent, {len(state.waiters)} waiting, {ours} broken or being connected"
    held = [slot for slot in lent if slot.phase is LENT and slot.holder is not None]
    if not held:
        return counts
    oldest = min(held, key=lambda slot: slot.since)
    return f"{counts}; the oldest lent {now - oldest.since:.1f} s ago at {holder(oldest)}"
