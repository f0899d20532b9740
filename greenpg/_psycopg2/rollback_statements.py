"""Which statements end a transaction that was interrupted."""

from __future__ import annotations

import re
from typing import Any, Final

from psycopg2.sql import SQL, Composed

from greenpg._protocol.statements import BEFORE

_ROLLBACK: Final = re.compile(BEFORE + r"(?:rollback|abort)\b", re.I)


def is_rollback(statement: Any) -> bool:
    """Return True if an SQL statement begins with ROLLBACK or ABORT."""
    while isinstance(statement, Composed):
        statement = next(iter(statement), "")
    if isinstance(statement, SQL):
        statement = statement.string
    if isinstance(statement, bytes):
        statement = statement.decode("utf-8", "replace")
    return isinstance(statement, str) and _ROLLBACK.match(statement) is not None
