"""The record of a run so far; it reads no clock: the events carry their times."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from .job import TICK, Job

if TYPE_CHECKING:
    from .process import Event

Bar: TypeAlias = tuple[float, float]


@dataclass(slots=True)
class Lane:
    """One connection's queries: start and end of the finished ones, start of the others."""

    total: int
    bars: list[Bar] = field(default_factory=list)
    begun: list[float] = field(default_factory=list)

    def running_since(self) -> float | None:
        """Return when the running query began; None if none runs. The others wait behind it."""
        if not self.begun:
            return None
        return max(self.begun[0], self.bars[-1][1]) if self.bars else self.begun[0]

    def end(self, at: float) -> None:
        """Record the end of the running query."""
        since = self.running_since()
        if since is not None:
            self.begun.pop(0)
            self.bars.append((since, at))


class Record:
    """The figures of a run; times are in seconds since its start."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.lanes = [
            Lane(len(range(lane, job.tasks, job.connections))) for lane in range(job.connections)
        ]
        self.start: float | None = None
        self.wall: float | None = None
        self.ticks = [0.0]
        self.longest_stall = 0.0
        self.usable: int | None = None  # connections after the kills
        self.running: int | None = None  # queries after the kills
        self.missing = ""
        self.error = ""

    def note(self, event: Event) -> None:
        """Record an event."""
        what, at = event["what"], event["at"] - (self.start or 0.0)
        if what == "start":
            self.start = event["at"]
        elif what == "begin":
            self.lanes[event["lane"]].begun.append(at)
        elif what == "end":
            self.lanes[event["lane"]].end(at)
        elif what == "tick" and self.start is not None:
            self.longest_stall = max(self.longest_stall, self.stall(at))
            self.ticks.append(at)
        elif what == "over":
            self.wall = at
        elif what == "usable":
            self.usable = event["lane"]
        elif what == "running":
            self.running = event["lane"]
        elif what == "missing":
            self.missing = event["text"]
        elif what == "failed":
            self.error = event["text"]

    def stall(self, now: float) -> float:
        """Return how many seconds the ticker's next tick is late."""
        return max(0.0, now - self.ticks[-1] - TICK)

    @property
    def done(self) -> int:
        """The number of finished queries."""
        return sum(len(lane.bars) for lane in self.lanes)

    @property
    def at_once(self) -> int:
        """The largest number of queries that ran at the same time."""
        steps = [step for lane in self.lanes for a, b in lane.bars for step in ((a, 1), (b, -1))]
        running = most = 0
        for _, change in sorted(steps):  # at the same instant the end comes first
            running += change
            most = max(most, running)
        return most
