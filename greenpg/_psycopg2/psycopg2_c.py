"""psycopg2's C functions, each named once: they are called past the green classes' methods."""

from __future__ import annotations

from typing import Any, Final

from psycopg2 import OperationalError
from psycopg2._psycopg import _connect as c_connect
from psycopg2._psycopg import connection as c_connection
from psycopg2._psycopg import cursor as c_cursor
from psycopg2._psycopg import lobject as c_lobject

__all__ = [
    "autocommit_of",
    "c_connect",
    "c_connection",
    "c_cursor",
    "c_lobject",
    "checked_poll",
    "close",
    "execute",
    "fetchmany",
    "garbled",
    "poll",
    "rollback",
    "transaction_status",
]

close: Final = c_connection.close
poll: Final = c_connection.poll
rollback: Final = c_connection.rollback
transaction_status: Final = c_connection.get_transaction_status
autocommit_of: Final[Any] = c_connection.autocommit.__get__  # type: ignore[attr-defined]  # C's
execute: Final[Any] = c_cursor.execute
fetchmany: Final[Any] = c_cursor.fetchmany


def garbled(error: UnicodeDecodeError) -> OperationalError:
    """Return the error for libpq's, if its text is not UTF-8: it quotes what the server sent."""
    return OperationalError(error.object.decode("utf-8", "replace"))


def checked_poll(conn: Any) -> int:
    """Call `poll`; garbage from the server raises OperationalError."""
    try:
        return poll(conn)
    except UnicodeDecodeError as error:
        raise garbled(error) from None
