"""One workload from start to verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from fnmatch import fnmatch

from . import syscalls
from .cores import one_core
from .model import Job, Workload
from .player import ContenderFailedError, Player
from .runner import Record, by_name, play, record
from .stats import Verdict, judge


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure, and whom: contenders whose name matches the pattern `only`."""

    dsn: str
    rounds: int | None = None
    quick: bool = False
    only: str = "*"

    def rounds_of(self, workload: Workload) -> int:
        """The number of rounds asked for, or the workload's own."""
        return self.rounds or (workload.quick if self.quick else workload.rounds)


@dataclass(frozen=True, slots=True)
class Result:
    """What a workload showed; `notes` say what could not be measured."""

    workload: Workload
    records: Sequence[Record]
    verdicts: Sequence[Verdict]
    rounds: int
    notes: list[str]

    @property
    def failed(self) -> bool:
        """Whether a target is missed or a contender broke down; not to be installed is neither."""
        missed = any(one.met is False for one in self.verdicts)
        return missed or any(one.error for one in self.records)

    def as_json(self) -> dict[str, object]:
        """All samples, medians and verdicts, for another program."""
        keys = [metric.key for metric in self.workload.metrics]
        return {
            "title": self.workload.title,
            "rounds": self.rounds,
            "contenders": {one.contender.name: _record_json(one, keys) for one in self.records},
            "targets": [_verdict_json(one) for one in self.verdicts],
            "notes": list(self.notes),
        }


def run(workload: Workload, plan: Plan, tell: Callable[[str], None]) -> Result:
    """Measure a workload; `tell` is called with what comes next."""
    with one_core(plan.dsn) if workload.pinned else nullcontext(True) as placed:
        result = _run(workload, plan, tell)
    if not placed:
        result.notes.append("client and server were not on one core: the figures waver")
    return result


def _run(workload: Workload, plan: Plan, tell: Callable[[str], None]) -> Result:
    groups = [
        [record(one) for one in group if fnmatch(one.name, plan.only)] for group in workload.groups
    ]
    rounds = plan.rounds_of(workload)
    for number, group in enumerate(groups, 1):
        for turn in play(group, rounds, lambda one: Player(workload.name, Job(one, plan.dsn))):
            tell(f"{workload.name}: group {number} of {len(groups)}, round {turn + 1} of {rounds}")
    records = [one for group in groups for one in group]
    notes = _count_calls(workload, plan, records, tell) if workload.counts_calls else []
    samples = by_name(records)
    asked = [target for target in workload.targets if target.contender in samples]
    return Result(workload, records, [judge(target, samples) for target in asked], rounds, notes)


def _count_calls(
    workload: Workload, plan: Plan, records: Sequence[Record], tell: Callable[[str], None]
) -> list[str]:
    if not syscalls.available():
        return ["strace not installed: no system calls counted"]
    for one in records:
        if not one.fit:
            continue
        tell(f"{workload.name}: counting the system calls of {one.contender.name}")
        try:
            calls, one.commonest = syscalls.count(workload, Job(one.contender, plan.dsn))
        except ContenderFailedError as error:
            return [f"strace: {str(error).splitlines()[-1]}"]
        one.samples.append(calls)
    return []


def _record_json(record: Record, keys: Sequence[str]) -> dict[str, object]:
    return {
        "missing": record.missing,
        "error": record.error,
        "samples": record.samples,
        "medians": {key: record.median(key) for key in keys},
        "commonest_other_call": record.commonest,
    }


def _verdict_json(verdict: Verdict) -> dict[str, object]:
    shown = {name: getattr(verdict, name) for name in ("values", "measured", "met")}
    return {**asdict(verdict.target), **shown}
