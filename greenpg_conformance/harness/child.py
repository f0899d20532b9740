"""A child process that a library may have monkey-patched, for the suite and for the doctor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Final

_CHOICES: Final = ("GREENPG_BACKEND", "GREENPG_PATCH")


@contextmanager
def child_process(
    program: str,
    reports: int,
    log: IO[bytes],
    *,
    prelude: str = "",
    environ: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run Python code for the length of a block; at its end kill it and what it has forked.

    The lines of `prelude`, such as a monkey-patch, run first. The program reads orders from its
    standard input, prints to `log`, and inherits the descriptor `reports`, whose number is its
    argument.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", f"{prelude}\n{program}", str(reports)],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        pass_fds=[reports],
        env=environ,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        kill(process.pid)
        process.wait()
        if process.stdin is not None:
            with suppress(BrokenPipeError):  # of an order that it did not read
                process.stdin.close()


def kill(pid: int) -> None:
    """Kill a child and what it has forked."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def unchosen() -> dict[str, str]:
    """Return this process's environment without its choice of a backend."""
    return {name: value for name, value in os.environ.items() if name not in _CHOICES}
