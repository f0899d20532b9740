"""What a plug-in's `patch_psycopg` is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg2.extensions
from psycopg2._psycopg import cursor as c_cursor

from . import _connect, _wait
from .backend import Backend, choose, chosen
from .connection import Connection
from .cursor import Cursor

__all__ = ["patcher"]


class _AnyCursor(type):
    """Cursors of plain connections stay instances of `psycopg2.extensions.cursor`."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return super().__instancecheck__(instance) or (
            cls is PatchedCursor and isinstance(instance, c_cursor)
        )

    def __subclasscheck__(cls, subclass: type) -> bool:
        return super().__subclasscheck__(subclass) or (
            cls is PatchedCursor and issubclass(subclass, c_cursor)
        )


class PatchedCursor(Cursor, metaclass=_AnyCursor):
    """Stands for `psycopg2.extensions.cursor`, so that `extensions.cursor(conn)` is guarded."""


def patcher(backend: Backend) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return `patch_psycopg` and `unpatch_psycopg` for a plug-in's backend."""

    def patch_psycopg() -> None:
        """Make what `psycopg2.connect` returns from now on green, sharable and interruptible.

        Idempotent. Connections that exist stay as they are, but wait through this backend.
        """
        _connect.use(backend)
        _wait.install()
        _connect.hook(True)
        Connection.default_cursor_factory = PatchedCursor
        psycopg2.extensions.cursor = PatchedCursor  # type: ignore[misc]  # the patch

    def unpatch_psycopg() -> None:
        """Undo `patch_psycopg`; green connections that exist stay green."""
        if chosen() is backend:
            choose(None)
        _connect.hook(False)
        Connection.default_cursor_factory = Cursor
        psycopg2.extensions.cursor = c_cursor  # type: ignore[misc]  # the patch

    return patch_psycopg, unpatch_psycopg
