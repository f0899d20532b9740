"""What tests must read or set of a connection and greenpg's public API does not offer."""

from __future__ import annotations

from typing import Any

__all__ = ["set_cancel_timeout", "waiting_tasks", "waits_for_input"]


def waiting_tasks(conn: Any) -> int:
    """Return how many tasks wait for the connection's lock."""
    return len(conn._greenpg_state.queue)


def waits_for_input(conn: Any) -> bool:
    """Return True while a task waits for the server outside of psycopg2's C code."""
    return bool(conn._greenpg_state.waiting_outside)


def set_cancel_timeout(conn: Any, seconds: float) -> None:
    """Limit how long cancelling a query of this connection may take."""
    conn._greenpg_state.cancel_timeout = seconds
