"""`patch_psycopg` and `unpatch_psycopg` for plug-ins: they make psycopg2's own names green."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import psycopg2.extensions
import psycopg2.extras
import psycopg2.sql
from psycopg2._psycopg import connection as c_connection
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

_C_CLASSES: Final = {"connection": c_connection, "cursor": c_cursor, "lobject": c_lobject}
_GREEN_CLASSES: Final = {"connection": Connection, "cursor": Cursor, "lobject": Lobject}


class _Extensions:
    """psycopg2.extensions for psycopg2.sql, whose `isinstance` has to know plain objects too."""

    connection = c_connection
    cursor = c_cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(psycopg2.extensions, name)


_extensions: Final = _Extensions()


def patcher(backend: Backend) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return `patch_psycopg` and `unpatch_psycopg` for a plug-in's backend."""

    def patch_psycopg() -> None:
        """Make the connections of `psycopg2.connect` green, sharable and interruptible from now on.

        Idempotent. Existing connections stay as they are, but wait through this backend.
        """
        use(backend)
        install()
        hook(True)
        _replace_classes(_GREEN_CLASSES, green_class, _extensions)

    def unpatch_psycopg() -> None:
        """Undo `patch_psycopg`; existing green connections stay green."""
        if chosen() is backend:
            choose(None)
        hook(False)
        _replace_classes(_C_CLASSES, original_class, psycopg2.extensions)

    return patch_psycopg, unpatch_psycopg


def _replace_classes(
    classes: Mapping[str, type], class_of: Callable[[Any], Any], extensions: Any
) -> None:
    """Replace the classes behind psycopg2's names by those that its objects will have."""
    for name, value in classes.items():
        setattr(psycopg2.extensions, name, value)
    psycopg2.sql.ext = extensions  # type: ignore[attr-defined]  # an import, not in its stubs
    for name, value in list(vars(psycopg2.extras).items()):
        if not name.startswith("_"):
            setattr(psycopg2.extras, name, class_of(value))
