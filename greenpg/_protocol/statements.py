"""How SQL statements begin."""

from __future__ import annotations

import re
from typing import Any, Final

# A comment's newline belongs to it: without, "--copy" could be read as "--" and a statement.
BEFORE: Final = r"(?:\s|--[^\n]*\n|/\*(?:[^*]|\*(?!/))*\*/)*"
_ROLLBACK: Final = re.compile(BEFORE + r"(?:rollback|abort)\b", re.I)


def rolls_back(text: str) -> bool:
    """Return True if an SQL statement begins with ROLLBACK or ABORT."""
    return _ROLLBACK.match(text) is not None


def beginning(statement: Any, composed: Any, sql: Any) -> str:
    """Return a statement's text as far as its first part, given a driver's Composed and SQL."""
    while isinstance(statement, composed):
        statement = next(iter(statement), "")
    if isinstance(statement, sql):
        statement = statement.as_string(None)
    if isinstance(statement, bytes):
        statement = statement.decode("utf-8", "replace")
    return statement if isinstance(statement, str) else ""
