"""One workload from start to verdicts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from . import _syscalls
from ._model import Contender, Job, Sample
from ._runner import ContenderFailedError, Record, entrants, measure, play
from ._stats import Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._model import Workload


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure, and whom: contenders whose name matches the pattern `only`."""

    dsn: str
    rounds: int
    quick: bool = False
    only: str = "*"

    def job(self, workload: Workload, contender: Contender) -> Job:
        """The job of one contender in one round."""
        return Job(contender, self.dsn, workload.quick if self.quick else workload.size)


@dataclass(frozen=True, slots=True)
class Result:
    """What a workload showed; `notes` say what could not be measured."""

    workload: Workload
    records: Sequence[Record]
    verdicts: Sequence[Verdict]
    notes: Sequence[str]

    @property
    def failed(self) -> bool:
        """Whether a target is missed or a contender broke down; not to be installed is neither."""
        return any(one.met is False for one in self.verdicts) or any(
            one.error for one in self.records
        )

    def as_json(self) -> dict[str, object]:
        """All samples, medians and verdicts, for another program."""
        keys = [metric.key for metric in self.workload.metrics]
        return {
            "title": self.workload.title,
            "contenders": {one.contender.name: _record_json(one, keys) for one in self.records},
            "targets": [_verdict_json(one) for one in self.verdicts],
            "notes": list(self.notes),
        }


def run(workload: Workload, plan: Plan, tell: Callable[[str], None]) -> Result:
    """Measure a workload; `tell` hears what comes next."""
    records = [one for one in entrants(workload) if fnmatch(one.contender.name, plan.only)]

    def sample(contender: Contender) -> Sample:
        return measure(workload.name, plan.job(workload, contender))

    for turn, contender in play(records, plan.rounds, sample):
        tell(f"{workload.name}: round {turn + 1} of {plan.rounds}: {contender.name}")
    notes = _count_calls(workload, plan, records, tell) if workload.counts_calls else []
    samples = {one.contender.name: one.samples for one in records}
    asked = [target for target in workload.targets if target.contender in samples]
    verdicts = [judge(target, samples) for target in asked]
    return Result(workload, records, verdicts, notes)


def _count_calls(
    workload: Workload, plan: Plan, records: Sequence[Record], tell: Callable[[str], None]
) -> list[str]:
    if not _syscalls.available():
        return ["strace not installed: no system calls counted"]
    for record in records:
        if record.missing or record.error:
            continue
        tell(f"{workload.name}: counting the system calls of {record.contender.name}")
        job = Job(record.contender, plan.dsn, workload.quick)
        try:
            calls, record.commonest = _syscalls.count(workload.name, job)
        except ContenderFailedError as error:
            return [f"strace: {str(error).splitlines()[-1]}"]
        record.samples.append(calls)
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
    return {
        **asdict(verdict.target),
        "values": verdict.values,
        "measured": verdict.measured,
        "met": verdict.met,
    }
