"""Every public name has a docstring and an entry in the API reference."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from typing import Final

import pytest

from .pages import DOCS

MODULES: Final = (
    "greenpg",
    "greenpg.backend",
    "greenpg.celery",
    "greenpg.conformance",
    "greenpg.django",
    "greenpg.doctor",
    "greenpg.embedded",
    "greenpg.errors",
    "greenpg.metrics",
    "greenpg.notify",
    "greenpg.patch",
    "greenpg.pipeline",
    "greenpg.pool",
    "greenpg.psycopg3",
    "greenpg.replication",
    "greenpg.sqlalchemy",
    "greenpg.sqlalchemy.psycopg3",
    "greenpg.sync",
    "greenpg_eventlet",
    "greenpg_gevent",
)
INTERNAL: Final = {
    "as_backend",
    "choose",
    "chosen",
    "has_ended",
    "is_stranded",
    "parking",
    "soon",
    "server_dsn",
}  # for greenpg's own modules
REFERENCE: Final = (DOCS / "api.md").read_text()
LISTED: Final = set(re.findall(r"auto\w+:: (?:\w+\.)*(\w+)|`(?:\w+\.)*(\w+)`", REFERENCE))
NAMES: Final = {name for pair in LISTED for name in pair if name}


def ours(value: object) -> bool:
    owner = getattr(value, "__module__", None) or ""
    return owner.startswith("greenpg") and (inspect.isclass(value) or inspect.isfunction(value))


@pytest.mark.parametrize("module", MODULES)
def test_public_names_are_documented(module):
    found = import_module(module)
    names = [name for name in found.__all__ if ours(getattr(found, name)) and name not in INTERNAL]

    assert [name for name in names if not inspect.getdoc(getattr(found, name))] == []
    assert [name for name in names if name not in NAMES] == [], "docs/api.md does not have these"
