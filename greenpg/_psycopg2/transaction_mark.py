"""Whether a transaction still goes on, by psycopg2's own count."""

from __future__ import annotations

from typing import Any, Final

from psycopg2 import Error
from psycopg2._psycopg import cursor as c_cursor

_execute: Final[Any] = c_cursor.execute


class Mark:
    """Remembers the transaction that goes on, or the one that the next statement begins."""

    def __init__(self, conn: Any) -> None:
        self._cur = c_cursor(conn, "mark")

    def stands(self) -> bool:
        """Tell whether neither commit nor rollback has come since.

        C looks at its count first when a named cursor executes, and only then at the statement.
        """
        try:
            _execute(self._cur, 1)
        except TypeError:
            return True
        except Error:
            return False
        raise AssertionError("psycopg2 took a number for a statement")
