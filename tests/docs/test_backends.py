"""The example of docs/backends.md conforms, and is as short as the page says."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from .pages import EXAMPLES

LINES = 120  # of code: neither blank nor imports, strings or comments alone
ASIDE = ("import ", "from ", "#", '"""')


@pytest.mark.timeout(150)
@pytest.mark.parametrize("rows", ["waits.*", "tasks.*", "interrupts.kill*"])
def test_example_conforms(server, rows):
    chosen = ["aiogreen_conformance:backend", "--all", "-k", rows]
    order = ["conformance", *chosen, "--dsn", server.dsn]

    done = subprocess.run(
        [sys.executable, "-m", "greenpg", *order, "--strict", "--jobs", "1"],
        env={**os.environ, "PYTHONPATH": str(EXAMPLES)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=140,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert " 0 failed, 0 skipped" in done.stdout


def test_example_is_short():
    lines = [line.strip() for line in (EXAMPLES / "aiogreen.py").read_text().splitlines()]

    assert sum(bool(line) and not line.startswith(ASIDE) for line in lines) <= LINES
