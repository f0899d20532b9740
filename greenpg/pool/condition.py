"""Which connections may be lent, and the end of others, for all pools of psycopg2's connections."""

from __future__ import annotations

from typing import Any, Final

from psycopg2 import extensions as ext

from greenpg._psycopg2.hang_up import hang_up

from ._connections import BROKEN, CLEAN, DIRTY, Condition

__all__ = ["BROKEN", "CLEAN", "DIRTY", "Condition", "condition", "end"]

READY: Final = ext.STATUS_READY
IDLE: Final = ext.TRANSACTION_STATUS_IDLE
OPEN: Final = (ext.TRANSACTION_STATUS_INTRANS, ext.TRANSACTION_STATUS_INERROR)


def condition(conn: Any) -> Condition:
    """Return the condition of a connection that is not in use; does not wait.

    DIRTY: a rollback may make it CLEAN. BROKEN: it is closed, executes something, is in pipeline
    mode, or a task keeps it (`exclusive()`, an unfinished block or `listen`): nobody may have it.
    A connection that greenpg did not make has no lock that a task could keep.
    """
    try:
        state = conn._greenpg_state_made
        if state.holder is not None or state.sending_blocked:
            return BROKEN
    except AttributeError:
        pass
    status = conn.get_transaction_status()
    if status == IDLE:
        return CLEAN if conn.status == READY else DIRTY
    return BROKEN if conn.closed or status not in OPEN else DIRTY


def end(conn: Any) -> None:
    """Close a connection; end the session from outside C, and raise, if a task keeps it there."""
    try:
        conn.close()
    except Exception:
        hang_up(conn)
        raise
