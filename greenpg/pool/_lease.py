"""One loan, as a context manager."""

from __future__ import annotations

from sys import _getframe
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._seam import BROKEN, SOILED

if TYPE_CHECKING:
    from ._pool import Pool
    from ._slots import Slot

__all__ = ["Lease"]


class Lease:
    """One `with pool.connection()`: commits on success, rolls back on error, gives back."""

    __slots__ = ("_conn", "_pool", "_slot", "_timeout")

    def __init__(self, pool: Pool, timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout
        self._slot: Any = None  # a Slot while in the block

    def __enter__(self) -> Any:
        """Wait for a connection and return it."""
        if self._slot is not None:
            raise RuntimeError("this connection() is in use; call it once for each with block")
        self._slot, self._conn = self._pool.lend(self._timeout, _getframe(1))
        return self._conn

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the transaction and give the connection back."""
        slot, conn, pool = self._slot, self._conn, self._pool
        self._slot = self._conn = None
        condition = pool.condition(conn)
        if condition or kind is not None:
            condition = self._concluded(slot, conn, condition, kind)
        pool.take_back(slot, conn, condition)

    def _concluded(
        self, slot: Slot, conn: Any, condition: int, kind: type[BaseException] | None
    ) -> int:
        """Commit what succeeded; return the condition afterwards."""
        pool = self._pool
        if kind is not None:
            return BROKEN if pool.fatal and issubclass(kind, pool.fatal) else condition
        if condition != SOILED:
            return condition
        try:
            pool.driver.commit(conn)
        except BaseException:
            pool.take_back(slot, conn, pool.condition(conn))
            raise
        return pool.condition(conn)
