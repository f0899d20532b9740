"""The end of a session whose connection cannot be closed in C, since a task keeps it there."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from psycopg2 import Error

from greenpg._session.hang_up import hang_up as shut_for_sending

from .cancel import cancel_block


def hang_up(conn: Any) -> None:
    """End the session without entering C: cancel what runs, then shut the socket for sending."""
    with suppress(Error, OSError):
        cancel_block(conn)
        shut_for_sending(conn.fileno())
