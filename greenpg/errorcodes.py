"""psycopg2.errorcodes."""

from psycopg2 import errorcodes as _errorcodes
from psycopg2.errorcodes import *  # noqa: F403  psycopg2's names

__all__ = [name for name in dir(_errorcodes) if not name.startswith("_")]
