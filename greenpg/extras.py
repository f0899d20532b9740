"""psycopg2.extras, with green classes under its cursors and connections."""

from typing import TYPE_CHECKING

from psycopg2 import extras as _extras
from psycopg2._psycopg import connection as _c_connection
from psycopg2._psycopg import cursor as _c_cursor
from psycopg2.extras import *  # noqa: F403  psycopg2's names

from . import replication as _replication  # noqa: F401  it names the green replication cursor
from .connection import green_connection_class as _green_connection_class
from .cursor import green_cursor_class as _green_cursor_class

__all__ = [name for name in dir(_extras) if not name.startswith("_")]

if not TYPE_CHECKING:
    for _name in __all__:
        _class = getattr(_extras, _name)
        if isinstance(_class, type) and issubclass(_class, _c_cursor):
            globals()[_name] = _green_cursor_class(_class)
        elif isinstance(_class, type) and issubclass(_class, _c_connection):
            globals()[_name] = _green_connection_class(_class)
