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

PAGES: Final = [page for page in [*pages(), ROOT / "CONTRIBUTING.md"] if any(commands(page))]
TARGETS: Final = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
_ASSIGNMENT: Final = re.compile(r"\w+=")


def extras() -> set[str]:
    section = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1]
    return set(re.findall(r"^(\w+) = \[", section.split("\n[")[0], re.M))


def words_of(line: str) -> list[str]:
    """Return the command and its arguments, without leading variables and comments."""
    words = shlex.split(line, comments=True)
    while words and _ASSIGNMENT.match(words[0]):
        words.pop(0)
    return words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page):
    found = {f"{page.name}:{number}": complaint(line) for number, line in commands(page)}

    assert {place: text for place, text in found.items() if text} == {}


def complaint(line: str) -> str:
    """Return the error of a command line, or "" if there is none."""
    words = words_of(line)
    here = str(Path(sys.executable).parent)
    if words and not (shutil.which(words[0], path=here) or shutil.which(words[0])):
        return f"there is no command {words[0]!r}"
    if words[:1] == ["make"] and words[1] not in TARGETS and not words[1].startswith("."):
        return f"there is no target {words[1]!r}"
    if words[:1] == ["greenpg"] and not parses(words[1:]):
        return f"greenpg does not accept {line!r}"
    named = {name for word in words for name in re.findall(r"greenpg\[([\w,]+)\]", word)}
    unknown = {extra for name in named for extra in name.split(",")} - extras()
    return f"there is no extra {', '.join(sorted(unknown))}" if unknown else ""


def parses(arguments: list[str]) -> bool:
    """Return True if the command line accepts the arguments; run nothing."""
    name = arguments[0]
    if name.startswith("-") or name not in cli.COMMANDS:
        return name.startswith("-")
    parser = cli._parser(name, cli._load(name))
    try:
        parser.parse_args(arguments)
    except SystemExit as end:
        return end.code in (0, None)
    return True
