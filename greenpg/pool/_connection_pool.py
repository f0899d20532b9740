"""The public pool, with psycopg_pool's names."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from sys import _getframe
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Literal, overload

from greenpg._checks import (
    check_conninfo_source,
    check_functions,
    check_number,
    check_options,
    check_seconds,
    check_texts,
    error_classes,
)
from greenpg._connecting.default_backend import default_backend
from greenpg._drivers import PSYCOPG2, driver_named
from greenpg.backend import Backend, as_backend
from greenpg.sync import Deadline

from ._connections import BROKEN, CLEAN, DIRTY, Hook, Reset
from ._health import Health
from ._labels import Label
from ._managed import Connections, ping
from ._measures import taken
from ._pool import Lease, Pool
from ._report import Stats
from ._slots import Limits

if TYPE_CHECKING:
    from typing_extensions import Self, TypeVar, Unpack

    from greenpg import psycopg3
    from greenpg._session.failures import Failure
    from greenpg.connection import Connection

    from ._borrowers import Holder, Waiting
    from ._measures import Measures
    from ._options import Options

    Conn = TypeVar("Conn", default=Connection)  # typing's has no default before Python 3.13
else:
    from typing import TypeVar

    Conn = TypeVar("Conn")

CLEAN_FROM: Final = {"none": BROKEN, "rollback": DIRTY, "discard": CLEAN}  # by `reset`
HOLDERS: Final = ("line", "stack")
_numbers = itertools.count(1)


class ConnectionPool(Generic[Conn]):
    """Lends connections to tasks: `with pool.connection() as conn`.

    Waiters are served in order. A connection is checked before it is lent if unsolicited data
    has arrived on it, or if it was idle for more than a second. Unless `open` is true, the pool
    starts nothing before its first use.
    """

    default_backend: ClassVar[Backend | None] = None

    @overload
    def __init__(
        self: ConnectionPool[psycopg3.Connection],
        conninfo: str | Callable[[], str] = "",
        *,
        driver: Literal["psycopg"],
        **options: Unpack[Options],
    ) -> None: ...
    @overload
    def __init__(
        self,
        conninfo: str | Callable[[], str] = "",
        *,
        driver: Literal["psycopg2"] = "psycopg2",
        **options: Unpack[Options],
    ) -> None: ...
    @overload
    def __init__(
        self: ConnectionPool[Any],
        conninfo: str | Callable[[], str] = "",
        *,
        driver: str,
        **options: Unpack[Options],
    ) -> None: ...
    def __init__(
        self,
        conninfo: str | Callable[[], str] = "",
        *,
        driver: str = PSYCOPG2,
        backend: str | Backend | None = None,
        kwargs: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
        min_size: int = 4,
        max_size: int | None = None,
        open: bool | None = None,
        timeout: float = 30.0,
        max_waiting: int = 0,
        max_lifetime: float = 3600.0,
        max_idle: float = 600.0,
        max_uses: float = inf,
        reconnect_timeout: float = 300.0,
        reconnect_failed: Callable[[Any], object] | None = None,
        configure: Hook | None = None,
        check: Hook | None = None,
        reset: Reset | None = None,
        name: str | None = None,
        application_name: str | None = None,
        num_workers: int = 3,
        warn_held: float = inf,
        holder: Literal["line", "stack"] = "line",
        on_acquire: Hook | None = None,
        on_release: Hook | None = None,
        on_connect: Hook | None = None,
        on_discard: Hook | None = None,
        discard_on: tuple[type[BaseException], ...] = (),
    ) -> None:
        """Make a pool; psycopg_pool's parameters have the same meaning as there.

        `driver` is "psycopg2" or "psycopg" (psycopg 3); `kwargs` are for its `connect`.
        `application_name` may have the fields {pool}, {pid} and {task}; with the last one, each
        loan begins with a round trip that sets it.
        `reset` is "none", "rollback" (the default), "discard" or a function. The `on_` hooks
        get the connection; `on_acquire` and `on_release` run in the borrower's task. After a
        block that ends with an error of `discard_on`, its connection is closed.
        """
        chosen = self.default_backend if backend is None else as_backend(backend)
        find_backend = default_backend if chosen is None else lambda: chosen
        reset = "rollback" if reset is None else reset
        if not callable(reset) and reset not in list(CLEAN_FROM):  # it may be unhashable
            raise ValueError(f"reset={reset!r}: give 'none', 'rollback', 'discard' or a function")
        if holder not in HOLDERS:
            raise ValueError(f"holder={holder!r}: give 'line' or 'stack'")
        check_conninfo_source("conninfo", conninfo)
        if not callable(kwargs):
            check_options(kwargs=kwargs)
        check_texts(name=name, application_name=application_name)
        check_number("timeout", timeout, -inf)
        check_functions(
            reconnect_failed=reconnect_failed, configure=configure, check=check,
            on_acquire=on_acquire, on_release=on_release, on_connect=on_connect,
            on_discard=on_discard,
        )  # fmt: skip
        limits = Limits(
            min_size=min_size, max_size=min_size if max_size is None else max_size,
            max_waiting=max_waiting, max_lifetime=max_lifetime, max_idle=max_idle,
            max_uses=max_uses, reconnect_timeout=reconnect_timeout, num_workers=num_workers,
            warn_held=warn_held, always_check=check is not None,
        )  # fmt: skip
        name = name or f"pool-{next(_numbers)}"
        label = None if application_name is None else Label(application_name, name)
        manager = Connections(
            driver_named(driver, __package__), conninfo, kwargs, find_backend, reset,
            configure, check, on_connect, on_discard, label.text if label else None,
        )  # fmt: skip
        self._pool = Pool(
            manager, find_backend, limits, name=name,
            timeout=timeout, opens_itself=open is not False, keeps_stacks=holder == "stack",
            clean_from=CLEAN_FROM[reset] if isinstance(reset, str) else CLEAN,
            discard_on=error_classes("discard_on", discard_on),
            on_acquire=_acquiring(label, on_acquire), on_release=on_release,
            give_up=partial(_give_up, weakref.ref(self), reconnect_failed),
        )  # fmt: skip
        if open:
            self.open()

    # Borrowing

    def connection(self, timeout: float | None = None) -> Lease[Conn]:
        """Borrow a connection for a with block, which commits on success and else rolls back.

        Raises PoolTimeout after `timeout` seconds (the pool's own by default), PoolClosed or
        TooManyRequests. The block's own error is never replaced by one of the pool's.
        """
        if timeout is not None:
            check_seconds("timeout", timeout, none=True)
        lease: Lease[Conn] = Lease()
        lease.pool, lease.timeout, lease.slot = self._pool, timeout, None
        return lease

    def getconn(self, timeout: float | None = None) -> Conn:
        """Borrow a connection, to be returned with `putconn`; errors as for `connection`."""
        if timeout is not None:
            check_seconds("timeout", timeout, none=True)
        try:
            frame = _getframe(1)
        except ValueError:  # a greenlet begins with this call
            frame = _getframe()
        return self._pool.lend(timeout, frame)[1]  # type: ignore[no-any-return]  # as in Lease

    def putconn(self, conn: Any, key: object = None, close: bool = False) -> None:
        """Return a connection; waits up to 1 s for the rollback of an open transaction.

        ValueError if the pool did not lend it. `key` exists for psycopg2.pool, and is ignored.
        """
        pool = self._pool
        slot = pool.slot_of(conn)
        if slot is None:
            if any(one.ref() is conn for one in pool.inherited):  # by a forked child
                return
            raise pool.not_lent()
        pool.take_back(slot, conn, BROKEN if close else pool.condition(conn))

    def health(self, timeout: float = 1.0) -> Health:
        """Borrow a connection and query the server; return what came of it.

        An error is returned, not raised. A query that is not over in time is cancelled, which
        may take a second more.
        """
        check_seconds("timeout", timeout)
        began = monotonic()
        error: Exception | None = None
        try:
            with self.connection(timeout) as conn, Deadline(conn, began + timeout - monotonic()):
                ping(conn)
        except Exception as caught:
            error = caught
        return Health(monotonic() - began, error)

    # The pool as a whole

    def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        """Start to connect; with `wait`, wait up to `timeout` seconds as `wait()` does."""
        check_seconds("timeout", timeout)
        self._pool.open()
        if wait:
            self.wait(timeout)

    def wait(self, timeout: float = 30.0) -> None:
        """Wait for `min_size` connections; after `timeout` seconds close, and raise PoolTimeout."""
        check_seconds("timeout", timeout)
        self._pool.wait(timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Close forever; after `timeout` seconds cancel queries and close lent connections.

        Waiters raise PoolClosed at once. In the event loop's own greenlet this does not wait.
        """
        check_seconds("timeout", timeout)
        self._pool.close(timeout)

    closeall = close

    def check(self) -> None:
        """Check all idle connections, and replace broken ones."""
        self._pool.check()

    def drain(self) -> None:
        """Replace all connections: the idle ones now, the others when they are returned."""
        performer = self._pool.performer
        performer.apply(performer.state.drain)
        performer.apply(performer.state.tick)

    def _wind_down(self) -> None:
        """Serve those who wait, and keep no connection after that; another pool replaces this."""
        performer = self._pool.performer
        performer.apply(performer.state.wind_down)

    def resize(self, min_size: int, max_size: int | None = None) -> None:
        """Set new sizes; ValueError if they are impossible."""
        performer = self._pool.performer
        most = min_size if max_size is None else max_size
        performer.apply(performer.state.resize, min_size, most)

    @staticmethod
    def check_connection(conn: Any) -> None:
        """Raise unless the server answers; for `check=`, to check before later loans."""
        ping(conn)

    def __enter__(self) -> Self:
        """Open the pool, to be closed at the end of the block."""
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the pool."""
        self.close()

    # Who borrows

    def holders(self) -> list[Holder]:
        """Return who holds each lent connection, where and for how long; the oldest loan first."""
        return self._pool.holders()

    def waiters(self) -> list[Waiting]:
        """Return which tasks wait for a connection, in the order in which they are served."""
        return self._pool.waiters()

    def failures(self) -> list[Failure]:
        """Return the last failure of each kind, the latest first; see `Failure`."""
        return self._pool.failures()

    # Statistics

    @property
    def name(self) -> str:
        """The name in messages and statistics."""
        return self._pool.name

    @property
    def timeout(self) -> float:
        """The seconds that a borrower waits by default."""
        return self._pool.timeout

    @property
    def min_size(self) -> int:
        """The number of connections that the pool keeps."""
        return self._pool.limits.min_size

    @property
    def max_size(self) -> int:
        """The maximal number of sessions."""
        return self._pool.limits.max_size

    @property
    def closed(self) -> bool:
        """True before the pool is opened, and after it was closed."""
        return not self._pool.performer.state.open

    def get_stats(self) -> dict[str, int]:
        """Return psycopg_pool's statistics, current and since the start; times in milliseconds."""
        performer = self._pool.performer
        with performer.lock:
            return performer.stats.report(performer.state, performer.used)

    def pop_stats(self) -> dict[str, int]:
        """Return `get_stats()` and reset the counters to zero."""
        performer = self._pool.performer
        with performer.lock:
            state, used = performer.state, performer.used
            stats, performer.stats = performer.stats, Stats(usage=used, taken=taken(state))
            return stats.report(state, used)

    def _each(self) -> tuple[ConnectionPool[Conn], ...]:
        return (self,)

    def measures(self) -> Measures:
        """Return numbers for monitoring: current ones, histograms, connections closed by reason."""
        return self._pool.measures()

    def __repr__(self) -> str:
        state = self._pool.performer.state
        counts = f"{len(state.idle)} idle, {len(state.lent)} lent, {len(state.waiters)} waiting"
        return f"<{type(self).__name__} {self.name!r}: {counts}, at most {self.max_size}>"


def _acquiring(label: Label | None, hook: Hook | None) -> Hook | None:
    if label is None or not label.per_task:
        return hook

    def acquire(conn: Any) -> None:
        label.set_on(conn)
        if hook is not None:
            hook(conn)

    return acquire


def _give_up(
    whose: Callable[[], ConnectionPool[Any] | None], hook: Callable[[Any], object] | None
) -> None:
    pool = whose()
    if pool is not None and hook is not None:
        hook(pool)
