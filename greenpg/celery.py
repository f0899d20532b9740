"""Connections for Celery tasks, returned to the pool when the task ends."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from celery import current_task
from celery.signals import task_postrun
from psycopg2 import ProgrammingError
from psycopg2.extensions import STATUS_READY

if TYPE_CHECKING:
    from .pool import ConnectionPool

__all__ = ["TaskConnection"]

log = logging.getLogger("greenpg.celery")


class TaskConnection:
    """Returns the running task's connection when called: `db = TaskConnection(pool)`, then `db()`.

    A task's first call borrows the connection from the pool; it goes back when the task ends,
    also if a failure, a time limit or a revoke ends it. The task must commit: an open transaction
    is rolled back at its end.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._lent: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # by execution
        task_postrun.connect(self._give_back, weak=False)

    def __call__(self, timeout: float | None = None) -> Any:
        """Return the task's connection; a task's first call waits up to `timeout` seconds for it.

        Raises what the pool's `getconn` raises, and ProgrammingError outside a task.
        """
        request = _execution(current_task) if current_task else None
        if request is None:
            raise ProgrammingError("no Celery task is running; use pool.connection() instead")
        if request not in self._lent:
            self._lent[request] = self._pool.getconn(timeout)
        return self._lent[request]

    def _give_back(self, sender: Any = None, **_: object) -> None:
        conn = self._lent.pop(_execution(sender), None)
        if conn is None:
            return
        if conn.status != STATUS_READY and not conn.closed:
            log.warning("task %s ended in a transaction, which is rolled back", sender.name)
        self._pool.putconn(conn)


def _execution(task: Any) -> Any:
    """Return the request with which the worker began the running task, None outside a task.

    The task's id does not identify it: a broker may deliver a task again while it runs. Neither
    does the task's current request: a task's `__call__` pushes a copy (celery/app/task.py).
    Both are tested by test_task_delivered_twice_has_two_connections.
    """
    task_id = task.request.id
    if task_id is None:
        return None
    return next(request for request in task.request_stack.stack if request.id == task_id)
