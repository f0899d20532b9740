"""psycopg2 as Django's wrapper requires it: the module greenpg, and JSON left to JSONField."""

from __future__ import annotations

from typing import Any, Final

from psycopg2.extras import register_default_jsonb

import greenpg

DRIVER: Final = "psycopg2"  # its name for ConnectionPool
Database: Final = greenpg


def leave_json(connection: Any) -> None:
    """Leave the decoding of JSON to Django's JSONField, as Django does on its own connections."""
    register_default_jsonb(conn_or_curs=connection, loads=_as_it_is)


def as_green(cursor: Any) -> Any:
    """Return the cursor: those of a green connection are green."""
    return cursor


def _as_it_is(text: str) -> str:
    return text
