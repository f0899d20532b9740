"""One loan, as a context manager."""

from __future__ import annotations

from sys import _getframe
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._connections import BROKEN, SOILED

if TYPE_CHECKING:
    from ._pool import Pool
    from ._slots import Slot

__all__ = ["Lease", "give_back_after"]


class Lease:
    """One `with pool.connection()`: commits on success, rolls back on error, gives back.

    Its maker sets `pool`, `timeout` and `slot`, which is None outside the block: CPython takes
    twice as long where there is an `__init__`.
    """

    __slots__ = ("conn", "pool", "slot", "timeout")

    pool: Pool
    timeout: float | None
    slot: Any
    conn: Any

    def __enter__(self) -> Any:
        """Wait for a connection and return it."""
        if self.slot is not None:
            raise RuntimeError("this connection() is in use; call it once for each with block")
        self.slot, self.conn = self.pool.lend(self.timeout, _getframe(1))
        return self.conn

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the transaction and give the connection back."""
        slot, conn, pool = self.slot, self.conn, self.pool
        self.slot = self.conn = None
        if error is not None:
            give_back_after(error, pool, slot, conn)
            return
        examine = pool.condition  # CPython calls a local faster than an instance's attribute
        condition = examine(conn)
        if condition == SOILED:
            try:
                pool.driver.commit(conn)
                condition = examine(conn)
            except BaseException as failure:
                give_back_after(failure, pool, slot, conn)
                raise
        pool.take_back(slot, conn, condition)


def give_back_after(error: BaseException, pool: Pool, slot: Slot, conn: Any) -> None:
    """End a loan that an error has ended; a kill is not replaced by a timeout that comes later."""
    try:
        fatal = isinstance(error, pool.fatal)
        pool.take_back(slot, conn, BROKEN if fatal else pool.condition(conn))
    except BaseException as later:
        exits = (*pool.backend.exits, KeyboardInterrupt, SystemExit)
        if not isinstance(error, exits) or isinstance(later, exits):
            raise
