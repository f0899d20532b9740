"""python -m tests.matrix [PATTERN ...]: the smoke program on each Python that is here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from greenpg.embedded import server_dsn
from tests.environments import ROOT, environment, interpreters

PYTHONS: Final = ((3, 10), (3, 11), (3, 12), (3, 13))
RELEASES: Final = ("oldest", "newest")
LIBRARIES: Final = ("gevent", "eventlet")
EXTRAS: Final = (*LIBRARIES, "psycopg3", "sqlalchemy", "metrics")
CACHE: Final = ROOT / "build" / "matrix"
SMOKE: Final = Path(__file__).with_name("smoke.py")
SECONDS: Final = 150
AT_ONCE: Final = 2  # installs
_BOUND: Final = re.compile(r'"([\w-]+)>=([\w.]+)(; [^"]+)?"')


@dataclass(frozen=True)
class Cell:
    """A Python with a set of releases, as pip's words."""

    python: tuple[int, ...]
    path: str
    releases: str

    @property
    def name(self) -> str:
        return f"{'.'.join(map(str, self.python))}-{self.releases}"

    @property
    def words(self) -> Iterator[str]:
        yield from ("-e", f"{ROOT}[{','.join(EXTRAS)}]")
        if self.releases == "oldest":  # psycopg in pure Python, on the system's libpq
            yield from lower_bounds()
        else:
            yield "psycopg[binary]"

    def install(self) -> str:
        """Return the Python of the cell's environment."""
        return environment(CACHE / self.name, self.path, *self.words)


def lower_bounds() -> Iterator[str]:
    """Yield the oldest releases that pyproject.toml allows, as requirements."""
    text = (ROOT / "pyproject.toml").read_text()
    for name in ("dependencies", *EXTRAS):
        found = re.search(rf"^{name} = \[(.*?)\]$", text, re.M | re.S)
        assert found is not None, name
        for package, version, marker in _BOUND.findall(found.group(1)):
            yield f"{package}=={version}{marker}"


def cells() -> list[Cell]:
    """Return what can run here, and say which Pythons are not here."""
    here = interpreters()
    for python in PYTHONS:
        if python not in here:
            print(f"Python {'.'.join(map(str, python))}: not here", flush=True)
    return [
        Cell(python, here[python], releases)
        for python in PYTHONS
        if python in here
        for releases in RELEASES
    ]


def smoke(cell: Cell, python: str, dsn: str) -> bool:
    """Run the program under both libraries; print what failed, and return whether none did."""
    passed = True
    for library in LIBRARIES:
        command = [python, "-W", "ignore", str(SMOKE), library]
        environ = {**os.environ, "GREENPG_DSN": dsn}
        done = subprocess.run(
            command, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        passed = passed and done.returncode == 0
        print(f"{cell.name} {library}: {done.stdout}{done.stderr}", end="", flush=True)
    return passed


def main(patterns: Sequence[str]) -> int:
    """Run the cells whose names contain one of the patterns, by default all."""
    chosen = [cell for cell in cells() if any(word in cell.name for word in patterns or [""])]
    CACHE.mkdir(parents=True, exist_ok=True)
    with server_dsn() as dsn, ThreadPoolExecutor(AT_ONCE) as pool:
        pythons = pool.map(Cell.install, chosen)
        passed = [smoke(cell, path, dsn) for cell, path in zip(chosen, pythons, strict=True)]
    return int(not all(passed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
