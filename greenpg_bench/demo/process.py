"""The parent's side of a worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Final, TypedDict

if TYPE_CHECKING:
    from .job import Job

GRACE_SECONDS: Final = 5.0  # for a worker to end before it is killed


class Event(TypedDict):
    """An event from a worker; `at` is a time of the system's monotonic clock, in seconds."""

    what: str
    at: float
    lane: int
    text: str


@contextmanager
def events(job: Job) -> Iterator[Iterator[Event]]:
    """Start a worker for the job and yield its events; the worker is gone when the block ends.

    The worker has a session of its own, so that Ctrl-C reaches this process only. It ends when its
    standard input does, however this process ends.
    """
    with TemporaryFile() as errors:
        command, pipe = [sys.executable, "-m", f"{__package__}.worker"], subprocess.PIPE
        process = subprocess.Popen(
            command, bufsize=0, stdin=pipe, stdout=pipe, stderr=errors, start_new_session=True
        )
        try:
            yield _sent(process, job, errors)
        finally:
            _end(process)


def _sent(process: subprocess.Popen[bytes], job: Job, errors: IO[bytes]) -> Iterator[Event]:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):  # then its standard error has the reason
        process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
    with os.fdopen(os.dup(process.stdout.fileno())) as lines:
        for line in lines:
            yield json.loads(line)
    if process.wait():
        errors.seek(0)
        last = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
        text = last or f"the worker ended with code {process.returncode}"
        yield {"what": "failed", "at": 0.0, "lane": 0, "text": text}


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:  # the driver holds the interpreter lock forever
        process.kill()
        process.wait()
