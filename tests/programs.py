"""Programs in a fresh Python: what is said of imports, monkey-patches and exits wants one."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SECONDS = 30.0


def run(
    code: str, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run code without warnings; see `python`."""
    return python("-W", "ignore", "-c", code, *arguments, env=env, cwd=cwd)


def python(
    *words: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    seconds: float = SECONDS,
) -> subprocess.CompletedProcess[str]:
    """Run Python and return how it ended and what it printed; it is killed after `seconds`."""
    return subprocess.run(
        [sys.executable, *words],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
