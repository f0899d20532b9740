"""The hooks in psycopg: `Connection.connect`, and what an earlier import of it calls."""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from greenpg._green_classes import green_class
from greenpg.backend import current

from ._connect import connect_in_turn
from ._connection import Connection

_connect: Final[Any] = psycopg.Connection.__dict__["connect"]
_connect_gen: Final[Any] = psycopg.Connection._connect_gen.__func__  # type: ignore[attr-defined]


def patch() -> None:
    """Make psycopg's connections green from now on, of its own class and of derived ones."""
    _replace(classmethod(_green_connect))
    psycopg.Connection._connect_gen = classmethod(_green_connect_gen)  # type: ignore[method-assign, assignment]


def unpatch() -> None:
    """Undo `patch`; existing green connections stay green."""
    _replace(_connect)
    if "_connect_gen" in vars(psycopg.Connection):
        del psycopg.Connection._connect_gen


def is_patched() -> bool:
    """Return True if psycopg's connections are made green."""
    return psycopg.Connection.__dict__["connect"] is not _connect


def _replace(connect: Any) -> None:
    psycopg.Connection.connect = connect  # type: ignore[method-assign]
    psycopg.connect = psycopg.Connection.connect


def _green_connect(cls: Any, /, conninfo: str = "", **options: Any) -> Any:
    """Connect to a database server and return a new `Connection` instance."""
    # not by the class's own `connect`: that of a user's class may have called this
    return Connection.connect.__func__(green_class(cls), conninfo, **options)  # type: ignore[attr-defined]


def _green_connect_gen(cls: Any, /, conninfo: str = "", **_: Any) -> Any:
    """Connect as an earlier `from psycopg import connect` does; the waits are the backend's.

    psycopg before 3.3.6 adds its timeout, which `conninfo` has as well.
    """
    green = green_class(cls)
    if cls is green:
        return (yield from _connect_gen(cls, conninfo))
    return connect_in_turn(green, current(), conninfo_to_dict(conninfo))
