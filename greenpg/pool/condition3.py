"""Which connections may be lent, for all pools of psycopg 3's green connections."""

from __future__ import annotations

from typing import Any, Final

from greenpg._session.session import TransactionStatus

from ._connections import BROKEN, CLEAN, DIRTY, Condition

__all__ = ["BROKEN", "CLEAN", "DIRTY", "Condition", "condition"]

IDLE: Final = int(TransactionStatus.IDLE)  # a plain int compares faster: `bench -w pool`
OPEN: Final = (int(TransactionStatus.IN_TRANSACTION), int(TransactionStatus.IN_ERROR))


def condition(conn: Any) -> Condition:
    """Return the condition of a connection that is not in use; does not wait.

    DIRTY: a rollback may make it CLEAN. BROKEN: it is closed, executes something, is in pipeline
    mode, or a task keeps it (`exclusive()`): nobody may have it.
    """
    pgconn = conn.pgconn
    if conn._greenpg_state.holder is not None or pgconn.pipeline_status:
        return BROKEN
    status = pgconn.transaction_status
    if status == IDLE:
        # psycopg refuses others' commits in an unfinished block or two-phase transaction
        return DIRTY if conn._num_transactions or conn._tpc else CLEAN
    return DIRTY if status in OPEN and not conn._closed else BROKEN
