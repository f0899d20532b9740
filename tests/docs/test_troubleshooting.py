"""The error texts that docs/troubleshooting.md quotes exist where its headings say.

All of greenpg's warnings, and what it logs as a warning or an error, are there.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import psycopg2._psycopg
import pytest

from greenpg.embedded._server import _binaries

from .pages import DOCS, ROOT

PACKAGES: Final = ("greenpg", "greenpg_autopatch", "greenpg_eventlet", "greenpg_gevent")
WARNS: Final = re.compile(r"(log|logger|warnings)\.(warning|error|log|warn)$")
PLACEHOLDER: Final = re.compile(r"%(?:\.\d)?[dfrs]")  # of a text for the log
SECTIONS: Final = re.split(r"^## ", (DOCS / "troubleshooting.md").read_text(), flags=re.M)
QUOTED: Final = re.compile(r"^\| `([^`]+)` \|", re.M)


def quoted(of_whom: str) -> list[str]:
    """Return the texts of the section about somebody's errors."""
    heading = f"By the text of {of_whom} errors"
    return next(QUOTED.findall(text) for text in SECTIONS if text.startswith(heading))


def nodes() -> Iterator[ast.AST]:
    """Yield all nodes of greenpg's sources."""
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            yield from ast.walk(ast.parse(file.read_text()))


def literals(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the texts among nodes, with `...` in place of what is put into them."""
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield "".join(_part(value) for value in node.values)
        elif isinstance(node, ast.Constant):
            yield _part(node)


def _part(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return PLACEHOLDER.sub("...", str(node.value))
    return "..."


def warnings() -> list[str]:
    """Return the texts that are given as literals to `warnings.warn` and to a log."""
    calls = [node for node in nodes() if isinstance(node, ast.Call)]
    warned = [call.args[:2] for call in calls if WARNS.match(ast.unparse(call.func))]
    return [text for arguments in warned for text in literals(arguments) if text != "..."]


@pytest.fixture(scope="module")
def ours() -> list[str]:
    return list(literals(nodes()))


@pytest.mark.parametrize("text", quoted("greenpg's"))
def test_text_is_in_the_sources(text, ours):
    assert any(text in literal for literal in ours)


@pytest.mark.parametrize("text", quoted("psycopg2's"))
def test_text_is_psycopg2s(text):
    assert text.encode() in Path(psycopg2._psycopg.__file__).read_bytes()


@pytest.mark.parametrize("text", quoted("the server's"))
def test_text_is_the_servers(text):
    assert text.encode() in (_binaries(16) / "postgres").read_bytes()


@pytest.mark.parametrize("warning", warnings())
def test_warning_is_explained(warning):
    assert any(text in warning for text in quoted("greenpg's"))
