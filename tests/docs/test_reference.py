"""Every public name has a docstring and an entry in the API reference."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from inspect import ismodule
from typing import Any, Final

import psycopg2.errors
import psycopg2.extras
import psycopg2.pool
import pytest

from .pages import DOCS

MODULES: Final = (
    "greenpg",
    "greenpg.backend",
    "greenpg.celery",
    "greenpg.conformance",
    "greenpg.connection",
    "greenpg.copy",
    "greenpg.cursor",
    "greenpg.django",
    "greenpg.doctor",
    "greenpg.embedded",
    "greenpg.errors",
    "greenpg.lobject",
    "greenpg.metrics",
    "greenpg.monitor",
    "greenpg.multiplexer",
    "greenpg.notify",
    "greenpg.otel",
    "greenpg.patch",
    "greenpg.pipeline",
    "greenpg.pool",
    "greenpg.psycopg3",
    "greenpg.replication",
    "greenpg.sqlalchemy",
    "greenpg.sqlalchemy.psycopg3",
    "greenpg.stalls",
    "greenpg.sync",
    "greenpg_eventlet",
    "greenpg_gevent",
)
INTERNAL: Final = {
    "choose",
    "chosen",
    "counts",
    "has_ended",
    "is_stranded",
    "parking",
    "soon",
    "FileTransfer",
    "command",
}  # for greenpg's own modules
PSYCOPG2: Final = (psycopg2, psycopg2.errors, psycopg2.extras, psycopg2.pool)
REFERENCE: Final = (DOCS / "api.md").read_text()
MODULE: Final = r"^\.\. py:(?:current)?module:: (\S+)$"
ENTRY: Final = r"^\.\. auto\w+:: ([\w.]+)"
MENTIONED: Final = frozenset(re.findall(r"`(greenpg\w*\.[\w.]+)`", REFERENCE))


def entries() -> Iterator[str]:
    """Yield the full names of the page's entries."""
    module = ""
    for found in re.finditer(f"{MODULE}|{ENTRY}", REFERENCE, re.M):
        module = found[1] or module
        if name := found[2]:
            yield name if name.startswith("greenpg") else f"{module}.{name}"


ENTRIES: Final = frozenset(entries())


def ours(value: object) -> bool:
    owner = getattr(value, "__module__", None) or ""
    return owner.startswith("greenpg") and callable(value)


def is_ours(name: str, value: object) -> bool:
    return ours(value) or not (ismodule(value) or any(hasattr(one, name) for one in PSYCOPG2))


def public(module: str) -> dict[str, Any]:
    """Return the public names that are greenpg's own, and what they stand for."""
    found = import_module(module)
    values = {name: getattr(found, name) for name in found.__all__ if name not in INTERNAL}
    return {name: value for name, value in values.items() if is_ours(name, value)}


def resolved(full: str) -> Any:
    module, _, name = full.rpartition(".")
    return getattr(import_module(module), name)


@pytest.mark.parametrize("module", MODULES)
def test_public_names_have_docstrings(module):
    values = {name: value for name, value in public(module).items() if ours(value)}

    assert [name for name, value in values.items() if not inspect.getdoc(value)] == []


@pytest.mark.parametrize("module", MODULES)
def test_public_names_are_in_the_reference(module):
    elsewhere = [resolved(name) for name in ENTRIES]
    missing = [
        name
        for name, value in public(module).items()
        if f"{module}.{name}".replace("greenpg_eventlet", "greenpg_gevent")
        not in ENTRIES | MENTIONED
        and not (ours(value) and value in elsewhere)
    ]

    assert missing == [], "docs/api.md does not have these"
