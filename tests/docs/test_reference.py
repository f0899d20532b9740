"""What is public is documented: it has a docstring and a place in the API reference."""

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
    "greenpg.embedded",
    "greenpg.errors",
    "greenpg.metrics",
    "greenpg.notify",
    "greenpg.patch",
    "greenpg.pipeline",
    "greenpg.pool",
    "greenpg.replication",
    "greenpg.sync",
    "greenpg_eventlet",
    "greenpg_gevent",
)
INTERNAL: Final = {"as_backend", "choose", "chosen", "server_dsn"}  # for greenpg's own modules
REFERENCE: Final = (DOCS / "api.md").read_text()
LISTED: Final = set(re.findall(r"auto\w+:: (?:\w+\.)*(\w+)|`(?:\w+\.)*(\w+)`", REFERENCE))
NAMES: Final = {name for pair in LISTED for name in pair if name}


def public() -> list[tuple[str, str]]:
    """Modules and names of what is greenpg's own, and has a docstring."""
    return [
        (module, name)
        for module in MODULES
        for name in import_module(module).__all__
        if ours(getattr(import_module(module), name)) and name not in INTERNAL
    ]


def ours(value: object) -> bool:
    owner = getattr(value, "__module__", None) or ""
    return owner.startswith("greenpg") and (inspect.isclass(value) or inspect.isfunction(value))


@pytest.mark.parametrize(("module", "name"), public(), ids=".".join)
def test_public_name_is_documented(module, name):
    value = getattr(import_module(module), name)

    assert inspect.getdoc(value)
    assert name in NAMES, f"docs/api.md does not have {module}.{name}"
