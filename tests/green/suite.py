"""Runs tests in a green child process, as `python -m tests.green` does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]


def run(
    name: str,
    mode: str,
    *arguments: str,
    dsn: str,
    seconds: float,
    python: str = sys.executable,
    **variables: str,
) -> str:
    """Return what pytest printed in a process with each test in a green thread; a failure raises.

    After `seconds` the child is killed and subprocess.TimeoutExpired raised. `variables` go
    into its environment.
    """
    order = [python, "-m", "tests.green", name, mode, *arguments, "-p", "no:cacheprovider"]
    done = subprocess.run(
        order,
        cwd=ROOT,
        env={**os.environ, **variables, "GREENPG_DSN": dsn},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
