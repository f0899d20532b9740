"""Which statements end a transaction that was interrupted."""

from __future__ import annotations

from typing import Any

from psycopg2.sql import SQL, Composed

from greenpg._protocol.statements import beginning, rolls_back


def is_rollback(statement: Any) -> bool:
    """Return True if an SQL statement begins with ROLLBACK or ABORT."""
    return rolls_back(beginning(statement, Composed, SQL))
