"""What happened in this process: interrupted operations, what became of them, and stalls."""

from __future__ import annotations

from typing import Final

__all__ = ["DEADLINES", "KILLS", "OTHERS", "Counts", "counts"]

DEADLINES: Final = "deadline"
KILLS: Final = "kill"
OTHERS: Final = "other"


class Counts:
    """Numbers since the start of the process; other OS threads' may rarely be lost.

    `interrupts` has operations that an interrupt ended while they ran, by kind; `cancels` the
    cancel requests that were sent, `failed_repairs` the connections that could not be brought
    to rest, and were closed. `stalls` and `stalled` are the number and the seconds of the event
    loop's stalls, if it is watched (`greenpg.watch`).
    """

    __slots__ = ("cancels", "failed_repairs", "interrupts", "stalled", "stalls")

    def __init__(self) -> None:
        self.cancels = self.failed_repairs = self.stalls = 0
        self.stalled = 0.0
        self.interrupts = {DEADLINES: 0, KILLS: 0, OTHERS: 0}

    def note_interrupt(
        self,
        error: BaseException,
        deadline: type[Exception],
        exits: tuple[type[BaseException], ...],
    ) -> None:
        """Count an interrupt: a deadline of greenpg's, the end of a task, or another one."""
        if isinstance(error, deadline):
            kind = DEADLINES
        elif isinstance(error, (*exits, KeyboardInterrupt, SystemExit)):
            kind = KILLS
        else:
            kind = OTHERS
        self.interrupts[kind] += 1


counts: Final = Counts()
