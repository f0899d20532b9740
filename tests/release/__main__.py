"""python -m tests.release [--final] [EXTRA ...]: builds the distributions and tests them.

The sdist is built from the checkout and the wheel from the sdist. Each extra of the wheel, by
default, is tested in a new environment of its own, and the smoke program of `make matrix` in one
that has several.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from greenpg.embedded import server_dsn
from tests.environments import ROOT, environment

from .contents import extras, faults, left_to_do

PLACE: Final = ROOT / "build" / "release"
DISTRIBUTIONS: Final = PLACE / "dist"
ENVIRONMENTS: Final = PLACE / "environments"
TOOLS: Final = ("build", "twine", "readme_renderer[md]")
SMOKE: Final = Path(__file__).with_name("smoke.py")
MATRIX: Final = ROOT / "tests" / "matrix" / "smoke.py"
MATRIX_EXTRAS: Final = "gevent,eventlet,psycopg3,sqlalchemy,metrics"
NONE, DEVELOPMENT = "none", "dev"
AT_ONCE: Final = 2
SECONDS: Final = 300


def called(*command: object, **environ: str) -> str:
    """Return what a command said if it failed, else "". It runs outside of the checkout."""
    done = subprocess.run(
        [*map(str, command)],
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environ,
        cwd=PLACE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return "" if done.returncode == 0 else done.stdout or f"exit code {done.returncode}"


def build() -> Iterator[str]:
    """Build both distributions and let twine check them: metadata, and the README as HTML."""
    tools = environment(PLACE / "tools", sys.executable, *TOOLS)
    shutil.rmtree(DISTRIBUTIONS, ignore_errors=True)
    yield called(tools, "-m", "build", "--outdir", DISTRIBUTIONS, ROOT)
    yield called(tools, "-m", "twine", "check", "--strict", *DISTRIBUTIONS.iterdir())


def install(wheel: Path, home: str, extra: str, *words: str) -> str:
    """Return the Python of a new environment with the wheel."""
    wanted = f"{wheel}[{extra}]" if extra else str(wheel)
    return environment(ENVIRONMENTS / home, sys.executable, wanted, *words)


def try_extra(wheel: Path, extra: str, dsn: str) -> str:
    """Return what failed in an environment with this extra."""
    python = install(wheel, extra, "" if extra == NONE else extra)
    return called(python, "-m", "pip", "check") or called(
        python, "-I", SMOKE, extra, GREENPG_DSN=dsn
    )


def try_matrix(wheel: Path, library: str, dsn: str) -> str:
    """Return what failed of greenpg's main features."""
    python = install(wheel, library + "-smoke", MATRIX_EXTRAS, "psycopg[binary]")
    return called(python, "-I", "-W", "ignore", MATRIX, library, GREENPG_DSN=dsn)


def trials(wheel: Path, chosen: Sequence[str], dsn: str) -> dict[str, Callable[[], str]]:
    """Return what is to be tried of the wheel, by name."""
    found = [NONE, *(extra for extra in extras(wheel) if extra != DEVELOPMENT)]
    names = {f"extra {extra}": partial(try_extra, wheel, extra, dsn) for extra in found}
    for library in ("gevent", "eventlet"):
        names[f"features under {library}"] = partial(try_matrix, wheel, library, dsn)
    return {
        name: trial
        for name, trial in names.items()
        if not chosen or name.removeprefix("extra ") in chosen
    }


def report(name: str, *found: str) -> bool:
    """Print what failed, and return whether nothing did."""
    complaints = [text for text in found if text]
    print(f"{name}: {'FAILED' if complaints else 'passed'}", *complaints, sep="\n", flush=True)
    return not complaints


def check(chosen: Sequence[str]) -> Iterator[bool]:
    """Yield for each step whether it passed; without distributions there are no others."""
    built = report("build and twine check", *build())
    yield built
    if not built:
        return
    [sdist], [wheel] = DISTRIBUTIONS.glob("*.tar.gz"), DISTRIBUTIONS.glob("*.whl")
    yield report("contents and licences", *faults(sdist, wheel))
    shutil.rmtree(ENVIRONMENTS, ignore_errors=True)
    with server_dsn() as dsn, ThreadPoolExecutor(AT_ONCE) as pool:
        todo = trials(wheel, chosen, dsn)
        tried = pool.map(lambda trial: trial(), todo.values())
        for name, found in zip(todo, tried, strict=True):
            yield report(name, found)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.release")
    parser.add_argument("--final", action="store_true", help="fail if anything is left to do")
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help="only these; none is one too")
    options = parser.parse_args()
    PLACE.mkdir(parents=True, exist_ok=True)
    passed = all([*check(options.extras)])
    left = [*left_to_do()]
    print(*[f"before the release: {text}" for text in left], sep="\n")
    return int(not passed or bool(options.final and left))


if __name__ == "__main__":
    sys.exit(main())
