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

GRACE_SECONDS: Final = 5.0


class Event(TypedDict):
    """What a worker tells; `at` is a moment of the system's monotonic clock."""

    what: str
    at: float
    lane: int
    text: str


@contextmanager
def events(job: Job) -> Iterator[Iterator[Event]]:
    """Let a worker do the job and give its events; it is gone when the block ends.

    It has a session of its own, so that Ctrl-C reaches this process alone, and it ends when
    its pipe does, however this process ends.
    """
    with TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.worker"],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,
        )
        try:
            yield _told(process, job, said)
        finally:
            _end(process)


def _told(process: subprocess.Popen[bytes], job: Job, said: IO[bytes]) -> Iterator[Event]:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):  # then its standard error tells why
        process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
    with os.fdopen(os.dup(process.stdout.fileno())) as lines:
        for line in lines:
            event: Event = json.loads(line)
            yield event
    if process.wait():
        said.seek(0)
        last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
        text = last or f"the worker ended with code {process.returncode}"
        yield {"what": "failed", "at": 0.0, "lane": 0, "text": text}


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:  # a driver that holds the interpreter lock for good
        process.kill()
        process.wait()
