"""Each program of the documentation runs unchanged, in its own process and database."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pytest

from tests.programs import python

from .pages import EXAMPLES, ROOT, Program, pages, programs

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from .conftest import Server

SECONDS: Final = 45
STRICT: Final = ("ignore", "error::RuntimeWarning", "error::ResourceWarning")
PROGRAMS: Final = [program for page in pages() for program in programs(page)]
ANYWHERE: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")


def run(program: Program, server: Server, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the program in a folder, under the name and with the line numbers of its page."""
    for name, text in program.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    script = folder / f"{program.page.stem.replace('-', '_')}_page.py"
    script.write_text(program.code)
    environ = {name: os.environ[name] for name in ANYWHERE if name in os.environ}
    return python(
        *(f"-W{rule}" for rule in STRICT),
        script.name,
        cwd=folder,
        env={**environ, **server.environ, "PYTHONPATH": str(EXAMPLES), **program.environ},
        seconds=SECONDS,
    )


def missing(promised: list[str], output: str) -> list[str]:
    """Return the promised lines that the output lacks, in order."""
    lines = iter([line.rstrip() for line in output.splitlines()])
    return [line for line in promised if line not in lines]


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_program_runs(program, fresh, tmp_path):
    server = fresh()

    done = run(program, server, tmp_path)

    assert done.returncode == 0, done.stderr
    assert not missing(program.printed, done.stdout), done.stdout
    assert not done.stderr
    assert server.sessions() == 0


def test_programs_are_found():
    assert len(PROGRAMS) > len(pages()) / 2
    assert {program.page for program in PROGRAMS} >= {ROOT / "README.md"}
