"""psycopg2.extensions, with the green classes in place of the C ones."""

from __future__ import annotations

from psycopg2 import extensions as _ext
from psycopg2.extensions import *  # noqa: F403  psycopg2's names

from ._psycopg2.wait_callback import set_wait_callback as _set_wait_callback
from .connection import Connection
from .cursor import Cursor
from .lobject import Lobject

connection = Connection  # type: ignore[misc]  # in place of psycopg2's
cursor = Cursor  # type: ignore[misc]
lobject = Lobject  # type: ignore[misc]
__all__ = [name for name in dir(_ext) if not name.startswith("_")]


set_wait_callback = _set_wait_callback
get_wait_callback = _ext.get_wait_callback
