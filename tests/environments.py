"""Virtual environments for other Pythons, and for versions that are not installed in this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
SECONDS: Final = 300
PRINT_VERSION: Final = "import sys; print(*sys.version_info[:2], sep='.')"


def interpreter(oldest: tuple[int, int]) -> str | None:
    """Return the oldest Python of at least that version: this one, on the PATH or pyenv's."""
    found = interpreters()
    fitting = [version for version in found if version >= oldest]
    return found[min(fitting)] if fitting else None


def interpreters() -> dict[tuple[int, ...], str]:
    """Return the Pythons that are here, by version: pyenv's, those on the PATH and this one."""
    return {version: path for path in _candidates() if (version := _version(path))}


def _candidates() -> Iterator[str]:
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, sorted(home.glob("versions/3.*/bin/python")))
    for minor in range(10, 20):
        path = shutil.which(f"python3.{minor}")
        if path is not None:
            yield path
    yield sys.executable


def _version(path: str) -> tuple[int, ...] | None:
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        command = [path, "-c", PRINT_VERSION]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
        return tuple(map(int, done.stdout.strip().split(".")))
    return None


def environment(home: Path, python: str, *words: str) -> str:
    """Return the Python of an environment in `home`, in which pip has installed these words.

    It is made if it is missing; greenpg in it is this checkout's.
    """
    ours = home / "bin" / "python"
    made = home / "made"
    wanted = "\n".join([python, *words])
    if not made.exists() or made.read_text() != wanted:
        shutil.rmtree(home, ignore_errors=True)
        _run(python, "-m", "venv", str(home))
        _run(str(ours), "-m", "pip", "install", "-q", *words)
        made.write_text(wanted)
    return str(ours)


def _run(*command: str) -> None:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
