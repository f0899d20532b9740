"""Whether a transaction still goes on, by the count of transactions that psycopg2 keeps."""

from __future__ import annotations

from typing import Any

from psycopg2 import Error

from .psycopg2_c import c_cursor, execute


class TransactionMark:
    """Marks the open transaction, or the one that the next statement begins."""

    def __init__(self, conn: Any) -> None:
        self._cur = c_cursor(conn, "mark")

    def is_current(self) -> bool:
        """Return True if neither commit nor rollback has come since.

        A named cursor compares its `mark`, a count of transactions, with the connection's before it
        looks at the statement (EXC_IF_NO_MARK in psycopg2's psycopg/cursor.h). So it raises
        TypeError for the statement 1 if they are equal, and ProgrammingError if not.
        """
        try:
            execute(self._cur, 1)
        except TypeError:
            return True
        except Error:
            return False
        raise AssertionError("psycopg2 took a number for a statement")
