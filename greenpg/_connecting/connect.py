"""Making connections: the green class under the user's, hosts in turn, the hook in psycopg2."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from operator import index
from typing import Any, Final, TypeVar, overload

import psycopg2
from psycopg2 import OperationalError, ProgrammingError
from psycopg2 import extensions as ext

from greenpg._checks import check_conninfo
from greenpg._green_classes import green_class
from greenpg._psycopg2.attach import attach_state
from greenpg._psycopg2.attempt import (
    Attempt,
    Request,
    addresses,
    current_request,
    sqlstate,
    with_request,
)
from greenpg._psycopg2.conninfo import CONNINFO
from greenpg._psycopg2.psycopg2_c import c_connect, c_connection, close
from greenpg._psycopg2.wait_callback import install, on_plain, wait_callback
from greenpg._session.connect_plan import Plan, plan
from greenpg._session.lock import IN_HUB
from greenpg.backend import Backend, as_backend, choose
from greenpg.connection import Connection
from greenpg.errors import ConnectionFactoryWarning

from .default_backend import default_backend, warn_if_foreign

_Made = TypeVar("_Made")
_unwrapped: Final = None if hasattr(psycopg2.connect, "__wrapped__") else psycopg2.connect
_new: Final = c_connection.__new__
_init: Final[Any] = c_connection.__init__
_MODES: Final = ("async", "async_")  # psycopg2.connect's own keywords, beside libpq's
CANNOT_CONNECT_NOW: Final = "57P03"  # the server starts or stops: libpq tries the next host


def use(backend: str | Backend) -> Backend:
    """Make `backend` the default of connections made from now on, and return it.

    It is a name from the entry points `greenpg.backends`, or a `Backend` object; raises
    BackendError, which says what is wrong with it. Existing connections keep theirs.
    """
    found = as_backend(backend)
    warn_if_foreign(found, 3)
    choose(found)
    install()
    return found


@overload
def connect(
    dsn: str | None = None,
    connection_factory: None = None,
    cursor_factory: Callable[..., Any] | None = None,
    *,
    backend: str | Backend | None = None,
    **kwargs: Any,
) -> Connection: ...
@overload
def connect(
    dsn: str | None = None,
    *,
    connection_factory: Callable[..., _Made],
    cursor_factory: Callable[..., Any] | None = None,
    backend: str | Backend | None = None,
    **kwargs: Any,
) -> _Made: ...
@overload
def connect(
    dsn: str | None,
    connection_factory: Callable[..., _Made],
    cursor_factory: Callable[..., Any] | None = None,
    *,
    backend: str | Backend | None = None,
    **kwargs: Any,
) -> _Made: ...
def connect(
    dsn: str | None = None,
    connection_factory: Callable[..., Any] | None = None,
    cursor_factory: Callable[..., Any] | None = None,
    *,
    backend: str | Backend | None = None,
    **kwargs: Any,
) -> Any:
    """Connect as psycopg2.connect does, with every wait made by a backend.

    Without `backend` it is the default one (see `use`). An interrupt of the attempt propagates
    unchanged and leaves neither socket nor server session. A tracer that has wrapped
    psycopg2.connect is called, and may return a proxy of the connection.
    """
    factories = {"connection_factory": connection_factory, "cursor_factory": cursor_factory}
    traced = psycopg2.connect is not _unwrapped and hasattr(psycopg2.connect, "__wrapped__")
    if not traced or current_request().green:
        return connect_untraced(dsn, **factories, backend=backend, **kwargs)
    make = psycopg2._connect  # type: ignore[attr-defined]  # not in its stubs
    if getattr(make, "__wrapped__", make) is c_connect:
        _bind(_connect_as_requested)  # for good: another task may be inside psycopg2.connect
    request = Request(None if backend is None else as_backend(backend), green=True)
    given = "" if dsn is None and not kwargs else dsn
    return with_request(request, psycopg2.connect, given, **factories, **kwargs)


def connect_untraced(
    dsn: str | None = None,
    connection_factory: Callable[..., Any] | None = None,
    cursor_factory: Callable[..., Any] | None = None,
    *,
    backend: str | Backend | None = None,
    **kwargs: Any,
) -> Any:
    """Connect as `connect` does, without whatever has wrapped psycopg2.connect."""
    modes: dict[str, Any] = {}
    if kwargs:
        modes = {name: kwargs.pop(name) for name in _MODES if name in kwargs}
    if kwargs or dsn is None:
        dsn = ext.make_dsn(dsn, **kwargs)
    found = default_backend() if backend is None else as_backend(backend)
    conn = _open(found, dsn, connection_factory, modes)
    if cursor_factory is not None:
        conn.cursor_factory = cursor_factory
    return conn


def _open_connection(
    dsn: str, connection_factory: Callable[..., Any] | None = None, **modes: Any
) -> Any:
    """Stand in for psycopg2's C function `_connect`, making connections of the green class."""
    backend = current_request().backend or default_backend()
    return _open(backend, dsn, connection_factory, modes)


def _connect_as_requested(
    dsn: str, connection_factory: Callable[..., Any] | None = None, **modes: Any
) -> Any:
    """Stand in for `_connect` in a process that is not patched."""
    make: Any = _open_connection if current_request().green else c_connect
    return make(dsn, connection_factory=connection_factory, **modes)


def hook(active: bool) -> None:
    """Let psycopg2.connect make green connections, or plain ones again."""
    _bind(_open_connection if active else c_connect)
    on_plain(_warn_plain if active else id)


def is_hooked() -> bool:
    """Return True if psycopg2.connect makes green connections for the whole process."""
    return psycopg2._connect is _open_connection  # type: ignore[attr-defined]  # not in its stubs


def _bind(function: Callable[..., Any]) -> None:
    """Replace the global that psycopg2.connect calls (psycopg2/__init__.py).

    An earlier `from psycopg2 import connect` calls it too.
    """
    psycopg2._connect = function  # type: ignore[attr-defined]  # not in its stubs


def _open(
    backend: Backend,
    dsn: str,
    connection_factory: Callable[..., Any] | None,
    modes: Mapping[str, Any],
) -> Any:
    if ext.get_wait_callback() is not wait_callback:
        install()
    if not isinstance(dsn, str):
        check_conninfo("dsn", dsn)
    targets = plan(dsn, CONNINFO)
    factory = Connection if connection_factory is None else green_class(connection_factory)
    asynchronous = next(filter(None, modes.values()), 0) if modes else 0
    if asynchronous:
        conn = _begin(backend, targets, factory, asynchronous)
    elif not backend.can_wait():
        raise ProgrammingError(IN_HUB)
    elif targets.refusal is not None:
        raise OperationalError(targets.refusal)
    elif targets.simple:
        conn = _make(backend, Attempt(targets.timeout), factory, targets.dsn)
    else:
        conn = _try_in_turn(backend, targets, factory)
    if not isinstance(conn, Connection):
        _warn_half_green(factory)
    elif not targets.simple:
        conn._greenpg_state.plan = targets
    return conn


def _begin(backend: Backend, targets: Plan, factory: Callable[..., Any], asynchronous: Any) -> Any:
    """Begin to connect without waiting; libpq itself tries the addresses in turn."""
    dsn = targets.dsn if targets.simple else targets.combined(partial(addresses, backend))
    return _make(backend, None, factory, dsn, index(asynchronous))


def _try_in_turn(backend: Backend, targets: Plan, factory: Callable[..., Any]) -> Any:
    """Connect to the first address that lets us in; an answer that is final ends the search."""
    failed: list[str] = []
    for dsn, resolved in targets.attempts(partial(addresses, backend), failed):
        attempt = Attempt(
            targets.timeout,
            verbose_errors=True,
            resolved=resolved,
            demanding=targets.demands_more_of_sockets,
        )
        try:
            return _make(backend, attempt, factory, dsn)
        except OperationalError as err:
            if type(err) is not OperationalError:  # a query of the user's class has failed
                raise
            code, text = sqlstate(str(err))
            failed.append(text.strip())
            if code != CANNOT_CONNECT_NOW and (code is not None or attempt.final):
                break
    raise OperationalError("\n".join(failed) + "\n")


def _make(
    backend: Backend, attempt: Attempt | None, factory: Callable[..., Any], *args: Any
) -> Any:
    """Make one connection, calling the factory with the arguments that psycopg2 gives it.

    If that fails the connection is closed at once: the exception's traceback would keep it, and
    with it the socket, for as long as it is looked at. Without a factory of the user's no request
    is needed, which is a fifth of greenpg's share of `greenpg bench -w connect`.
    """
    if factory is Connection:
        conn: Any = _new(Connection)
        state = attach_state(conn, backend, attempt)
        try:
            _init(conn, *args)
        except BaseException as exc:
            _give_up(conn, attempt, exc)
            raise
        state.attempt = None
        return conn
    request = Request(backend, current_request().green, attempt)
    try:
        return with_request(request, _instantiate, request, factory, args)
    except BaseException as exc:
        _give_up(request.conn, attempt, exc)
        raise
    finally:
        request.end()


def _give_up(conn: Any, attempt: Attempt | None, exc: BaseException) -> None:
    """Close a connection that could not be made; see `Attempt.note_refusal` and `_explain`."""
    if conn is not None:
        try:
            if attempt is not None:
                attempt.note_refusal(conn, str(exc))
        finally:
            _shut(conn)
    _explain(exc)


def _explain(exc: BaseException) -> None:
    """Raise an error with a text in place of one without: libpq's if it could make no socket.

    PQconnectPoll (libpq, fe-connect.c) drops the reason in the hope of a next address.
    """
    if type(exc) is OperationalError and not str(exc):
        try:
            os.close(os.dup(0))
        except OSError as reason:
            raise OperationalError(f"could not create socket: {reason.strerror}\n") from None
        raise OperationalError("could not create socket\n") from None


def _instantiate(request: Request, factory: Any, args: tuple[Any, ...]) -> Any:
    """Call the factory; if it is a green class, do what `type.__call__` does, in two steps.

    The connection is known between them, before it has a socket: Ctrl-C may land at the first
    instruction of the wait callback. What another factory makes is known to the callback only.
    """
    if not (_is_green(factory) and type(factory).__call__ is type.__call__):
        return factory(*args)
    conn = factory.__new__(factory, *args)
    if type.__instancecheck__(factory, conn):  # a metaclass may answer otherwise
        request.conn = conn
        _ = conn._greenpg_state
        type(conn).__init__(conn, *args)
    return conn


def _is_green(factory: Any) -> bool:
    return isinstance(factory, type) and issubclass(factory, Connection)


def _shut(conn: Any) -> None:
    state = getattr(conn, "_greenpg_state_made", None)
    if state is None:
        close(conn)
    else:
        state.shut(conn)


def _warn_plain(conn: Any) -> None:
    kind = type(conn)
    warnings.warn(
        f"{kind.__module__}.{kind.__qualname__} was derived from psycopg2's own class, before "
        "patch_psycopg(), and called itself, so greenpg cannot put its own under it: its queries "
        "are green, but tasks may not share the connection, and an interrupt closes it; derive it "
        "after the patch, or connect with psycopg2.connect(dsn, connection_factory=...)",
        ConnectionFactoryWarning,
        stacklevel=4,
    )


def _warn_half_green(factory: Callable[..., Any]) -> None:
    warnings.warn(
        f"connection_factory {factory!r} is not a class derived from "
        "psycopg2.extensions.connection, so greenpg cannot put its own under it: queries on its "
        "connections are green, but tasks may not share one, and an interrupt closes it",
        ConnectionFactoryWarning,
        stacklevel=5,
    )
