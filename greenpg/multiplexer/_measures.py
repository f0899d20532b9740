"""A multiplexer's numbers for monitoring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._dispatcher import Dispatcher
    from ._line import Line


@dataclass(frozen=True, slots=True)
class MultiplexerMeasures:
    """A multiplexer's numbers at one moment; times in seconds, counters since the start.

    `waiting` statements are not sent yet, `in_flight` ones have no answer yet. A call of
    `executemany` is one of `statements`; `failed` are those that had no answer: they were not sent
    in time, too many waited, or the connection was lost. `answer_time` is the sum of the times
    from the calls to the answers of those that are `answered`; `slow` ones ran for at least the
    multiplexer's `slow` seconds. `prepared` counts the statements prepared on open connections.
    """

    connections: int
    waiting: int
    in_flight: int
    oldest_wait: float
    statements: int
    failed: int
    answered: int
    answer_time: float
    slow: int
    prepared: int


@dataclass(frozen=True, slots=True)
class LineReport:
    """A connection that serves: its server process, and the statements under way on it.

    The oldest of these has run for `seconds`; `text` is it without its literals, None if nothing is
    under way. `prepared` is the number of statements prepared on the connection.
    """

    pid: int
    in_flight: int
    seconds: float
    text: str | None
    prepared: int


def measures(dispatcher: Dispatcher, now: float) -> MultiplexerMeasures:
    """Return a multiplexer's numbers; does not wait."""
    with dispatcher.looking():
        asked = [group.asked for group in list(dispatcher.queue)]
        lines = dispatcher.lines
        return MultiplexerMeasures(
            connections=len(lines),
            waiting=len(asked),
            in_flight=sum(line.in_flight for line in lines),
            oldest_wait=max(now - min(asked, default=now), 0.0),
            statements=dispatcher.asked,
            failed=dispatcher.failed,
            answered=dispatcher.answered,
            answer_time=dispatcher.answer_time,
            slow=dispatcher.slow_answers,
            prepared=sum(len(line.statements) for line in lines),
        )


def lines(dispatcher: Dispatcher, now: float) -> list[LineReport]:
    """Return what each connection does, the longest-running statements first."""
    with dispatcher.looking():
        found = [_report(line, now) for line in dispatcher.lines]
    return sorted(found, key=lambda one: (-one.seconds, not one.in_flight))


def _report(line: Line, now: float) -> LineReport:
    oldest = line.oldest()
    seconds = 0.0 if oldest is None else max(now - line.began(oldest), 0.0)
    text = None if oldest is None else oldest.text()
    return LineReport(line.pid, line.in_flight, seconds, text, len(line.statements))
