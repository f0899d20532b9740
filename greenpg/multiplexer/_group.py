"""What one call asks of the multiplexer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from greenpg._protocol.libpq import libpq

if TYPE_CHECKING:
    from greenpg.backend import Event

    from ._texts import Pace


class Group:
    """Statements that are one transaction: in the queue, then on a line, then ended.

    `answers` holds libpq's results with their statuses, which the group owns.
    """

    __slots__ = (
        "abandoned", "answers", "asked", "ended", "error", "event", "expected", "line", "pace",
        "sent", "statements",
    )  # fmt: skip

    def __init__(self, statements: list[bytes], pace: Pace, event: Event, now: float) -> None:
        self.statements = statements
        self.pace = pace
        self.event = event
        self.asked = now
        self.sent = self.expected = 0.0
        self.answers: list[tuple[int, int]] = []
        self.line: Any = None
        self.error: Exception | None = None
        self.ended = False
        self.abandoned = False

    def end(self, error: Exception | None = None) -> None:
        """Wake the task that asked, with its answers or an error."""
        self.error = error
        self.ended = True
        if self.abandoned or error is not None:
            self.free()
        if not self.abandoned:
            self.event.set()

    def free(self) -> None:
        """Free the results that nobody has taken."""
        while self.answers:
            libpq.PQclear(self.answers.pop()[0])
