"""Connections for Celery's tasks, given back when the task ends."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery import current_task
from celery.signals import task_postrun
from psycopg2 import ProgrammingError
from psycopg2.extensions import STATUS_READY

if TYPE_CHECKING:
    from .pool import ConnectionPool

__all__ = ["TaskConnection"]

log = logging.getLogger("greenpg.celery")


class TaskConnection:
    """Calling it gives the running task's connection: `db = TaskConnection(pool)`, then `db()`.

    The connection is borrowed at a task's first call and goes back to the pool when the task
    ends, also by a failure, a time limit or a revoke. The task commits; what it has not
    committed by then is rolled back.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._lent: dict[str, Any] = {}
        task_postrun.connect(self._give_back, weak=False)

    def __call__(self, timeout: float | None = None) -> Any:
        """Return the task's connection; the first call of a task waits as `getconn` does.

        ProgrammingError outside a task.
        """
        task = current_task.request.id if current_task else None
        if task is None:
            raise ProgrammingError("no Celery task runs here; use pool.connection() instead")
        if task not in self._lent:
            self._lent[task] = self._pool.getconn(timeout)
        return self._lent[task]

    def _give_back(self, task_id: str, sender: Any = None, **_: object) -> None:
        conn = self._lent.pop(task_id, None)
        if conn is None:
            return
        if conn.status != STATUS_READY and not conn.closed:
            log.warning("task %s ended in a transaction, which is rolled back", sender.name)
        self._pool.putconn(conn)
