"""The dialect `postgresql+greenpg3://`: SQLAlchemy's psycopg dialect over greenpg."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from greenpg import psycopg3

from . import _rules

if TYPE_CHECKING:
    from sqlalchemy import URL

__all__ = ["GreenDialect3"]


class KeptByTask(_rules.KeptByTask, psycopg.OperationalError):
    """A rollback has waited in vain for another task that uses the connection."""


class GreenDialect3(_rules.GreenRules, PGDialect_psycopg):
    """`create_engine("postgresql+greenpg3://...")`: the psycopg dialect, with its options.

    Its DB-API module is psycopg, whose errors SQLAlchemy knows; `greenpg.psycopg3` connects.
    """

    driver = "greenpg3"
    supports_statement_cache = True
    kept_by_task = KeptByTask

    def connect(self, *args: Any, **options: Any) -> Any:
        """Connect by `greenpg.psycopg3.connect`; `connect_args` may name a backend."""
        return psycopg3.connect(*args, **options)

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> Any:
        """Return this dialect: it has no asynchronous one, as SQLAlchemy's error then says."""
        return cls
