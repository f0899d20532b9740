"""The commands, targets and extras that the documentation names exist."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

import pytest

from greenpg import cli

from .pages import ROOT, commands, pages

COMMANDS: Final = [
    pytest.param(line, id=f"{page.relative_to(ROOT)}:{number}")
    for page in [*pages(), ROOT / "CONTRIBUTING.md"]
    for number, line in commands(page)
]
TARGETS: Final = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
_ASSIGNMENT: Final = re.compile(r"\w+=")


def extras() -> set[str]:
    section = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1]
    return set(re.findall(r"^(\w+) = \[", section.split("\n[")[0], re.M))


def words_of(line: str) -> list[str]:
    """The command and its arguments, without variables before it and comments after it."""
    words = shlex.split(line, comments=True)
    while words and _ASSIGNMENT.match(words[0]):
        words.pop(0)
    return words


@pytest.mark.parametrize("line", COMMANDS)
def test_command_exists(line):
    words = words_of(line)

    if words:
        here = shutil.which(words[0], path=str(Path(sys.executable).parent))
        assert here or shutil.which(words[0]), f"there is no command {words[0]!r}"
    if words[:1] == ["make"]:
        assert words[1] in TARGETS or words[1].startswith(".")
    if words[:1] == ["greenpg"]:
        assert parses(words[1:]), f"greenpg does not know {line!r}"
    if words[:2] == ["pip", "install"]:
        named = {name for word in words for name in re.findall(r"\[([\w,]+)\]", word)}
        assert {extra for name in named for extra in name.split(",")} <= extras()


def parses(arguments: list[str]) -> bool:
    """Tell whether the command line takes the arguments, without running anything."""
    name = arguments[0]
    if name.startswith("-"):
        return True
    parser = cli._parser(name, cli._load(name))
    try:
        parser.parse_args(arguments)
    except SystemExit as end:
        return end.code in (0, None)
    return True
