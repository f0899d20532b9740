"""What all greenpg dialects do about interrupts; it knows no driver."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sqlalchemy import event
from sqlalchemy.dialects.postgresql.base import PGDialect

from greenpg.sync import ConnectionLock, is_green, must_roll_back

from ._pool import GreenQueuePool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine
    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.pool import PoolProxiedConnection

ROLLBACK_SECONDS: Final = 5.0  # the wait for another task that keeps the connection
IDLE: Final = 0  # libpq's PGTransactionStatusType, in `conn.info` of either driver
EXECUTING: Final = (1, 4)  # ACTIVE, and UNKNOWN


class KeptByTask(Exception):
    """A rollback has waited in vain for another task that uses the connection.

    Each dialect's own class is its driver's OperationalError too.
    """


class GreenRules(PGDialect):
    """A PostgreSQL dialect on greenpg connections.

    A timeout or kill during a statement does not lose the connection: greenpg cancels the query,
    and the connection goes back to the pool after a rollback. A timeout or kill during a COMMIT or
    another end of a transaction closes the connection, as SQLAlchemy does after every exit
    (sqlalchemy/engine/base.py, `is_exit_exception`).
    """

    supports_statement_cache = True
    poolclass = GreenQueuePool
    kept_by_task: ClassVar[type[KeptByTask]]

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        """Register the handlers that decide which connections outlive an error."""
        event.listen(engine, "handle_error", _keep_connection)
        event.listen(engine, "handle_error", _drop_connection)

    def do_rollback(self, dbapi_connection: PoolProxiedConnection) -> None:
        """Roll back; KeptByTask if another task keeps the connection for 5 s, or has ended."""
        conn = dbapi_connection.dbapi_connection
        with self._held(conn) if is_green(conn) else nullcontext():
            super().do_rollback(dbapi_connection)  # type: ignore[no-untyped-call]  # as it is there

    @classmethod
    def load_provisioning(cls) -> None:
        """Load the PostgreSQL provisioning that SQLAlchemy's own test suite requires."""
        PGDialect.load_provisioning()  # type: ignore[no-untyped-call]  # as it is there

    @contextmanager
    def _held(self, conn: Any) -> Iterator[None]:
        lock = ConnectionLock(conn)
        try:
            lock.acquire(ROLLBACK_SECONDS)
        except self.loaded_dbapi.Error as error:
            text = f"the connection cannot be rolled back: {error}"
            raise self.kept_by_task(text) from error
        try:
            yield
        finally:
            lock.release()


def _keep_connection(context: ExceptionContext) -> None:
    """Keep the connection if an exit such as gevent.Timeout cannot lead to half a commit.

    An exit in an event listener, for one, leaves a transaction in which a statement may be missing.
    SQLAlchemy's own answer, to close the connection, is the right one there.

    Outside a statement, the exit interrupted the end of a transaction. After that, `close()` of
    SQLAlchemy before 2.1 returns the connection to the pool only if it has been invalidated
    (tested by test_a_kill_in_a_commit_costs_no_slot).
    """
    outer = context.connection
    if outer is None or context.execution_context is None or not context.is_disconnect:
        return
    if isinstance(context.original_exception, context.dialect.loaded_dbapi.Error):
        return
    if not outer.invalidated:
        context.is_disconnect = not _commits_nothing(outer.connection.dbapi_connection)


def _drop_connection(context: ExceptionContext) -> None:
    """Close a connection that another task keeps: SQLAlchemy would try again to roll it back."""
    if isinstance(context.original_exception, KeptByTask):
        context.is_disconnect, context.invalidate_pool_on_disconnect = True, False


def _commits_nothing(conn: Any) -> bool:
    """Return True if the connection is open and its next COMMIT is refused or commits nothing."""
    if not is_green(conn) or conn.closed or conn.info.transaction_status in EXECUTING:
        return False
    return must_roll_back(conn) or (conn.autocommit and conn.info.transaction_status == IDLE)
