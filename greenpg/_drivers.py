"""The drivers by their names: a room's module about each, which is imported when it is needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

PSYCOPG2: Final = "psycopg2"
PSYCOPG: Final = "psycopg"
_MODULES: Final = {PSYCOPG2: "_psycopg2", PSYCOPG: "_psycopg3"}


def driver_named(name: str, room: str) -> Any:
    """Return a room's DRIVER; ValueError for an unknown name, ImportError for a missing driver."""
    module = _MODULES.get(name) if isinstance(name, str) else None
    if module is None:
        raise ValueError(f"driver={name!r}: give {PSYCOPG2!r} or {PSYCOPG!r}")
    return import_module(f"{room}.{module}").DRIVER
