"""The dialect: SQLAlchemy's psycopg2 dialect over greenpg."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from sqlalchemy import event
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.util import memoized_property

import greenpg

from ._pool import GreenQueuePool
from ._records import intact

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine
    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.pool import Pool

__all__ = ["GreenDialect"]


class GreenDialect(PGDialect_psycopg2):
    """`create_engine("postgresql+greenpg://...")`: the psycopg2 dialect, with its options.

    After a timeout or kill during a statement the query is cancelled, and the connection returns
    to the pool after a rollback. After one during a COMMIT or another end of a transaction the
    connection is closed, as SQLAlchemy does in every case.
    """

    driver = "greenpg"
    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> ModuleType:
        """Return greenpg."""
        return greenpg

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:
        """Return `GreenQueuePool`."""
        return GreenQueuePool

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        """Listen for errors, to keep interrupted connections."""
        event.listen(engine, "handle_error", _spare)

    @classmethod
    def load_provisioning(cls) -> None:
        """Load what SQLAlchemy's own test suite needs for PostgreSQL."""
        PGDialect_psycopg2.load_provisioning()  # type: ignore[no-untyped-call]  # as it is there

    @memoized_property
    def _psycopg2_extensions(self) -> ModuleType:
        return greenpg.extensions

    @memoized_property
    def _psycopg2_extras(self) -> ModuleType:
        return greenpg.extras


def _spare(context: ExceptionContext) -> None:
    """Keep a connection on which an exit such as gevent.Timeout interrupted a statement.

    Outside a statement it has interrupted the end of a transaction; after that, `close()` of
    SQLAlchemy before 2.1 returns the connection only if it has been invalidated.
    """
    outer = context.connection
    if outer is None or context.execution_context is None or not context.is_disconnect:
        return
    if isinstance(context.original_exception, greenpg.Error) or outer.invalidated:
        return
    conn = outer.connection.dbapi_connection
    context.is_disconnect = not (isinstance(conn, greenpg.Connection) and intact(conn))
