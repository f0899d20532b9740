"""psycopg2.sql."""

from psycopg2 import sql as _sql
from psycopg2.sql import *  # noqa: F403  psycopg2's names

__all__ = [name for name in dir(_sql) if not name.startswith("_")]
