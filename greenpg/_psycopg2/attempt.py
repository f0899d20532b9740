"""One attempt to connect, and what the running task asks of the connections that it makes."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

from psycopg2 import OperationalError

from greenpg._protocol.libpq import libpq
from greenpg._session.connect_plan import DEFAULT_PORT
from greenpg.threads import is_connected

if TYPE_CHECKING:
    from greenpg.backend import Backend

_T = TypeVar("_T")
_VERBOSE: Final = 2  # libpq-fe.h, PGVerbosity: PQERRORS_VERBOSE
_DEFAULT: Final = 1  # PQERRORS_DEFAULT
LOCAL: Final = ("/", "@")  # begin the names of Unix-domain sockets, which are connected at once
_BAD: Final = 1  # CONNECTION_BAD of ConnStatusType: libpq has failed
_REFUSALS: Final = ("PQconnectionNeedsPassword", "PQsocket", "PQstatus")
_CODE: Final = re.compile(r"(?P<before>(?:^|: )\w+: +)(?P<code>[0-9A-Z]{5}): ", re.M)
_LOCATION: Final = re.compile(r"\n[^\n]*: +\w+, \w+\.c:\d+\s*$")


class Attempt:
    """The limits of one attempt to connect, applied by the wait callback; `timeout` in seconds."""

    __slots__ = ("deadline", "demanding", "final", "resolved", "verbose_errors")

    def __init__(
        self,
        timeout: float | None,
        verbose_errors: bool = False,
        resolved: bool = False,
        demanding: bool = False,
    ) -> None:
        self.deadline = None if timeout is None else monotonic() + timeout
        self.verbose_errors = verbose_errors and libpq.has("PQsetErrorVerbosity")
        self.resolved = resolved  # the address is not the user's
        self.demanding = demanding  # see `Plan.demands_more_of_sockets`
        self.final = False  # no other host would let us in either

    def set_verbosity(self, conn: Any, verbose: bool) -> None:
        """Make the server's refusal contain its SQLSTATE, or not: its texts are localised."""
        libpq.PQsetErrorVerbosity(conn.pgconn_ptr, _VERBOSE if verbose else _DEFAULT)

    def failed(self, conn: Any, text: str) -> OperationalError:
        """Return the error with the server's address, as libpq words it when it connects itself."""
        host, params = conn.info.host, conn.info.dsn_parameters
        address, port = params.get("hostaddr"), params.get("port") or DEFAULT_PORT
        where = f'at "{address or host}", port {port}'
        if address and self.resolved:
            where = f'at "{host}" ({address}), port {port}'
        elif host.startswith(LOCAL) and not address:
            where = f'on socket "{host}/.s.PGSQL.{int(port)}"'
        if not text.startswith("connection to server"):
            text = f"connection to server {where} failed: {text}"
        return OperationalError(text)

    def note_refusal(self, conn: Any, text: str) -> None:
        """Note in `final` whether libpq, if it has failed with this text, tries no other host.

        So it is once it has met a server that it refuses, for its certificate, say: it keeps the
        socket then, which the server may have left by now, not having let us in. It passes over
        one that does not answer, or hangs up instead (libpq closes the socket), and one that let
        us in and is not what target_session_attrs asks for.
        """
        pgconn = conn.pgconn_ptr
        if libpq.has(*_REFUSALS) and pgconn and libpq.PQstatus(pgconn) == _BAD:
            is_in = conn.info.parameter_status("server_version") is not None
            unwanted = not is_in and is_connected(libpq.PQsocket(pgconn))
            self.final = bool(
                unwanted or self._has_refused_socket(conn, text)
                or libpq.PQconnectionNeedsPassword(pgconn)
            )  # fmt: skip

    def _has_refused_socket(self, conn: Any, text: str) -> bool:
        """Return True if libpq could connect to a Unix-domain socket, and refuses its server.

        It closes the socket at once (fe-connect.c, connectDBStart). Where it cannot connect, the
        text has a second line, which asks whether the server is running.
        """
        local: bool = conn.info.host.startswith(LOCAL)
        return self.demanding and local and text.count("\n") == 1

    def left(self) -> float | None:
        """Return the seconds that are left, at least 0; None without a timeout."""
        return None if self.deadline is None else max(self.deadline - monotonic(), 0)


@dataclass(slots=True)
class Request:
    """What a task asks of the connections that it makes."""

    backend: Backend | None = None  # None: the default one
    green: bool = False  # psycopg2.connect makes green connections, patched or not
    attempt: Attempt | None = None  # of the one connection that is being made
    conn: Any = None  # that connection, to be closed if the attempt fails

    def attempt_of(self, conn: Any) -> Attempt | None:
        """Return the attempt if it is that of `conn`: of the first connection that asks."""
        if self.attempt is not None and self.conn is None:
            self.conn = conn
        return self.attempt if self.conn is conn else None

    def end(self) -> None:
        """Forget the connection: a context that was copied meanwhile may keep the request."""
        state = getattr(self.conn, "_greenpg_state_made", None)
        self.conn = self.attempt = None
        if state is not None:
            state.attempt = None


_NOTHING: Final = Request()  # never changed, since it has no attempt
_request: Final[ContextVar[Request]] = ContextVar("greenpg_request", default=_NOTHING)
current_request: Final = _request.get


def with_request(request: Request, function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
    """Call a function in which connections are made as the request says."""
    before = _request.get()
    try:
        _request.set(request)  # inside: Ctrl-C may land as soon as it returns
        return function(*args, **kwargs)
    finally:
        _request.set(before)


def sqlstate(message: str) -> tuple[str | None, str]:
    """Return the SQLSTATE in libpq's verbose message, and the message without it.

    The format is that of pqBuildErrorMessage3 (libpq, fe-protocol3.c).
    """
    found = _CODE.search(message)
    if found is None:
        return None, message
    plain = message[: found.end("before")] + message[found.end() :]
    return found["code"], _LOCATION.sub("", plain)


def addresses(backend: Backend, host: str, port: int) -> list[str]:
    """Return the numeric addresses of a host, each once."""
    return list(dict.fromkeys(str(row[4][0]) for row in backend.resolve(host, port)))
