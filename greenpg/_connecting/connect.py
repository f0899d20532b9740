"""Making connections: the green classes under the user's, the hook in psycopg2, the warning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

import psycopg2
from psycopg2 import OperationalError, ProgrammingError
from psycopg2 import extensions as ext
from psycopg2._psycopg import _connect as c_connect
from psycopg2._psycopg import connection as c_connection

from greenpg import backend as backends
from greenpg._psycopg2.attach import begin
from greenpg._psycopg2.attempt import UNTIMED, Attempt, attempts, given, sqlstate, using
from greenpg._psycopg2.conninfo import CONNINFO
from greenpg._psycopg2.wait_callback import install, wait_callback
from greenpg._session.connect_plan import Plan, plan
from greenpg._session.lock import IN_HUB
from greenpg.backend import Backend, as_backend, choose, chosen, current
from greenpg.connection import Connection, green_connection_class
from greenpg.errors import ConnectionFactoryWarning, NotGreenWarning

__all__ = ["connect", "connect_untraced", "open_connection", "use"]

_plain: Final = None if hasattr(psycopg2.connect, "__wrapped__") else psycopg2.connect
_asked: ContextVar[bool] = ContextVar("greenpg_connect", default=False)
_new: Final[Any] = c_connection.__new__
_init: Final[Any] = c_connection.__init__
CANNOT_CONNECT_NOW: Final = "57P03"  # starting up, shutting down: the next host may do


def use(backend: str | Backend) -> Backend:
    """Make `backend` the default of connections made from now on, and return it.

    A name from the entry points `greenpg.backends`, or a `Backend` object; BackendError says
    what is wrong with it. Connections that exist keep theirs.
    """
    found = as_backend(backend)
    choose(found)
    install()
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
    out as it is and leaves neither socket nor server session. A tracer that has wrapped
    psycopg2.connect is called, and may return a proxy of the connection.
    """
    plain = psycopg2.connect is _plain or not hasattr(psycopg2.connect, "__wrapped__")
    if plain or _asked.get():
        return _connect(dsn, connection_factory, cursor_factory, backend, kwargs)
    given = "" if dsn is None and not kwargs else dsn
    factories = {"connection_factory": connection_factory, "cursor_factory": cursor_factory}
    with using(None if backend is None else as_backend(backend)), _green_connections():
        return psycopg2.connect(given, **factories, **kwargs)


def connect_untraced(
    dsn: str | None = None,
    connection_factory: Callable[..., Any] | None = None,
    cursor_factory: Callable[..., Any] | None = None,
    *,
    backend: str | Backend | None = None,
    **kwargs: Any,
) -> Any:
    """Connect as `connect` does, past whatever has wrapped psycopg2.connect."""
    return _connect(dsn, connection_factory, cursor_factory, backend, kwargs)


def _connect(
    dsn: str | None,
    connection_factory: Callable[..., Any] | None,
    cursor_factory: Callable[..., Any] | None,
    backend: str | Backend | None,
    kwargs: dict[str, Any],
) -> Any:
    modes: dict[str, Any] = {}
    if kwargs:
        modes = {name: kwargs.pop(name) for name in ("async", "async_") if name in kwargs}
    if kwargs or dsn is None:
        dsn = ext.make_dsn(dsn, **kwargs)
    found = as_backend(backend) if backend is not None else backends._chosen or default_backend()
    conn = _open(found, dsn, connection_factory, modes)
    if cursor_factory is not None:
        conn.cursor_factory = cursor_factory
    return conn


@contextmanager
def _green_connections() -> Iterator[None]:
    """Have this task's psycopg2.connect make green connections, patched or not."""
    if psycopg2._connect is c_connect:  # type: ignore[attr-defined]  # a global of its connect()
        psycopg2._connect = _by_task  # type: ignore[attr-defined]
    token = _asked.set(True)
    try:
        yield
    finally:
        _asked.reset(token)


def _by_task(dsn: str, connection_factory: Callable[..., Any] | None = None, **modes: Any) -> Any:
    make: Any = open_connection if _asked.get() else c_connect
    return make(dsn, connection_factory=connection_factory, **modes)


def open_connection(
    dsn: str, connection_factory: Callable[..., Any] | None = None, **modes: Any
) -> Any:
    """Stand in for psycopg2's C function `_connect`, making connections of the green class."""
    return _open(given() or default_backend(), dsn, connection_factory, modes)


def _open(
    backend: Backend,
    dsn: str,
    connection_factory: Callable[..., Any] | None,
    modes: Mapping[str, Any],
) -> Any:
    if ext.get_wait_callback() is not wait_callback:
        install()
    targets = plan(dsn, CONNINFO)
    if not (modes and any(modes.values())) and not backend.can_wait():
        raise ProgrammingError(IN_HUB)
    if connection_factory is not None or modes or not targets.simple:
        return _open_specially(backend, targets, connection_factory, modes)
    attempt = UNTIMED if targets.timeout is None else Attempt(None, targets.timeout)
    conn: Any = _new(Connection)
    state = begin(conn, backend, attempt)
    try:
        _init(conn, dsn)
    except BaseException:  # its traceback would keep the connection, with its socket
        c_connection.close(conn)
        state.waiter.close()
        raise
    return conn


def _open_specially(
    backend: Backend,
    targets: Plan,
    connection_factory: Callable[..., Any] | None,
    modes: Mapping[str, Any],
) -> Any:
    factory = Connection if connection_factory is None else _green(connection_factory)
    if any(modes.values()):
        conn = _begin(backend, targets, partial(c_connect, connection_factory=factory, **modes))
    elif targets.simple:
        conn = _attempt(factory, targets.dsn, Attempt(backend, targets.timeout))
    else:
        conn = _try_in_turn(backend, targets, factory)
    if not isinstance(conn, Connection):
        _warn_half_green(factory)
    elif not targets.simple:
        conn._state.dsn = targets.public_dsn()
    return conn


def _green(factory: Callable[..., Any]) -> Callable[..., Any]:
    """Return the factory, with the green class under it if it is a connection class."""
    if isinstance(factory, type) and issubclass(factory, c_connection):
        return green_connection_class(factory)
    return factory


def _begin(backend: Backend, targets: Plan, make: Callable[[str], Any]) -> Any:
    """Begin to connect without waiting; libpq itself tries the addresses in turn."""
    dsn = targets.dsn if targets.simple else targets.combined(partial(_resolve, backend))
    conn = make(dsn)
    if isinstance(conn, Connection):
        with using(backend):
            _ = conn._state  # made here, where the backend is known
    return conn


def _try_in_turn(backend: Backend, targets: Plan, factory: Callable[[str], Any]) -> Any:
    """Connect to the first address that lets us in; an answer that is final ends the search."""
    failed: list[str] = []
    for dsn in targets.attempts(partial(_resolve, backend), failed):
        try:
            return _attempt(factory, dsn, Attempt(backend, targets.timeout, telling=True))
        except OperationalError as err:  # noqa: PERF203  one turn is a connection
            code, text = sqlstate(str(err))
            failed.append(text.strip())
            if code not in (None, CANNOT_CONNECT_NOW) or getattr(err, "final", False):
                break
    raise OperationalError("\n".join(failed) + "\n")


def _attempt(factory: Callable[[str], Any], dsn: str, attempt: Attempt) -> Any:
    token = attempts.set(attempt)
    try:
        return factory(dsn)  # as psycopg2's C function calls it
    except BaseException as error:
        attempt.close(error)
        raise
    finally:
        attempts.reset(token)
        attempt.conn = None


def _resolve(backend: Backend, host: str, port: int) -> list[str]:
    return list(dict.fromkeys(str(row[4][0]) for row in backend.resolve(host, port)))


def _warn_half_green(factory: Callable[..., Any]) -> None:
    warnings.warn(
        f"connection_factory {factory!r} is not a class derived from "
        "psycopg2.extensions.connection, so greenpg cannot put its own under it: queries on its "
        "connections are green, but tasks may not share one, and an interrupt closes it",
        ConnectionFactoryWarning,
        stacklevel=5,
    )


def default_backend() -> Backend:
    """Return the default backend; in a patched process without a choice, warn once."""
    found = chosen()
    if found is None:
        _warn_if_patched()
        found = current()
    return found


_PATCHABLE: Final = (
    ("time", "sleep"),
    ("socket", "socket"),
    ("select", "poll"),
    ("_thread", "get_ident"),
)
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
            stacklevel=5,
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
