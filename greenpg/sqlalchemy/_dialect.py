"""The dialect: SQLAlchemy's psycopg2 dialect over greenpg."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

import greenpg
from greenpg import extensions, extras
from greenpg.pool.condition import end
from greenpg.sync import ConnectionLock, must_roll_back

from ._pool import GreenQueuePool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine
    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.pool import PoolProxiedConnection

ROLLBACK_SECONDS: Final = 5.0  # the wait for another task that keeps the connection
IDLE: Final = extensions.TRANSACTION_STATUS_IDLE
EXECUTING: Final = (extensions.TRANSACTION_STATUS_ACTIVE, extensions.TRANSACTION_STATUS_UNKNOWN)


class KeptByTask(greenpg.OperationalError):
    """A rollback has waited in vain for another task that uses the connection."""


class GreenDialect(PGDialect_psycopg2):
    """`create_engine("postgresql+greenpg://...")`: the psycopg2 dialect, with its options.

    A timeout or kill during a statement does not lose the connection: greenpg cancels the query,
    and the connection goes back to the pool after a rollback. A timeout or kill during a COMMIT or
    another end of a transaction closes the connection, as SQLAlchemy does after every exit
    (sqlalchemy/engine/base.py, `is_exit_exception`).
    """

    driver = "greenpg"
    supports_statement_cache = True
    poolclass = GreenQueuePool
    _psycopg2_extensions = extensions
    _psycopg2_extras = extras

    @classmethod
    def import_dbapi(cls) -> ModuleType:
        """Return the module greenpg."""
        return greenpg

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        """Register the handlers that decide which connections outlive an error."""
        event.listen(engine, "handle_error", _keep_connection)
        event.listen(engine, "handle_error", _drop_connection)

    def do_rollback(self, dbapi_connection: PoolProxiedConnection) -> None:
        """Roll back; KeptByTask if another task keeps the connection for 5 s, or has ended."""
        conn = dbapi_connection.dbapi_connection
        with _held(conn) if isinstance(conn, greenpg.Connection) else nullcontext():
            super().do_rollback(dbapi_connection)  # type: ignore[no-untyped-call]  # as it is there

    def do_close(self, dbapi_connection: Any) -> None:
        """Close a connection, and end its session even if a task keeps it."""
        end(dbapi_connection)

    @classmethod
    def load_provisioning(cls) -> None:
        """Load the PostgreSQL provisioning that SQLAlchemy's own test suite requires."""
        PGDialect_psycopg2.load_provisioning()  # type: ignore[no-untyped-call]  # as it is there


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
    if isinstance(context.original_exception, greenpg.Error) or outer.invalidated:
        return
    conn = outer.connection.dbapi_connection
    context.is_disconnect = not (isinstance(conn, greenpg.Connection) and _commits_nothing(conn))


def _drop_connection(context: ExceptionContext) -> None:
    """Close a connection that another task keeps: SQLAlchemy would try again to roll it back."""
    if isinstance(context.original_exception, KeptByTask):
        context.is_disconnect, context.invalidate_pool_on_disconnect = True, False


@contextmanager
def _held(conn: greenpg.Connection) -> Iterator[None]:
    lock = ConnectionLock(conn)
    try:
        lock.acquire(ROLLBACK_SECONDS)
    except greenpg.Error as error:
        raise KeptByTask(f"the connection cannot be rolled back: {error}") from error
    try:
        yield
    finally:
        lock.release()


def _commits_nothing(conn: greenpg.Connection) -> bool:
    """Return True if the connection is open and its next COMMIT is refused or commits nothing."""
    status = conn.get_transaction_status()
    if conn.closed or status in EXECUTING:
        return False
    return must_roll_back(conn) or (conn.autocommit and status == IDLE)
