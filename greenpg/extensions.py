"""psycopg2.extensions, with the green classes in place of the C ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psycopg2 import extensions as _ext
from psycopg2.extensions import *  # noqa: F403  psycopg2's names

from ._wait import wait_callback as _wait_callback
from .connection import Connection
from .cursor import Cursor

connection = Connection  # type: ignore[misc]  # in place of psycopg2's
cursor = Cursor  # type: ignore[misc]
__all__ = [name for name in dir(_ext) if not name.startswith("_")]


def set_wait_callback(  # type: ignore[no-redef]  # in place of psycopg2's
    callback: Callable[[Any], object] | None,
) -> None:
    """Let `callback(conn)` drive every wait of the process, as psycopg2's own function does.

    It calls `conn.poll()` until that returns POLL_OK, waiting for `conn.fileno()` in between;
    what it raises closes the connection. None puts greenpg's callback back.
    """
    _ext.set_wait_callback(_wait_callback if callback is None else callback)


get_wait_callback = _ext.get_wait_callback
