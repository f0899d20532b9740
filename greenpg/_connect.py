"""Making connections: the green classes under the user's, the hook in psycopg2, the warning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any, Final

import psycopg2
from psycopg2 import extensions as ext
from psycopg2._psycopg import _connect as c_connect
from psycopg2._psycopg import connection as c_connection

from . import _wait
from .backend import Backend, as_backend, choose, chosen
from .connection import Connection, green_connection_class, next_backend
from .errors import ConnectionFactoryWarning, NotGreenWarning

__all__ = ["connect", "open_connection", "use"]


def use(backend: str | Backend) -> Backend:
    """Make `backend` the default of connections made from now on, and return it.

    A name from the entry points `greenpg.backends`, or a `Backend` object; BackendError says
    what is wrong with it. Connections that exist keep theirs.
    """
    found = choose(backend)
    assert found is not None
    _wait.install()
    return found


def connect(
    dsn: str | None = None,
    connection_factory: Callable[..., Any] | None = None,
    cursor_factory: Callable[..., Any] | None = None,
    *,
    backend: str | Backend | None = None,
    **kwargs: Any,
) -> Any:
    """Connect as psycopg2.connect does, with every wait in the hands of a backend.

    Without `backend` it is the default one (see `use`). An interrupt during the attempt comes
    out as it is and leaves neither socket nor server session.
    """
    modes = {name: kwargs.pop(name) for name in ("async", "async_") if name in kwargs}
    made = ext.make_dsn(dsn, **kwargs)
    token = next_backend.set(None if backend is None else as_backend(backend))
    try:
        conn = open_connection(made, connection_factory, **modes)
    finally:
        next_backend.reset(token)
    if cursor_factory is not None:
        conn.cursor_factory = cursor_factory
    return conn


def open_connection(
    dsn: str, connection_factory: Callable[..., Any] | None = None, **modes: Any
) -> Any:
    """Stand in for psycopg2's C function `_connect`, making connections of the green class."""
    _wait.install()
    if next_backend.get() is None and chosen() is None:
        _warn_if_patched()
    factory = connection_factory or Connection
    if isinstance(factory, type) and issubclass(factory, c_connection):
        factory = green_connection_class(factory)
    conn = c_connect(dsn, connection_factory=factory, **modes)
    if not isinstance(conn, Connection):
        _warn_half_green(factory)
    return conn


def _warn_half_green(factory: Callable[..., Any]) -> None:
    warnings.warn(
        f"connection_factory {factory!r} is not a class derived from "
        "psycopg2.extensions.connection, so greenpg cannot put its own under it: queries on its "
        "connections are green, but tasks may not share one, and an interrupt closes it",
        ConnectionFactoryWarning,
        stacklevel=4,
    )


_PATCHABLE: Final = (("time", "sleep"), ("socket", "socket"), ("select", "poll"), ("_thread", "get_ident"))
_warned = False


def _warn_if_patched() -> None:
    """Warn once if another library has replaced what waits in this process."""
    global _warned
    library = None if _warned else _patched_by()
    if library is not None:
        _warned = True
        warnings.warn(
            f"this process is monkey-patched by {library}, but no greenpg backend was chosen, so "
            f"its PostgreSQL connections block every green thread; add\n"
            f"    from greenpg_{library} import patch_psycopg; patch_psycopg()\n"
            f"or greenpg.use({library!r}), or greenpg.use('threads') if you mean it",
            NotGreenWarning,
            stacklevel=4,
        )


def _patched_by() -> str | None:
    for module, name in _PATCHABLE:
        function = getattr(sys.modules.get(module), name, None)
        owner = str(getattr(function, "__module__", None) or module).partition(".")[0]
        if owner not in ("time", "socket", "_socket", "select", "_thread", "threading"):
            return owner
    return None


def hook(active: bool) -> None:
    """Let psycopg2.connect make green connections, or plain ones again."""
    psycopg2._connect = open_connection if active else c_connect  # type: ignore[attr-defined]  # a global of its connect()
