"""A driver's connections for a pool: connect, check, clean and close them, with time limits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from posix import close as close_descriptor  # a monkey-patch may have replaced those in os
from posix import read
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from greenpg._session.connect_plan import plan
from greenpg._session.session import TransactionStatus
from greenpg.backend import READ
from greenpg.sync import Deadline, state_of
from greenpg.threads import pristine

from ._connections import CLEAN, Hook, Reset

if TYPE_CHECKING:
    from greenpg.backend import Backend

    from ._connections import Condition, Driver, PoolErrors

CHECK_SECONDS: Final = 1.0  # for a check, a rollback, a reset, or a cancel
HOOK_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 5  # for each host
END_SECONDS: Final = 0.5  # from a close until the server has ended the session
TIMED_BY: Final = {"service", "servicefile", "connect_timeout"}  # each may set a timeout
STATES: Final = {
    int(TransactionStatus.IDLE): "idle",
    int(TransactionStatus.ACTIVE): "active",
    int(TransactionStatus.IN_TRANSACTION): "idle in transaction",
    int(TransactionStatus.IN_ERROR): "idle in transaction (aborted)",
}
_select = pristine("select")


@dataclass(slots=True)
class Connections:
    """Makes connections of one driver and kind, and resets them to their initial state."""

    driver: Driver
    conninfo: str | Callable[[], str]
    kwargs: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None
    backend: Callable[[], Backend]
    reset: Reset
    configure: Hook | None
    on_check: Hook | None
    on_connect: Hook | None
    on_discard: Hook | None
    label: Callable[[], str] | None = None  # the application_name of a new session
    errors: PoolErrors = field(init=False)
    condition: Callable[[Any], Condition] = field(init=False)

    def __post_init__(self) -> None:
        self.errors, self.condition = self.driver.errors, self.driver.condition

    def connect(self) -> Any:
        conn = self._connected()
        try:
            state_of(conn).cancel_timeout = CHECK_SECONDS
            self._run_hook(self.configure, conn, "configure")
            if self.on_connect is not None:
                self.on_connect(conn)
        except BaseException:
            self._end(conn)
            raise
        return conn

    def _connected(self) -> Any:
        dsn = self.conninfo() if callable(self.conninfo) else self.conninfo
        kwargs = dict((self.kwargs() if callable(self.kwargs) else self.kwargs) or {})
        named = {key: kwargs[key] for key in TIMED_BY & kwargs.keys()}
        if self.label is not None:
            kwargs["application_name"] = self.label()
        driver = self.driver
        settings = plan(driver.make_conninfo(dsn, **named), driver.conninfo).settings
        if "connect_timeout" not in settings:
            kwargs["connect_timeout"] = CONNECT_SECONDS  # a silent server must not keep the slot
        return driver.connect(dsn, self.backend(), kwargs)

    def _run_hook(self, hook: Hook | None, conn: Any, name: str) -> None:
        if hook is None:
            return
        with Deadline(conn, HOOK_SECONDS):
            hook(conn)
        if self.condition(conn) is not CLEAN:
            text = f"the pool's {name} function did not leave the connection idle"
            raise self.errors.programming(text)

    def input_check(self, conn: Any) -> Any:
        poll = getattr(_select, "epoll", _select.poll)()  # epoll is faster: `bench -w pool`
        poll.register(conn.fileno(), _select.POLLIN)
        return poll.poll

    def session(self, conn: Any) -> tuple[str, int | None]:
        return session_of(conn)

    def commit(self, conn: Any) -> None:
        conn.commit()

    def check(self, conn: Any) -> None:
        if self.on_check is None:
            with Deadline(conn, CHECK_SECONDS):
                ping(conn)
        self._run_hook(self.on_check, conn, "check")

    def clean(self, conn: Any) -> None:
        reset = self.reset
        with nullcontext() if reset == "none" else Deadline(conn, CHECK_SECONDS):
            if reset == "discard":
                self.driver.reset(conn)
            elif self.condition(conn) is not CLEAN:
                conn.rollback()
        if reset == "discard":
            self._run_hook(self.configure, conn, "configure")
        elif callable(reset):
            self._run_hook(reset, conn, "reset")
        if self.condition(conn) is not CLEAN:
            raise self.errors.programming("the connection is still in use, or in a transaction")

    def cancel(self, conn: Any) -> None:
        if not conn.closed and conn.info.transaction_status == TransactionStatus.ACTIVE:
            conn.cancel()

    def close(self, conn: Any) -> None:
        if self.on_discard is not None:
            with suppress(Exception):
                self.on_discard(conn)
        self._end(conn)

    def _end(self, conn: Any) -> None:
        try:
            fd = os.dup(conn.fileno())
        except (self.driver.error, OSError):
            conn.close()
            return
        try:
            self.driver.end(conn)
        finally:
            self._await_end(fd)

    def _await_end(self, fd: int) -> None:
        """Wait until the server has ended the session, which counts in max_connections."""
        deadline = monotonic() + END_SECONDS
        try:
            with closing(self.backend().waiter()) as waiter, suppress(OSError):
                while (left := deadline - monotonic()) > 0 and waiter.wait(fd, READ, left):
                    if not read(fd, 65536):
                        return
        finally:
            close_descriptor(fd)


def session_of(conn: Any) -> tuple[str, int | None]:
    """Return the state of a driver's session as in pg_stat_activity, and its server process."""
    info = conn.info
    status = int(info.transaction_status)
    return (STATES[status], info.backend_pid) if status in STATES else ("closed", None)


def ping(conn: Any) -> None:
    """Raise unless the server answers."""
    with in_autocommit(conn), conn.cursor() as cur:
        cur.execute("select 1")


@contextmanager
def in_autocommit(conn: Any) -> Iterator[None]:
    """Keep the driver from beginning a transaction, on a connection that is in none."""
    automatic = conn.autocommit
    if not automatic:
        conn.autocommit = True
    try:
        yield
    finally:
        if not automatic and not conn.closed:
            conn.autocommit = False
