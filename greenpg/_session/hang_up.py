"""The end of a session whose connection cannot be closed, since a task keeps it."""

from __future__ import annotations

import os
from contextlib import closing


def hang_up(fd: int) -> None:
    """Shut the socket for sending, which ends the session.

    The task that keeps the connection, if it comes back, meets a closed one.
    """
    import _socket  # late: importing greenpg must not load it before a monkey-patch

    with closing(_socket.socket(fileno=os.dup(fd))) as sock:
        sock.shutdown(_socket.SHUT_WR)
