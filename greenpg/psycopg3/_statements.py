"""Which statements end a transaction that was interrupted."""

from __future__ import annotations

import re
from typing import Any, Final

from psycopg.sql import SQL, Composed

from greenpg._protocol.statements import beginning, rolls_back

_CLOSE: Final = re.compile(r"CLOSE |SELECT 1 FROM pg_catalog\.pg_cursors ")  # psycopg's own


def is_rollback(statement: Any) -> bool:
    """Return True if an SQL statement begins with ROLLBACK or ABORT."""
    return rolls_back(beginning(statement, Composed, SQL))


def is_close(statement: Any) -> bool:
    """Return True for what psycopg sends to close a server-side cursor.

    An interrupted transaction admits it: a cursor's block that ends must not hide the interrupt.
    """
    return _CLOSE.match(beginning(statement, Composed, SQL)) is not None
