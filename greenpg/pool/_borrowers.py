"""Who holds a pool's connections, and who waits for one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from ._slots import LENT, Borrower, Slot

if TYPE_CHECKING:
    from ._connections import ConnectionManager
    from ._state import PoolState

NAMED: Final = 3  # of the oldest loans, in texts


@dataclass(frozen=True, slots=True)
class Holder:
    """A lent connection: where it was borrowed, and what its session does.

    `state` is as in pg_stat_activity, or "closed"; `pid` is the server process, None if that is
    unknown. `task` is the borrower's as `Backend.current` returns it, None once it is gone.
    """

    place: str
    seconds: float
    state: str
    pid: int | None
    task: Any
    stack: str | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task that waits for a connection, and the place where it asked for one."""

    place: str
    seconds: float
    task: Any


def holders(
    state: PoolState, manager: ConnectionManager, now: float, most: int | None = None
) -> list[Holder]:
    """Return the holders of lent connections, that of the oldest loan first."""
    found = []
    for slot in oldest(state)[:most]:
        conn = slot.ref()
        if conn is not None:
            session, pid = manager.session(conn)
            seconds = max(now - slot.since, 0.0)
            found.append(
                Holder(describe_holder(slot), seconds, session, pid, _task(slot.holder), slot.stack)
            )
    return found


def waiting(state: PoolState, now: float, most: int | None = None) -> list[Waiting]:
    """Return those that wait for a connection, in the order in which they are served."""
    return [
        Waiting(_place(waiter.borrower), max(now - waiter.since, 0.0), _task(waiter.borrower))
        for waiter in list(state.waiters)[:most]
    ]


def oldest(state: PoolState) -> list[Slot]:
    """Return the slots of lent connections, that of the oldest loan first."""
    lent = [slot for slot in list(state.lent.values()) if slot.phase is LENT]
    return sorted((slot for slot in lent if slot.holder), key=lambda slot: slot.since)


def describe_holder(slot: Slot) -> str:
    """Return the place in the code where a connection was borrowed: file:line in function."""
    return _place(slot.holder)


def describe_load(state: PoolState, now: float) -> str:
    """Return the numbers lent, waiting and broken, and where the oldest loans were borrowed."""
    lent = len(state.lent)
    ours = len(state.slots) - len(state.idle) - lent
    counts = f"{lent} lent, {len(state.waiters)} waiting, {ours} broken or being connected"
    loans = [
        f"{now - slot.since:.1f} s ago at {describe_holder(slot)}" for slot in oldest(state)[:NAMED]
    ]
    return f"{counts}; the oldest lent {', '.join(loans)}" if loans else counts


def with_stacks(text: str, slots: Iterable[Slot]) -> str:
    """Append the stacks that were kept when the slots' connections were borrowed."""
    kept = [f"lent at {describe_holder(slot)}:\n{slot.stack}" for slot in slots if slot.stack]
    return "\n".join([text, *kept])


def with_oldest_stacks(text: str, state: PoolState) -> str:
    """Append the stacks of the loans that `describe_load` names."""
    return with_stacks(text, oldest(state)[:NAMED])


def _place(borrower: Borrower | None) -> str:
    if borrower is None:
        return "an unknown place"
    code, offset, _ = borrower
    line = next((line for start, end, line in code.co_lines() if start <= offset < end), None)
    function = getattr(code, "co_qualname", code.co_name)  # Python 3.10 has no co_qualname
    return f"{PurePath(code.co_filename).name}:{line} in {function}"


def _task(borrower: Borrower | None) -> Any:
    return None if borrower is None else borrower[2]()
