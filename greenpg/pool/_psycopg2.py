"""The pool's hands: greenpg's connections, opened, checked, cleaned and closed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from posix import close as close_descriptor  # a monkey-patch may have replaced those of os
from posix import read
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from psycopg2 import Error, ProgrammingError
from psycopg2 import extensions as ext
from psycopg2._psycopg import connection as c_connection

from greenpg._connecting.connect import connect
from greenpg.backend import READ
from greenpg.threads import pristine

from ._connections import BROKEN, CLEAN, SOILED

if TYPE_CHECKING:
    from greenpg.backend import Backend

__all__ = ["Hook", "Reset", "Sessions"]

Hook: TypeAlias = Callable[[Any], object]
Reset: TypeAlias = Literal["none", "rollback", "discard"] | Hook

CHECK_SECONDS: Final = 1.0
HOOK_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 5
GOODBYE_SECONDS: Final = 0.5
READY: Final = ext.STATUS_READY
IDLE: Final = ext.TRANSACTION_STATUS_IDLE
OPEN: Final = (ext.TRANSACTION_STATUS_INTRANS, ext.TRANSACTION_STATUS_INERROR)
ELSEWHERE: Final = ("service", "servicefile", "connect_timeout")  # where a timeout may stand
_select = pristine("select")
_transaction_status = c_connection.get_transaction_status


class Sessions:
    """Makes connections of one kind, and brings them back to how they were made."""

    def __init__(
        self,
        conninfo: str | Callable[[], str],
        kwargs: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None,
        backend: Callable[[], Backend],
        *,
        configure: Hook | None = None,
        check: Hook | None = None,
        reset: Reset = "rollback",
        on_connect: Hook | None = None,
        on_discard: Hook | None = None,
    ) -> None:
        self._conninfo = conninfo
        self._kwargs = kwargs
        self._backend = backend
        self._configure = configure
        self._check = check
        self._reset = reset
        self._on_connect = on_connect
        self._on_discard = on_discard

    def connect(self) -> Any:
        conn = self._connected()
        try:
            conn._state.cancel_timeout = CHECK_SECONDS
            self._run_hook(self._configure, conn, "configure")
            if self._on_connect is not None:
                self._on_connect(conn)
        except BaseException:
            conn.close()
            raise
        return conn

    def _connected(self) -> Any:
        dsn = self._conninfo() if callable(self._conninfo) else self._conninfo
        given = self._kwargs() if callable(self._kwargs) else self._kwargs
        kwargs = dict(given or {})
        known = {*ext.parse_dsn(dsn), *kwargs}
        if not known & {*ELSEWHERE} and not os.environ.keys() & {"PGCONNECT_TIMEOUT", "PGSERVICE"}:
            kwargs["connect_timeout"] = CONNECT_SECONDS  # a silent server must not keep the slot
        conn = connect(dsn, backend=self._backend(), **kwargs)
        while not issubclass(type(conn), c_connection):
            conn = conn.__wrapped__  # a tracer's proxy
        return conn

    def _run_hook(self, hook: Hook | None, conn: Any, name: str) -> None:
        if hook is None:
            return
        with conn.deadline(HOOK_SECONDS):
            hook(conn)
        if self.condition(conn) != CLEAN:
            raise ProgrammingError(f"the pool's {name} function left a transaction open, or worse")

    def peek(self, conn: Any) -> Callable[[int], Any]:
        poll = getattr(_select, "epoll", _select.poll)()  # epoll asks in half the time
        poll.register(conn.fileno(), _select.POLLIN)
        peek: Callable[[int], Any] = poll.poll
        return peek

    def spoken(self, conns: Sequence[Any]) -> list[bool]:
        poll = _select.poll()
        numbers: list[int] = []
        for conn in conns:
            try:
                numbers.append(conn.fileno())
                poll.register(numbers[-1], _select.POLLIN)
            except (Error, AttributeError):  # noqa: PERF203  closed, or lent this moment
                numbers.append(-1)
        ready = {number for number, _ in poll.poll(0)}
        return [number in ready for number in numbers]

    def condition(self, conn: Any) -> int:
        status = _transaction_status(conn)
        held = conn._state_made.holder is not None  # some task is at it still, or has kept its lock
        if status == IDLE and conn.status == READY and not held:
            return CLEAN
        return BROKEN if held or conn.closed or status not in (IDLE, *OPEN) else SOILED

    def commit(self, conn: Any) -> None:
        conn.commit()

    def check(self, conn: Any) -> None:
        if self._check is not None:
            self._run_hook(self._check, conn, "check")
        else:
            with conn.deadline(CHECK_SECONDS):
                ping(conn)

    def clean(self, conn: Any) -> None:
        bound = nullcontext() if self._reset == "none" else conn.deadline(CHECK_SECONDS)
        with bound:
            if self._reset == "discard":
                conn.reset()
            elif self.condition(conn) != CLEAN:
                conn.rollback()
        if self._reset == "discard":
            self._run_hook(self._configure, conn, "configure")
        elif callable(self._reset):
            self._run_hook(self._reset, conn, "reset")
        if self.condition(conn) != CLEAN:
            raise ProgrammingError("the connection is still in use, or in a transaction")

    def cancel(self, conn: Any) -> None:
        if not conn.closed and _transaction_status(conn) == ext.TRANSACTION_STATUS_ACTIVE:
            conn.cancel()

    def close(self, conn: Any) -> None:
        if self._on_discard is not None:
            with suppress(Exception):
                self._on_discard(conn)
        try:
            fd = os.dup(conn.fileno())
        except Error:
            conn.close()
            return
        try:
            conn.close()
            self._await_end(fd)
        finally:
            close_descriptor(fd)

    def _await_end(self, fd: int) -> None:
        """Wait until the server has ended the session: until then it counts there."""
        waiter = self._backend().waiter()
        deadline = monotonic() + GOODBYE_SECONDS
        try:
            while (left := deadline - monotonic()) > 0 and waiter.wait(fd, READ, left):
                if not read(fd, 65536):
                    return
        except OSError:
            return
        finally:
            waiter.close()


def ping(conn: Any) -> None:
    """Raise unless the server answers."""
    automatic = conn.autocommit
    if not automatic:
        conn.autocommit = True  # else psycopg2 would begin a transaction
    try:
        with conn.cursor() as cur:
            cur.execute("select 1")
    finally:
        if not automatic and not conn.closed:
            conn.autocommit = False
