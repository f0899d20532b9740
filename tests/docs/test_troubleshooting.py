"""The error texts that docs/troubleshooting.md quotes exist where its headings say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg2._psycopg
import pytest

from greenpg.embedded._server import _binaries

from .pages import DOCS, ROOT

PACKAGES: Final = ("greenpg", "greenpg_eventlet", "greenpg_gevent")
PLACEHOLDER: Final = re.compile(r"%(?:\.\d)?[dfrs]")  # of a text for the log
SECTIONS: Final = re.split(r"^## ", (DOCS / "troubleshooting.md").read_text(), flags=re.M)
QUOTED: Final = re.compile(r"^\| `([^`]+)` \|", re.M)


def quoted(of_whom: str) -> list[str]:
    """Return the texts of the section about somebody's errors."""
    heading = f"By the text of {of_whom} errors"
    return next(QUOTED.findall(text) for text in SECTIONS if text.startswith(heading))


def literals() -> Iterator[str]:
    """Yield the texts in greenpg's sources, with `...` in place of what is put into them."""
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(_part(value) for value in node.values)
                elif isinstance(node, ast.Constant):
                    yield _part(node)


def _part(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return PLACEHOLDER.sub("...", str(node.value))
    return "..."


@pytest.fixture(scope="module")
def ours() -> list[str]:
    return list(literals())


@pytest.mark.parametrize("text", quoted("greenpg's"))
def test_text_is_in_the_sources(text, ours):
    assert any(text in literal for literal in ours)


@pytest.mark.parametrize("text", quoted("psycopg2's"))
def test_text_is_psycopg2s(text):
    assert text.encode() in Path(psycopg2._psycopg.__file__).read_bytes()


@pytest.mark.parametrize("text", quoted("the server's"))
def test_text_is_the_servers(text):
    assert text.encode() in (_binaries(16) / "postgres").read_bytes()
