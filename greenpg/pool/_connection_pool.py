"""The pool that users make, with psycopg_pool's vocabulary."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Mapping
from math import inf
from sys import _getframe
from types import TracebackType
from typing import Any, ClassVar, Final, Literal

from greenpg._connecting.connect import default_backend
from greenpg.backend import Backend, as_backend
from greenpg.errors import PoolTimeout

from . import _life
from ._driver import Hook, Reset, Sessions, ping
from ._lease import Lease
from ._pool import Pool
from ._seam import BROKEN, CLEAN, SOILED
from ._slots import Limits
from ._stats import Stats

__all__ = ["ConnectionPool"]

_numbers = itertools.count(1)
VERDICTS: Final = {
    "none": (CLEAN, CLEAN, BROKEN),
    "rollback": (CLEAN, SOILED, BROKEN),
}
ALWAYS: Final = (SOILED, SOILED, BROKEN)


class ConnectionPool:
    """Lends connections to tasks: `with pool.connection() as conn`.

    Waiters are served in order. A connection is checked before it is lent if the server has
    said something on it, or if it was idle for more than a second. Unless `open` says
    otherwise, nothing is started before first use.
    """

    default_backend: ClassVar[Backend | None] = None

    def __init__(
        self,
        conninfo: str | Callable[[], str] = "",
        *,
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
        num_workers: int = 3,
        warn_held: float = inf,
        holder: Literal["line", "stack"] = "line",
        on_acquire: Hook | None = None,
        on_release: Hook | None = None,
        on_connect: Hook | None = None,
        on_discard: Hook | None = None,
        discard_on: tuple[type[BaseException], ...] = (),
    ) -> None:
        """Make a pool; psycopg_pool's parameters mean what they mean there.

        `reset` is "none", "rollback" (the default), "discard" or a function. The `on_` hooks
        get the connection; `on_acquire` and `on_release` run in the borrower's task. A block
        that ends with an error of `discard_on` costs its connection.
        """
        found = self._backend_finder(backend)
        reset = "rollback" if reset is None else reset
        if isinstance(reset, str) and reset not in (*VERDICTS, "discard"):
            raise ValueError(f"reset={reset!r}: give 'none', 'rollback', 'discard' or a function")
        limits = Limits(
            min_size=min_size,
            max_size=min_size if max_size is None else max_size,
            max_waiting=max_waiting,
            max_lifetime=max_lifetime,
            max_idle=max_idle,
            max_uses=max_uses,
            reconnect_timeout=reconnect_timeout,
            num_workers=num_workers,
            warn_held=warn_held,
            always_check=check is not None,
        )
        sessions = Sessions(
            conninfo,
            kwargs,
            found,
            configure=configure,
            check=check,
            reset=reset,
            on_connect=on_connect,
            on_discard=on_discard,
        )
        self._pool = Pool(
            sessions,
            found,
            limits,
            name=name or f"pool-{next(_numbers)}",
            timeout=timeout,
            opens_itself=open is not False,
            keeps_stacks=holder == "stack",
            verdicts=VERDICTS.get(reset, ALWAYS) if isinstance(reset, str) else ALWAYS,
            give_up=_giving_up(weakref.ref(self), reconnect_failed),
        )
        self._pool.fatal = discard_on
        self._pool.on_acquire = on_acquire
        self._pool.on_release = on_release
        if open:
            self.open()

    def _backend_finder(self, backend: str | Backend | None) -> Callable[[], Backend]:
        chosen = self.default_backend if backend is None else as_backend(backend)
        return default_backend if chosen is None else lambda: chosen

    # Borrowing

    def connection(self, timeout: float | None = None) -> Lease:
        """Borrow a connection for a with block, which commits on success and else rolls back.

        PoolTimeout after `timeout` seconds (the pool's own by default), PoolClosed,
        TooManyRequests. The block's own error is never replaced by one of the pool's.
        """
        lease = Lease()
        lease.pool, lease.timeout, lease.slot = self._pool, timeout, None
        return lease

    def getconn(self, timeout: float | None = None) -> Any:
        """Borrow a connection, to be given back with `putconn`; errors as for `connection`."""
        return self._pool.lend(timeout, _getframe(1))[1]

    def putconn(self, conn: Any, key: object = None, close: bool = False) -> None:
        """Give a connection back; an open transaction is rolled back, for a second at most.

        ValueError if the pool did not lend it. `key` is psycopg2.pool's, and not needed.
        """
        pool = self._pool
        slot = pool.state.lent.get(id(conn))
        if slot is None or slot.ref() is not conn:
            raise ValueError(
                f"the connection was not lent by pool {self.name!r}, or is back already"
            )
        pool.take_back(slot, conn, BROKEN if close else pool.condition(conn))

    # The pool as a whole

    def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        """Start connecting; with `wait`, return when `min_size` connections are there."""
        _life.begin(self._pool)
        if wait:
            self.wait(timeout)

    def wait(self, timeout: float = 30.0) -> None:
        """Wait for `min_size` connections; after `timeout` seconds close, and raise PoolTimeout."""
        _life.begin(self._pool)
        state = self._pool.state
        if not _life.until(self._pool, state.filled, timeout):
            self.close(0)
            raise PoolTimeout(
                f"pool {self.name!r}: not filled with {self.min_size} connections in {timeout:g} s"
            ) from state.last_error

    def close(self, timeout: float = 5.0) -> None:
        """Close for good: wait for what is lent, then cancel what it runs, then close it.

        Waiters get PoolClosed at once. In the event loop's own greenlet nothing is waited for.
        """
        _life.end(self._pool, timeout)

    closeall = close

    def check(self) -> None:
        """Check all idle connections, and replace those that are broken."""
        _life.inspect_all(self._pool)

    def drain(self) -> None:
        """Replace all connections: the idle ones now, the others when they come back."""
        self._pool.tell(self._pool.state.drain)
        self._pool.tell(self._pool.state.tick)

    def resize(self, min_size: int, max_size: int | None = None) -> None:
        """Take new sizes; ValueError if they make no sense."""
        most = min_size if max_size is None else max_size
        self._pool.tell(self._pool.state.resize, min_size, most)

    @staticmethod
    def check_connection(conn: Any) -> None:
        """Ask the server for a sign of life; for `check=`, to check before each loan."""
        ping(conn)

    def __enter__(self) -> Any:
        """Open the pool, to be closed at the end of the block."""
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the pool."""
        self.close()

    # What there is

    @property
    def name(self) -> str:
        """The name in messages and statistics."""
        return self._pool.name

    @property
    def timeout(self) -> float:
        """How many seconds a borrower waits if he does not say."""
        return self._pool.timeout

    @property
    def min_size(self) -> int:
        """How many connections are kept."""
        return self._pool.state.limits.min_size

    @property
    def max_size(self) -> int:
        """How many sessions there may be."""
        return self._pool.state.limits.max_size

    @property
    def closed(self) -> bool:
        """True before the pool is opened, and after it was closed."""
        return not self._pool.state.open

    def get_stats(self) -> dict[str, int]:
        """Return psycopg_pool's measures of now and since the start; times in milliseconds."""
        return self._pool.stats.report(self._pool.state)

    def pop_stats(self) -> dict[str, int]:
        """Return what `get_stats` does and count from zero again."""
        stats, self._pool.stats = self._pool.stats, Stats()
        return stats.report(self._pool.state)

    def __repr__(self) -> str:
        state = self._pool.state
        counts = f"{len(state.idle)} idle, {len(state.lent)} lent, {len(state.waiters)} waiting"
        return f"<{type(self).__name__} {self.name!r}: {counts}, at most {self.max_size}>"


def _giving_up(
    whose: Callable[[], ConnectionPool | None], hook: Callable[[Any], object] | None
) -> Callable[[], object] | None:
    """Return what to call when reconnecting has failed for too long, without keeping the pool."""
    if hook is None:
        return None

    def give_up() -> None:
        pool = whose()
        if pool is not None:
            hook(pool)

    return give_up
