"""One loan, as a context manager."""

from __future__ import annotations

from sys import _getframe
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._seam import BROKEN, SOILED

if TYPE_CHECKING:
    from ._pool import Pool
    from ._slots import Slot

__all__ = ["Lease", "give_back_after"]


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
        examine = pool.condition  # CPython calls a local faster than an instance's attribute
        condition = examine(conn)
        if error is None and condition == SOILED:
            try:
                pool.driver.commit(conn)
                condition = examine(conn)
            except BaseException as failure:
                give_back_after(failure, pool, slot, conn)
                raise
        if error is None:
            pool.take_back(slot, conn, condition)
        else:
            give_back_after(error, pool, slot, conn)


def give_back_after(error: BaseException, pool: Pool, slot: Slot, conn: Any) -> None:
    """End a loan that an error has ended; a kill is not replaced by a timeout that comes later."""
    try:
        fatal = isinstance(error, pool.fatal)
        pool.take_back(slot, conn, BROKEN if fatal else pool.condition(conn))
    except BaseException as later:
        exits = (*pool.backend.exits, KeyboardInterrupt, SystemExit)
        if not isinstance(error, exits) or isinstance(later, exits):
            raise
