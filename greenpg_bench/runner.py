"""Runs the contenders in turn, lap by lap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Protocol

from .drivers import missing
from .player import ContenderFailedError
from .stats import values

if TYPE_CHECKING:
    from .model import Contender, Sample

    class Laps(Protocol):
        """Something that can be measured again and again."""

        def lap(self) -> Sample: ...

    Start = Callable[[Contender], AbstractContextManager[Laps]]


@dataclass(slots=True)
class Record:
    """What a contender showed: a sample for each round (None where it failed), or why not.

    The count of system calls is one more sample; `commonest` names the most frequent other call.
    """

    contender: Contender
    missing: tuple[str, ...] = ()
    samples: list[Sample | None] = field(default_factory=list)
    error: str = ""
    commonest: str = ""

    @property
    def fit(self) -> bool:
        """Whether it is installed and has not failed."""
        return not self.missing and not self.error

    def median(self, key: str) -> float | None:
        """The median of a metric, None if it was never measured."""
        found = values(self.samples, key)
        return median(found) if found else None


def record(contender: Contender) -> Record:
    """A record that knows what the contender lacks here."""
    return Record(contender, missing=missing(contender))


def play(group: Sequence[Record], rounds: int, start: Start) -> Iterator[int]:
    """Fill the records of a group; yields the number of each round before it.

    Every second round runs backwards, so that a machine that slows down favours nobody.
    A contender that failed takes no part in later rounds.
    """
    with ExitStack() as stack:
        players = [_Seat(one, stack, start) for one in group]
        for turn in range(rounds):
            yield turn
            for player in players if turn % 2 == 0 else reversed(players):
                player.play()


class _Seat:
    """A contender's record beside its process, if it has one."""

    def __init__(self, record: Record, stack: ExitStack, start: Start) -> None:
        self._record = record
        self._laps: Laps | None = None
        if record.fit:
            try:
                self._laps = stack.enter_context(start(record.contender))
            except ContenderFailedError as error:
                record.error = str(error)

    def play(self) -> None:
        sample = None
        if self._laps is not None and self._record.fit:
            try:
                sample = self._laps.lap()
            except ContenderFailedError as error:
                self._record.error = str(error)
        self._record.samples.append(sample)


def by_name(records: Iterable[Record]) -> dict[str, list[Sample | None]]:
    """The samples of each contender."""
    return {one.contender.name: one.samples for one in records}
