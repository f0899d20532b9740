"""The whole of tests/db once more under every green backend, one child process each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.green.__main__ import MODES, MONKEY

ROOT: Final = Path(__file__).parents[2]
SECONDS: Final = 900.0  # each test has a limit of its own


@pytest.mark.timeout(SECONDS + 10)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MONKEY)
def test_db_tests_pass_in_green_threads(dsn: str, name: str, mode: str) -> None:
    order = [sys.executable, "-m", "tests.green", name, mode, "tests/db", "-p", "no:cacheprovider"]

    done = subprocess.run(
        order,
        cwd=ROOT,
        env={**os.environ, "GREENPG_DSN": dsn},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert done.returncode == 0, done.stdout
