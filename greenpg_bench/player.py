"""Runs a contender in a child process: prepared once, then measured lap by lap."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from greenpg._helper_process import Child, ChildError

from .hosts import HOSTS, LOOP_VARIABLES

if TYPE_CHECKING:
    from .model import Contender, Job, Sample


class ContenderFailedError(Exception):
    """A contender broke down; the text is what its process said, the cause on the last line."""


class Player:
    """Runs laps of a job in a child process; a context manager, which ends the child.

    Between laps the child sleeps. What goes wrong there is raised as ContenderFailedError.
    """

    def __init__(self, workload: str, job: Job, prefix: Sequence[str] = ()) -> None:
        """Start the child, under the command `prefix` if given, and let it connect."""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._child: Child | None = None
        try:
            self._child = self._start(job, prefix)
            self._ask("prepare", workload=workload, **asdict(job))
        except BaseException:
            self.close()
            raise

    def lap(self) -> Sample:
        """Measure once."""
        return self._ask("lap")

    def close(self) -> None:
        """End the child; any number of times."""
        if self._child is not None:
            self._child.close()
        self._stderr.close()

    def __enter__(self) -> Player:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, job: Job, prefix: Sequence[str]) -> Child:
        module, env = f"{__package__}.worker", _environment(job.contender)
        try:
            return Child(module, prefix=prefix, env=env, stderr=self._stderr)
        except ChildError as err:
            raise self._failure(err) from None

    def _ask(self, order: str, **details: object) -> Sample:
        assert self._child is not None
        try:
            return self._child.ask(order, **details)
        except ChildError as err:
            raise self._failure(err) from None

    def _failure(self, err: ChildError) -> ContenderFailedError:
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").strip()
        return ContenderFailedError(said or str(err))


def _environment(contender: Contender) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in LOOP_VARIABLES}
    return {**kept, **HOSTS[contender.host].env}
