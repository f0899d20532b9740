"""Pools for a primary server and its replicas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, overload

from greenpg._checks import check_functions, check_options, check_texts, error_classes
from greenpg._drivers import PSYCOPG2, driver_named

from ._connection_pool import Conn, ConnectionPool

if TYPE_CHECKING:
    from typing_extensions import Self

    from greenpg import psycopg3

PRIMARY: Final = {"target_session_attrs": "read-write"}
REPLICA: Final = {"target_session_attrs": "prefer-standby", "load_balance_hosts": "random"}


class PoolSet(Generic[Conn]):
    """Two pools: `primary` for sessions that may write, `replica` for sessions that may lag.

    `conninfo` names all servers, as in "host=a,b,c dbname=app". `primary` connects to the current
    primary; `replica` tries the replicas in random order, skips unreachable ones, and falls back
    to the primary (libpq manual, "Parameter Key Words"). Sessions of a promoted replica stay
    until `max_lifetime`; `replica.drain()` replaces them.
    """

    @overload
    def __init__(
        self: PoolSet[psycopg3.Connection],
        conninfo: str = "",
        *,
        driver: Literal["psycopg"],
        pool: Callable[..., ConnectionPool[Any]] = ConnectionPool,
        primary: Mapping[str, Any] | None = None,
        replica: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self,
        conninfo: str = "",
        *,
        driver: str = "psycopg2",
        pool: Callable[..., ConnectionPool[Any]] = ConnectionPool,
        primary: Mapping[str, Any] | None = None,
        replica: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None: ...
    def __init__(
        self,
        conninfo: str = "",
        *,
        pool: Callable[..., ConnectionPool[Any]] = ConnectionPool,
        primary: Mapping[str, Any] | None = None,
        replica: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Make both pools with `options`; `primary` and `replica` override them for one."""
        name = options.pop("name", None) or "pools"
        check_texts(name=name)
        check_options(primary=primary, replica=replica)
        check_functions(pool=pool)
        driver = driver_named(options.get("driver", PSYCOPG2), __package__)
        lost = (*error_classes("discard_on", options.pop("discard_on", ())), driver.read_only)
        self.primary: ConnectionPool[Conn] = pool(
            driver.make_conninfo(conninfo, **PRIMARY),
            **{"name": f"{name}.primary", "discard_on": lost, **options, **(primary or {})},
        )
        self.replica: ConnectionPool[Conn] = pool(
            driver.make_conninfo(conninfo, **REPLICA),
            **{"name": f"{name}.replica", **options, **(replica or {})},
        )
        self._pools = self.primary, self.replica

    def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        """Open both; with `wait`, return when both are filled."""
        for pool in self._pools:
            pool.open()
        for pool in self._pools if wait else ():
            pool.wait(timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Close both; see `ConnectionPool.close`."""
        try:
            self.primary.close(timeout)
        finally:
            self.replica.close(timeout)

    def get_stats(self) -> dict[str, dict[str, int]]:
        """Return each pool's statistics, by its name."""
        return {pool.name: pool.get_stats() for pool in self._pools}

    def _each(self) -> tuple[ConnectionPool[Conn], ...]:
        return self._pools

    def __enter__(self) -> Self:
        """Open both, to be closed at the end of the block."""
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        """Close both."""
        self.close()
