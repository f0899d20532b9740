"""Runs contenders in child processes, round by round."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from statistics import median
from typing import TYPE_CHECKING

from ._drivers import needs
from ._hosts import HOSTS, LOOP_VARIABLES
from ._stats import values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ._model import Contender, Job, Sample, Workload

LIMIT = 120.0


class ContenderFailedError(Exception):
    """A child did not answer; the text is what it said last."""


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

    def median(self, key: str) -> float | None:
        """The median of a metric, None if it was never measured."""
        found = values(self.samples, key)
        return median(found) if found else None


def missing(contender: Contender) -> tuple[str, ...]:
    """The modules this contender lacks here."""
    return tuple(module for module in needs(contender) if find_spec(module) is None)


def measure(workload: str, job: Job, prefix: Sequence[str] = ()) -> Sample:
    """Run one job in a child, under `prefix` if given.

    Raises ContenderFailedError with what the child said; one that hangs is ended after LIMIT.
    """
    order = {"workload": workload, "limit": LIMIT, **asdict(job)}
    order["contender"] = [job.contender.driver, job.contender.host, job.contender.variant]
    try:
        done = subprocess.run(
            [*prefix, sys.executable, "-m", f"{__package__}._child"],
            input=json.dumps(order),
            env=_environment(job.contender),
            capture_output=True,
            text=True,
            timeout=LIMIT + 10,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ContenderFailedError(f"no answer in {LIMIT:g} s") from None
    return _answer(done)


def _environment(contender: Contender) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in LOOP_VARIABLES}
    return {**kept, **HOSTS[contender.host].env}


def _answer(done: subprocess.CompletedProcess[str]) -> Sample:
    if done.returncode:
        raise ContenderFailedError(done.stderr.strip() or f"exit code {done.returncode}")
    sample: Sample = json.loads(done.stdout.splitlines()[-1])
    return sample


def play(
    records: Sequence[Record], rounds: int, sample: Callable[[Contender], Sample]
) -> Iterator[tuple[int, Contender]]:
    """Fill the records in interleaved rounds; yields round and contender before each measurement.

    Every second round runs backwards, so that a machine that slows down favours nobody.
    A contender that failed takes no part in later rounds.
    """
    for turn in range(rounds):
        for record in records if turn % 2 == 0 else reversed(records):
            if record.missing or record.error:
                record.samples.append(None)
                continue
            yield turn, record.contender
            _take(record, sample)


def _take(record: Record, sample: Callable[[Contender], Sample]) -> None:
    try:
        record.samples.append(sample(record.contender))
    except ContenderFailedError as error:
        record.error = str(error)
        record.samples.append(None)


def entrants(workload: Workload) -> list[Record]:
    """A record for each contender of the workload, with what it lacks here."""
    return [Record(one, missing=missing(one)) for one in workload.contenders]
