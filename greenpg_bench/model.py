"""What a benchmark is made of: contenders, metrics, targets, and the workload that joins them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Sample: TypeAlias = dict[str, float]
Lap: TypeAlias = Callable[[], Sample]

LIBRARIES = ("gevent", "eventlet")
LOOPS = ("gevent", "gevent-libuv", "eventlet", "eventlet-asyncio")


@dataclass(frozen=True, slots=True)
class Contender:
    """A driver on a host, measured in a child process of its own.

    `variant` tells apart contenders in the workload's own terms, such as a number of tasks.
    """

    driver: str
    host: str
    variant: str = ""

    @property
    def name(self) -> str:
        """The name that tables, targets and `--only` use."""
        return f"{self.driver}/{self.host}{self.variant and ' ' + self.variant}"


def contenders(*names: str, variant: str = "") -> tuple[Contender, ...]:
    """Return the contenders of these names, such as `greenpg/gevent`, each in this variant."""
    parts = (name.partition("/") for name in names)
    return tuple(Contender(driver, host, variant) for driver, _, host in parts)


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that a workload yields, and how a table shows it; details are in the JSON only."""

    key: str
    heading: str
    form: str = "{:.1f}"
    detail: bool = False


CALLS = (
    Metric("send", "send", "{:.2f}", detail=True),
    Metric("recv", "recv", "{:.2f}", detail=True),
    Metric("poll", "poll", "{:.2f}", detail=True),
    Metric("other", "other calls", "{:.2f}"),
    Metric("calls", "calls but polls", "{:.2f}"),
)


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on a metric of one contender, alone or against a peer measured in the same round."""

    contender: str
    metric: str
    limit: float
    peer: str | None = None
    aim: float | None = None
    against: Literal["ratio", "difference"] = "ratio"
    at_least: bool = False

    def met(self, measured: float) -> bool:
        """Whether the measured number keeps the limit."""
        return measured >= self.limit if self.at_least else measured <= self.limit

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        aim = "" if self.aim is None else f" (aim {self.aim:g})"
        if self.peer is None:
            return f"{sign} {self.limit:g}{aim}"
        joint = f"{self.limit:g} x" if self.against == "ratio" else f"{self.limit:g} over"
        return f"{sign} {joint} {self.peer}{aim}"


@dataclass(frozen=True, slots=True)
class Job:
    """What a child is asked to measure."""

    contender: Contender
    dsn: str


@dataclass(frozen=True, slots=True)
class Workload:
    """A measurement, who takes part in it, and what is asked of them.

    `prepare` runs in the child, after its host is set up, and returns the lap to be measured
    again and again; a lap does `units` of work. The contenders of one group take turns lap by
    lap, so all are connected at a time: those that are compared belong together. With CALLS
    among the metrics, they also run once under strace. One that is `pinned` has its client and
    its server on one core. With an `axis`, such as "tasks", each variant ends in a number on
    that axis: "10 ms, 1000".
    """

    name: str
    title: str
    groups: tuple[tuple[Contender, ...], ...]
    metrics: tuple[Metric, ...]
    targets: tuple[Target, ...]
    prepare: Callable[[Job], Lap]
    units: int
    rounds: int
    quick: int
    pinned: bool = False
    axis: str = ""

    @property
    def counts_calls(self) -> bool:
        """Whether system calls are among the metrics."""
        return set(CALLS) <= set(self.metrics)
