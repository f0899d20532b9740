"""A multiplexer's numbers for monitoring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._dispatcher import Dispatcher


@dataclass(frozen=True, slots=True)
class MultiplexerMeasures:
    """A multiplexer's numbers at one moment; times in seconds, counters since the start.

    `waiting` statements are not sent yet, `in_flight` ones have no answer yet. A call of
    `executemany` is one of `statements`; `failed` are those that had no answer: they were not sent
    in time, too many waited, or the connection was lost.
    """

    connections: int
    waiting: int
    in_flight: int
    oldest_wait: float
    statements: int
    failed: int


def measures(dispatcher: Dispatcher, now: float) -> MultiplexerMeasures:
    """Return a multiplexer's numbers; does not wait."""
    with dispatcher.looking():
        asked = [group.asked for group in list(dispatcher.queue)]
        return MultiplexerMeasures(
            connections=len(dispatcher.lines),
            waiting=len(asked),
            in_flight=sum(line.in_flight for line in dispatcher.lines),
            oldest_wait=max(now - min(asked, default=now), 0.0),
            statements=dispatcher.asked,
            failed=dispatcher.failed,
        )
