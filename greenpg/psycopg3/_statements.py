"""Which statements end a transaction that was interrupted."""

from __future__ import annotations

import re
from typing import Any, Final

from psycopg.sql import SQL, Composed

_ROLLBACK: Final = re.compile(
    r"(?:\s|--[^\n]*\n|/\*(?:[^*]|\*(?!/))*\*/)*(?:rollback|abort)\b", re.I | re.S
)
_CLOSE: Final = re.compile(r"CLOSE |SELECT 1 FROM pg_catalog\.pg_cursors ")  # psycopg's own


def is_rollback(statement: Any) -> bool:
    """Return True if an SQL statement begins with ROLLBACK or ABORT."""
    return _ROLLBACK.match(_beginning(statement)) is not None


def is_close(statement: Any) -> bool:
    """Return True for what psycopg sends to close a server-side cursor.

    An interrupted transaction admits it: a cursor's block that ends must not hide the interrupt.
    """
    return _CLOSE.match(_beginning(statement)) is not None


def _beginning(statement: Any) -> str:
    while isinstance(statement, Composed):
        statement = next(iter(statement), "")
    if isinstance(statement, SQL):
        statement = statement._obj
    if isinstance(statement, bytes):
        statement = statement.decode("utf-8", "replace")
    return statement if isinstance(statement, str) else ""
