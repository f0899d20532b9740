"""The end of a session whose connection cannot be closed in C, since a task keeps it there."""

from __future__ import annotations

import os
from contextlib import closing, suppress
from typing import Any

from psycopg2 import Error

from .cancel import cancel_block


def hang_up(conn: Any) -> None:
    """End the session without entering C: cancel what runs, then shut the socket for sending.

    The task that keeps the connection, if it comes back, meets a closed one.
    """
    with suppress(Error, OSError):
        cancel_block(conn)
        import _socket  # late: importing greenpg must not load it before a monkey-patch

        with closing(_socket.socket(fileno=os.dup(conn.fileno()))) as sock:
            sock.shutdown(_socket.SHUT_WR)
