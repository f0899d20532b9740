"""What programs on a cluster are promised, and whether it held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from rich import box
from rich.table import Table

HELD: Final = "[green]held[/]"
BROKEN: Final = "[red]broken[/]"
WITHIN: Final = 1.0  # seconds, from a promotion to the next write
PAUSE: Final = 2.0  # seconds, the longest without a read


@dataclass(frozen=True)
class Event:
    """A failover: when it was caused, and when the new primary accepted writes."""

    kind: str
    began: float
    promoted: float


@dataclass(frozen=True)
class Outcome:
    """What a program did, beside what the servers had of it in the end."""

    name: str
    done: int
    lost: int
    twice: int
    foreign: int  # rows whose write had failed for certain
    unknown: int
    found: int  # of the unknown
    resumed: Sequence[float]  # seconds after each promotion
    pause: float  # the longest without a read
    sessions: int
    allowed: int
    errors: dict[str, int]
    broken: Sequence[str]

    @property
    def faults(self) -> list[str]:
        """Return which promises did not hold."""
        slow = [f"{seconds:.2f}" for seconds in self.resumed if seconds > WITHIN]
        found = {
            f"{self.lost} acknowledged writes lost": self.lost,
            f"{self.twice} writes done twice": self.twice,
            f"{self.foreign} failed writes done": self.foreign,
            f"writes resumed after {', '.join(slow)} s": slow,
            f"no read for {self.pause:.2f} s": self.pause > PAUSE,
            f"{self.sessions} sessions instead of {self.allowed}": self.sessions > self.allowed,
            f"a task ended: {'; '.join(self.broken)}": self.broken,
        }
        return [text for text, true in found.items() if true]


def judge(
    name: str,
    told: dict[str, Any],
    rows: Iterable[tuple[int, int, int]],
    events: Sequence[Event],
    sessions: int,
    allowed: int,
) -> Outcome:
    """Compare what a program says (tests/cluster/load.py) with the table's rows and counts."""
    counts = {(task, number): count for task, number, count in rows}
    done = Counter((task, number) for task, number, _ in told["done"])
    unknown = {(task, number) for task, number in told["unknown"]}
    times = sorted(instant for _, _, instant in told["done"])
    return Outcome(
        name=name,
        done=len(times),
        lost=sum(key not in counts for key in done),
        twice=sum(count > 1 for count in counts.values()),
        foreign=len(counts.keys() - done.keys() - unknown),
        unknown=len(unknown),
        found=len(unknown & counts.keys()),
        resumed=[_first_after(event.promoted, times) - event.promoted for event in events],
        pause=_longest(sorted(told["reads"]), events),
        sessions=sessions,
        allowed=allowed,
        errors=told["errors"],
        broken=told["broken"],
    )


def _first_after(instant: float, times: Iterable[float]) -> float:
    return next((time for time in times if time > instant), float("inf"))


def _longest(times: Sequence[float], events: Sequence[Event]) -> float:
    """Return the longest pause that touches the time from the first event on."""
    first = events[0].began if events else 0.0
    return max((b - a for a, b in pairwise(times) if b > first), default=float("inf"))


def table(outcomes: Iterable[Outcome], events: Sequence[Event]) -> Table:
    """Return the figures of all programs."""
    kinds = sorted({event.kind for event in events})
    grid = Table(box=box.SIMPLE_HEAD)
    grid.add_column("program", no_wrap=True)
    heads = ["writes", "lost", "twice", "unknown\n(done)", "reads\npaused"]
    for head in [*heads, *(f"writes again\n{kind}, s" for kind in kinds), "sessions", ""]:
        grid.add_column(head, justify="right", no_wrap=True)
    for one in outcomes:
        after = [_span(kind, one, events) for kind in kinds]
        grid.add_row(
            one.name, f"{one.done:,}", str(one.lost), str(one.twice),
            f"{one.unknown} ({one.found})", f"{one.pause:.2f} s", *after,
            f"{one.sessions} of {one.allowed}", BROKEN if one.faults else HELD,
        )  # fmt: skip
    return grid


def _span(kind: str, outcome: Outcome, events: Sequence[Event]) -> str:
    pairs = zip(events, outcome.resumed, strict=True)
    seconds = [seconds for event, seconds in pairs if event.kind == kind]
    return f"{min(seconds):.2f} to {max(seconds):.2f}" if seconds else ""
