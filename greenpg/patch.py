"""`patch_psycopg`, `patch_psycopg3` and their opposites for plug-ins.

They make the names of psycopg2 and of psycopg 3 green; the latter is imported by the call alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

import psycopg2.extensions
import psycopg2.extras
import psycopg2.sql
from psycopg2._psycopg import connection as c_connection
from psycopg2._psycopg import cursor as c_cursor
from psycopg2._psycopg import lobject as c_lobject

from ._connecting.connect import hook
from ._connecting.default_backend import warn_if_foreign
from ._green_classes import green_class, original_class
from ._psycopg2.wait_callback import install
from .backend import Backend, choose, chosen
from .connection import Connection
from .cursor import Cursor
from .lobject import Lobject

__all__ = ["patcher", "psycopg3_patcher"]

_C_CLASSES: Final = {"connection": c_connection, "cursor": c_cursor, "lobject": c_lobject}
_GREEN_CLASSES: Final = {"connection": Connection, "cursor": Cursor, "lobject": Lobject}


class _Extensions:
    """psycopg2.extensions for psycopg2.sql, whose `isinstance` has to know plain objects too."""

    connection = c_connection
    cursor = c_cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(psycopg2.extensions, name)


_extensions: Final = _Extensions()
_patched: Final[set[str]] = set()  # the drivers


def patcher(backend: Backend) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return `patch_psycopg` and `unpatch_psycopg` for a plug-in's backend."""

    def patch_psycopg() -> None:
        """Make the connections of `psycopg2.connect` green, sharable and interruptible from now on.

        Idempotent. Existing connections stay as they are, but wait through this backend.
        """
        warn_if_foreign(backend, 3)
        _patched.add("psycopg2")
        choose(backend)
        install()
        hook(True)
        _replace_classes(_GREEN_CLASSES, green_class, _extensions)

    def unpatch_psycopg() -> None:
        """Undo `patch_psycopg`; existing green connections stay green."""
        _unpatched("psycopg2", backend)
        hook(False)
        _replace_classes(_C_CLASSES, original_class, psycopg2.extensions)

    return patch_psycopg, unpatch_psycopg


def psycopg3_patcher(backend: Backend) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return `patch_psycopg3` and `unpatch_psycopg3` for a plug-in's backend."""

    def patch_psycopg3() -> None:
        """Make the connections of `psycopg.connect` green, sharable and interruptible from now on.

        Idempotent. Existing connections stay as they are, and so do psycopg's asynchronous ones.
        ImportError without psycopg 3.2 or newer (the extra greenpg[psycopg3]).
        """
        warn_if_foreign(backend, 3)
        import_module("greenpg.psycopg3").patch()
        _patched.add("psycopg")
        choose(backend)

    def unpatch_psycopg3() -> None:
        """Undo `patch_psycopg3`; existing green connections stay green."""
        if "psycopg" in _patched:
            import_module("greenpg.psycopg3").unpatch()
        _unpatched("psycopg", backend)

    return patch_psycopg3, unpatch_psycopg3


def _unpatched(driver: str, backend: Backend) -> None:
    """Let the default backend go with the last driver that was patched for it."""
    _patched.discard(driver)
    if not _patched and chosen() is backend:
        choose(None)


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
