"""Medians, ratios within rounds, and verdicts on targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import Sample, Target

    Samples = Mapping[str, Sequence[Sample | None]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a target was met; `measured` is None where somebody it needs gave no sample."""

    target: Target
    values: tuple[float, ...]

    @property
    def measured(self) -> float | None:
        """The median over the rounds."""
        return median(self.values) if self.values else None

    @property
    def met(self) -> bool | None:
        """Whether the limit is kept; None if it could not be measured."""
        return None if self.measured is None else self.target.met(self.measured)


def values(samples: Sequence[Sample | None], key: str) -> list[float]:
    """The metric's values in the order of the rounds, without the gaps."""
    return [sample[key] for sample in samples if sample is not None and key in sample]


def judge(target: Target, samples: Samples) -> Verdict:
    """Compare each round with itself, never a good round of one with a bad round of another."""
    own = samples.get(target.contender, ())
    if target.peer is None:
        return Verdict(target, tuple(values(own, target.metric)))
    rounds = zip(own, samples.get(target.peer, ()), strict=False)
    return Verdict(target, tuple(_compared(target, rounds)))


def _compared(target: Target, rounds: Iterable[tuple[Sample | None, Sample | None]]) -> list[float]:
    key, ratio = target.metric, target.against == "ratio"
    return [
        mine[key] / theirs[key] if ratio else mine[key] - theirs[key]
        for mine, theirs in rounds
        if mine and theirs and key in mine and key in theirs
    ]
