"""`close()` of a connection on which another task waits."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from psycopg import Error

from greenpg._session.closing import close_after
from greenpg._session.hang_up import hang_up
from greenpg._session.session import CLOSE_TIMEOUT

from ._cancelling import cancel_query

if TYPE_CHECKING:
    from ._state import State


def close_for_another(conn: Any, state: State) -> None:
    """Close once the other task is out of libpq, unless it has closed; it may keep the lock."""
    close_after(state, conn, partial(state.shut, conn.pgconn), partial(_hang_up, conn, state))


def _hang_up(conn: Any, state: State) -> None:
    """End the session without libpq: cancel what runs, then shut the socket for sending."""
    with suppress(Error, OSError):
        state.bounded(None, CLOSE_TIMEOUT, partial(cancel_query, state, conn.pgconn))
        hang_up(state.fd)
