"""psycopg2.tz."""

from psycopg2 import tz as _tz
from psycopg2.tz import *  # noqa: F403  psycopg2's names

__all__ = [name for name in dir(_tz) if not name.startswith("_")]
