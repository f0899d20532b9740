"""One attempt to connect, known to the wait callback that serves it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic
from types import TracebackType
from typing import Any, Final

from psycopg2 import OperationalError
from psycopg2._psycopg import connection as c_connection

from greenpg._protocol.libpq import libpq
from greenpg.backend import Backend, current

__all__ = ["UNTIMED", "Attempt", "attempts", "backend_of_next", "given", "sqlstate", "using"]

_VERBOSE: Final = 2
_DEFAULT: Final = 1
_BROKEN: Final = 2  # what psycopg2 says of a connection that it could not make
_CODE: Final = re.compile(r"(?P<before>(?:^|: )\w+: +)(?P<code>[0-9A-Z]{5}): ", re.M)
_LOCATION: Final = re.compile(r"\n[^\n]*: +\w+, \w+\.c:\d+\s*$")


class Attempt:
    """Holds the connection that is being made, so that a failed one can be closed at once.

    An exception's traceback would keep it, with its socket, for as long as somebody looks.
    """

    __slots__ = ("backend", "conn", "deadline", "telling")

    def __init__(
        self, backend: Backend | None, timeout: float | None, telling: bool = False
    ) -> None:
        self.backend = backend  # None: known otherwise
        self.deadline = None if timeout is None else monotonic() + timeout
        self.telling = telling and libpq.has("PQsetErrorVerbosity")
        self.conn: Any = None  # let go at the end: an event loop may keep this with a listener

    def tell(self, conn: Any, verbose: bool) -> None:
        """Have the server's refusal name its SQLSTATE, or not: texts are localised."""
        libpq.PQsetErrorVerbosity(conn.pgconn_ptr, _VERBOSE if verbose else _DEFAULT)

    def failed(self, conn: Any, text: str) -> OperationalError:
        """Return the error with the server's address, as the blocking psycopg2 has it."""
        host, port = conn.info.host, conn.info.port
        where = f'at "{host}", port {port}'
        if host.startswith(("/", "@")):
            where = f'on socket "{host}/.s.PGSQL.{port}"'
        if not text.startswith("connection to server"):
            text = f"connection to server {where} failed: {text}"
        error: Any = OperationalError(text)
        if libpq.has("PQconnectionNeedsPassword"):  # then no other host would let us in either
            error.final = bool(libpq.PQconnectionNeedsPassword(conn.pgconn_ptr))
        failure: OperationalError = error
        return failure

    def left(self) -> float | None:
        """Seconds that are left; 0 at the least, None if there is no end."""
        return None if self.deadline is None else max(self.deadline - monotonic(), 0)

    def close(self, error: BaseException) -> None:
        """Close what was being made when `error` came."""
        conn = _unbegun(error.__traceback__) if self.conn is None else self.conn
        if conn is not None:
            c_connection.close(conn)
            state = getattr(conn, "_state_made", None)
            if state is not None:
                state.waiter.close()


UNTIMED: Final = Attempt(None, None)  # serves all that have nothing to hold


def _unbegun(trace: TracebackType | None) -> Any:
    """Return the connection that Ctrl-C kept from being noted: only the callback's frame has it."""
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "wait_callback":
            conn: Any = trace.tb_frame.f_locals.get("conn")
            if isinstance(conn, c_connection) and conn.closed == _BROKEN:
                return conn
        trace = trace.tb_next
    return None


attempts: Final[ContextVar[Attempt | None]] = ContextVar("attempts", default=None)
_next: Final[ContextVar[Backend | None]] = ContextVar("next_backend", default=None)


@contextmanager
def using(backend: Backend | None) -> Iterator[None]:
    """Make connections with `backend` in this block, with the default one if None."""
    token = _next.set(backend)
    try:
        yield
    finally:
        _next.reset(token)


def given() -> Backend | None:
    """Return the backend that the block's connections were given, if any."""
    return _next.get()


def backend_of_next() -> Backend:
    """Return the backend of the connection that is made next."""
    return _next.get() or current()


def sqlstate(message: str) -> tuple[str | None, str]:
    """Return the SQLSTATE in libpq's verbose message, and the message without it."""
    found = _CODE.search(message)
    if found is None:
        return None, message
    plain = message[: found.end("before")] + message[found.end() :]
    return found["code"], _LOCATION.sub("", plain)
