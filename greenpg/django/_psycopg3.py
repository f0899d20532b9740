"""psycopg 3 as Django's wrapper requires it: psycopg's names, with greenpg's `connect`."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

from django.db.backends.postgresql import base as postgresql

from greenpg import psycopg3  # first: it says if psycopg is missing or too old

# isort: split
import psycopg

DRIVER: Final = "psycopg"  # its name for ConnectionPool


class _Module(ModuleType):
    """A DB-API module for Django: psycopg, whose connections are greenpg's, patched or not."""

    connect = staticmethod(psycopg3.connect)

    def __getattr__(self, name: str) -> Any:
        return getattr(psycopg, name)


Database: Final = _Module("psycopg")


class ServerSideCursor(postgresql.ServerSideCursor, psycopg3.ServerCursor):  # type: ignore[misc]  # Django has no types
    """Django's cursor in the server, which it makes without asking the connection."""


def leave_json(connection: Any) -> None:
    """Do nothing: Django's adapters leave the decoding of JSON to JSONField."""


def as_green(cursor: Any) -> Any:
    """Return the cursor, with the green class under it if Django has made it itself."""
    if type(cursor) is postgresql.ServerSideCursor:
        cursor.__class__ = ServerSideCursor
    return cursor
