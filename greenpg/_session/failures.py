"""The last failures of a pool or the like, for monitoring; no reference to an error is kept."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from greenpg._sqlstate import sqlstate_of

from .backoff import one_line

KEPT: Final = 20  # kinds


@dataclass(frozen=True, slots=True)
class Failure:
    """The last failure of a kind: its time (`time.time`), what failed, and the error.

    `what` is "connect", "check", "reset", "request", which got no connection in time, or
    "connection", which was lost while it was used; failures of the same `what`, class and SQLSTATE
    are of one kind, and `count` is their number.
    """

    at: float
    what: str
    error: type[BaseException]
    sqlstate: str | None
    text: str
    count: int


class Failures:
    """Keeps the last failure of each kind."""

    def __init__(self) -> None:
        self._last: dict[tuple[object, ...], Failure] = {}

    def note(self, what: str, error: BaseException, text: str | None = None) -> None:
        """Keep a failure; `text` is the error's own by default."""
        sqlstate = sqlstate_of(error)
        kind = what, type(error), sqlstate
        before = self._last.pop(kind, None)
        count = 1 if before is None else before.count + 1
        told = one_line(error) if text is None else text
        self._last[kind] = Failure(time.time(), what, type(error), sqlstate, told, count)
        for oldest in list(self._last)[:-KEPT]:
            self._last.pop(oldest, None)  # another OS thread may have been faster

    def last(self) -> list[Failure]:
        """Return the kept failures, the latest first."""
        return list(self._last.values())[::-1]
