"""The dialect `postgresql+greenpg://`: SQLAlchemy's psycopg2 dialect over greenpg."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

import greenpg
from greenpg import extensions, extras
from greenpg.pool.condition import end

from . import _rules


class KeptByTask(_rules.KeptByTask, greenpg.OperationalError):
    """A rollback has waited in vain for another task that uses the connection."""


class GreenDialect(_rules.GreenRules, PGDialect_psycopg2):
    """`create_engine("postgresql+greenpg://...")`: the psycopg2 dialect, with its options."""

    driver = "greenpg"
    supports_statement_cache = True
    kept_by_task = KeptByTask
    _psycopg2_extensions = extensions
    _psycopg2_extras = extras

    @classmethod
    def import_dbapi(cls) -> ModuleType:
        """Return the module greenpg."""
        return greenpg

    def do_close(self, dbapi_connection: Any) -> None:
        """Close a connection, and end its session even if a task keeps it."""
        end(dbapi_connection)
