"""The dialect: SQLAlchemy's psycopg2 dialect over greenpg."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Final

from sqlalchemy import event
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

import greenpg
from greenpg import extensions, extras
from greenpg.sync import must_roll_back

from ._pool import GreenQueuePool
from ._records import intact

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import ExceptionContext

IDLE: Final = extensions.TRANSACTION_STATUS_IDLE


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
        """Register the handler that keeps interrupted connections."""
        event.listen(engine, "handle_error", _keep_connection)

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


def _commits_nothing(conn: greenpg.Connection) -> bool:
    """Return True if the connection is open and its next COMMIT is refused or commits nothing."""
    if not intact(conn):
        return False
    return must_roll_back(conn) or (conn.autocommit and conn.get_transaction_status() == IDLE)
