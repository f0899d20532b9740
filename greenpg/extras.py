"""psycopg2.extras, with green classes under its cursors, connections and large objects."""

from typing import TYPE_CHECKING

from psycopg2 import extras as _extras
from psycopg2.extras import *  # noqa: F403  psycopg2's names

from . import replication as _replication
from ._green_classes import green_class as _green_class

__all__ = [name for name in dir(_extras) if not name.startswith("_")]

if not TYPE_CHECKING:
    for _name in __all__:
        globals()[_name] = getattr(_replication, _name, _green_class(getattr(_extras, _name)))
