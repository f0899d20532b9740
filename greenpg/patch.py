"""`patch_psycopg` and `unpatch_psycopg` for plug-ins: they make psycopg2's own names green."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg2.extensions
import psycopg2.extras
from psycopg2._psycopg import cursor as c_cursor
from psycopg2._psycopg import lobject as c_lobject

from ._connecting.connect import hook, use
from ._green_classes import green_class, original_class
from ._psycopg2.wait_callback import install
from .backend import Backend, choose, chosen
from .connection import Connection
from .cursor import Cursor
from .lobject import Lobject

__all__ = ["patcher"]


class _StandIn(type):
    """A class whose instances include the objects of its C class, also of plain connections."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return super().__instancecheck__(instance) or isinstance(instance, cls._original())

    def __subclasscheck__(cls, subclass: type) -> bool:
        return super().__subclasscheck__(subclass) or issubclass(subclass, cls._original())

    def _original(cls) -> tuple[type, ...]:
        return (cls.__dict__["original"],) if "original" in cls.__dict__ else ()


class PatchedCursor(Cursor, metaclass=_StandIn):
    """Replaces `psycopg2.extensions.cursor`, so that `extensions.cursor(conn)` is guarded."""

    original = c_cursor


class PatchedLobject(Lobject, metaclass=_StandIn):
    """Replaces `psycopg2.extensions.lobject`; on a plain connection it returns psycopg2's."""

    original = c_lobject

    def __new__(cls, conn: Any, *args: Any, **kwargs: Any) -> Any:
        if cls is PatchedLobject and not hasattr(conn, "_state"):
            return c_lobject(conn, *args, **kwargs)
        return super().__new__(cls)


def patcher(backend: Backend) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return `patch_psycopg` and `unpatch_psycopg` for a plug-in's backend."""

    def patch_psycopg() -> None:
        """Make the connections of `psycopg2.connect` green, sharable and interruptible from now on.

        Idempotent. Existing connections stay as they are, but wait through this backend.
        """
        use(backend)
        install()
        hook(True)
        _replace_classes(PatchedCursor, green_class)

    def unpatch_psycopg() -> None:
        """Undo `patch_psycopg`; existing green connections stay green."""
        if chosen() is backend:
            choose(None)
        hook(False)
        _replace_classes(Cursor, original_class)
        psycopg2.extensions.cursor = c_cursor  # type: ignore[misc]  # the patch
        psycopg2.extensions.lobject = c_lobject  # type: ignore[misc]  # the patch

    return patch_psycopg, unpatch_psycopg


def _replace_classes(default: type[Cursor], class_of: Callable[[Any], Any]) -> None:
    """Replace the classes behind psycopg2's names by those that its objects will have."""
    Connection.default_cursor_factory = default
    psycopg2.extensions.cursor = default  # type: ignore[misc]  # the patch
    psycopg2.extensions.lobject = PatchedLobject  # type: ignore[misc]  # the patch
    for name, value in list(vars(psycopg2.extras).items()):
        if not name.startswith("_"):
            setattr(psycopg2.extras, name, class_of(value))
