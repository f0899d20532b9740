"""What one call asks of the multiplexer."""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from greenpg._protocol.libpq import PGRES_COMMAND_OK, PGRES_TUPLES_OK, libpq
from greenpg._protocol.prepared import is_missing, is_stale

from ._texts import without_literals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from greenpg._protocol.libpq import Pointer
    from greenpg._protocol.prepared import Form, Prepared

    from ._texts import Pace

FINE: Final = (PGRES_TUPLES_OK, PGRES_COMMAND_OK)


class Group:
    """Statements that are one transaction: in the queue, then on a line, then ended.

    `answers` holds libpq's results with their statuses, which the group owns. The task that asked
    parks on its group (`greenpg.backend.Parked`). With a `form` it is one statement, which is
    prepared on its line, `values` are those of its parameters, and `size` is their length. Once
    `deadline` has passed it is not sent any more.
    """

    # With a dict each would have a hash table of its own, as many are made before the first one is
    # sent, and keys that come later are not shared (CPython 3.11, init_inline_values).
    __slots__ = (
        "abandoned", "answers", "asked", "before", "deadline", "ended", "error", "expected", "form",
        "line", "pace", "prepared", "sent", "size", "statements", "values", "waiter",
    )  # fmt: skip
    sent: float  # these two once it is on a line
    expected: float

    def __init__(
        self,
        statements: Sequence[bytes],
        pace: Pace,
        form: Form | None = None,
        values: Any = None,
        size: int = 0,
    ) -> None:
        self.statements, self.pace = statements, pace
        self.form, self.values, self.size = form, values, size
        self.asked, self.deadline = monotonic(), inf
        self.answers: list[tuple[Pointer, int]] = []
        self.ended = self.abandoned = False
        self.line: Any = None
        self.prepared: Prepared | None = None
        self.error: Exception | None = None
        self.waiter: Any = None
        self.before = 0

    def end(self, error: Exception | None = None) -> None:
        """Note that its answers are there, or an error; then the task is to be unparked."""
        self.error = error
        self.ended = True
        if self.abandoned or error is not None:
            self.free()

    def text(self) -> str:
        """Return its first statement, without literals."""
        return without_literals(b"".join(self.statements[:1]).decode("utf-8", "replace"))

    def must_be_repeated(self) -> bool:
        """Return True if it has failed only because of its form, which then is forgotten."""
        form, prepared = self.form, self.prepared
        if form is None or prepared is None or self.answers[-1][1] in FINE:
            return False
        known, error = self.line.statements, self.answers[0][0]
        if self.before:
            form.fail()
            known.drop(form, prepared, False)
            return True
        if not is_stale(error):
            return False
        known.drop(form, prepared, not is_missing(error))
        return True

    def free(self) -> None:
        """Free the results that nobody has taken."""
        while self.answers:
            libpq.PQclear(self.answers.pop()[0])


def first(queue: Any, order: Callable[[Any], Iterator[Group]] = iter) -> Group:
    """Return the first group of a queue to which OS threads may add at any time."""
    try:
        return next(order(queue))
    except RuntimeError:  # one was added in this moment
        return first(queue, order)
