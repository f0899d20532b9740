"""Reads the code of the documentation's pages.

`python` blocks run in order, as one program per page. Comments change that:
`<!-- program: NAME -->` begins another program, with environment variables after the name if
needed, and `<!-- file: NAME -->` saves the next block under that name beside the program.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from markdown_it.token import Token

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
EXAMPLES: Final = DOCS / "examples"
CONSOLE: Final = ("bash", "console", "sh", "shell")
_COMMENT: Final = re.compile(r"<!--\s*(program|file):\s*(.+?)\s*-->")
_PRINTS: Final = re.compile(r"# prints (.+)$", re.M)
_FIRST: Final = "page"


@dataclass
class Program:
    """One program of a page; its lines have the line numbers of the page."""

    page: Path
    name: str
    environ: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        page = self.page.relative_to(ROOT).with_suffix("")
        return str(page) if self.name == _FIRST else f"{page}-{self.name}"

    @property
    def code(self) -> str:
        return "\n".join(self.lines) + "\n"

    @property
    def printed(self) -> list[str]:
        """The lines that the program promises to print, in order."""
        return _PRINTS.findall(self.code)

    def add(self, code: str, line: int) -> None:
        """Add a block at its line, counted from 0."""
        self.lines += [""] * (line - len(self.lines)) + code.splitlines()


def pages() -> list[Path]:
    """Return all pages whose code must run."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def tokens(page: Path) -> list[Token]:
    """Return the page's markup, without its front matter."""
    return MarkdownIt().parse(page.read_text())


def programs(page: Path) -> list[Program]:
    """Return the programs of a page, in order, without empty ones."""
    found = [Program(page, _FIRST)]
    file = ""
    for token in tokens(page):
        if token.type == "html_block" and (comment := _COMMENT.match(token.content)):
            words = comment[2].split()
            if comment[1] == "file":
                file = words[0]
            else:
                environ = dict(word.split("=", 1) for word in words[1:])
                found.append(Program(page, words[0], environ))
        elif token.type == "fence" and token.info.strip() == "python":
            assert token.map is not None
            if file:
                found[-1].files[file] = token.content
            else:
                found[-1].add(token.content, token.map[0] + 1)
            file = ""
    return [program for program in found if program.lines]


def commands(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the commands in the page's shell blocks with their line numbers."""
    for token in tokens(page):
        if token.type == "fence" and token.info.strip() in CONSOLE:
            assert token.map is not None
            prompts = any(line.startswith("$ ") for line in token.content.splitlines())
            for number, line in enumerate(token.content.splitlines(), token.map[0] + 2):
                if line.startswith("$ ") or (line.strip() and not prompts):
                    yield number, line.removeprefix("$ ")
