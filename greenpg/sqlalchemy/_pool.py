"""The pool: SQLAlchemy's interface and events over greenpg's slots and queue."""

from __future__ import annotations

from copy import copy
from math import inf
from sys import _getframe, maxsize
from time import monotonic
from types import FrameType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import exc
from sqlalchemy.pool import Pool, QueuePool

from greenpg.backend import current
from greenpg.errors import PoolTimeout
from greenpg.pool.core import (
    CLEAN,
    Failure,
    Holder,
    Limits,
    Slot,
    Waiting,
    check_count,
    check_functions,
    check_seconds,
    describe_load,
    with_oldest_stacks,
)
from greenpg.pool.core import Pool as Slots

from ._records import Records, driver_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.pool import ConnectionPoolEntry
    from sqlalchemy.pool.base import _ConnectionRecord

TIMED_OUT: Final = "3o7r"  # SQLAlchemy's page about this error
PINGED_AFTER: Final = 1.0
OURS: Final = ("sqlalchemy.", "greenpg.sqlalchemy.")


class GreenQueuePool(QueuePool):
    """A QueuePool that serves tasks in the order in which they asked.

    Its parameters and measures are QueuePool's. A connection on which data has arrived since
    its last use, such as the server's end of the session, is checked before it is lent; with
    `pre_ping` so is one that was idle for more than a second. Idle connections are lent last in,
    first out.
    """

    # Of QueuePool it inherits measures alone. Other libraries size and measure only its subclasses
    # (oslo_db/sqlalchemy/engines.py), and some read its private attributes too.

    def __init__(
        self,
        creator: Callable[..., Any],
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float | None = 30.0,
        use_lifo: bool = True,
        **kw: Any,
    ) -> None:
        """Make a pool; nothing is connected, and no task started, before first use.

        `pool_size=0` and `max_overflow=-1` mean no limit. `use_lifo` is accepted as QueuePool
        does, and changes nothing.
        """
        check_functions(creator=creator)
        check_count("pool_size", pool_size)
        check_count("max_overflow", max_overflow, -1)
        check_seconds("timeout", timeout, none=True)
        Pool.__init__(self, creator, **kw)  # QueuePool's makes a queue whose locks may be native
        self._pings, self._pre_ping = self._pre_ping, False  # else SQLAlchemy would ping as well
        self._max_overflow = max_overflow if pool_size else -1
        self._timeout = inf if timeout is None else timeout
        self._pool = cast("Any", SimpleNamespace(maxsize=pool_size, qsize=self.checkedin))
        self._connected = self._disposed = False
        self._failure: Exception | None = None  # of the last connect
        limits = Limits(
            min_size=0, max_size=1, max_lifetime=inf, max_idle=inf, num_workers=maxsize,
            fresh=PINGED_AFTER if self._pings else inf,
        )  # fmt: skip
        name = kw.get("logging_name") or "sqlalchemy"
        self._slots = Slots(Records(self), current, limits, name=name, warns_of_leaks=False)
        self._performer = self._slots.performer

    # What SQLAlchemy calls

    def _do_get(self) -> ConnectionPoolEntry:
        state = self._performer.state
        if not (state.idle or state.waiters or state.winding_down):
            self._performer.add(self._slots.manager.connect())
        try:
            record: _ConnectionRecord = self._slots.lend(self._timeout, _borrower())[1]
        except PoolTimeout:
            raise exc.TimeoutError(self._timeout_text(), code=TIMED_OUT) from self._failure
        if record.dbapi_connection is None:
            self._connect(record)
        return record

    def _connect(self, record: _ConnectionRecord) -> None:
        try:
            record.get_connection()
            self._grow()
        except BaseException as err:
            try:
                if isinstance(err, driver_error(self)):
                    self._failure = copy(err)  # without the traceback, which refers to the record
                record.close()
            finally:
                self._do_return_conn(record)
            raise
        self._failure = None

    def _grow(self) -> None:
        """Add the other slots after the first connect.

        SQLAlchemy initializes an engine in it, under a lock that may be a native one.
        """
        if not self._connected:
            self._performer.apply(self._performer.state.resize, 0, self._limit())
            self._connected = True

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        slot = self._slots.slot_of(record)
        if slot is None:
            record.close()  # this is a forked copy of a task, and the slot the parent's
        elif self._keeps(slot, record):
            self._slots.take_back(slot, record, CLEAN)
        else:
            self._let_go(slot, record)

    def _keeps(self, slot: Slot, record: ConnectionPoolEntry) -> bool:
        if slot.expires < 0 or self._slots.condition(record) != CLEAN:
            return False
        if self.waiting() > 0:
            return True
        return not self._performer.state.winding_down and self.checkedin() < (self.size() or inf)

    def _let_go(self, slot: Slot, record: ConnectionPoolEntry) -> None:
        try:
            record.close()
        finally:
            self._performer.apply(self._performer.state.closed, slot)

    def dispose(self) -> None:
        """Close the idle connections; those in use are closed when they come back.

        The pool remains usable, as QueuePool does, until `recreate` replaces it.
        """
        self._disposed = True
        self._close(self._performer.apply(self._performer.state.clear))
        self.logger.info("Pool disposed. %s", self.status())

    def _close(self, slots: list[Slot]) -> None:
        """Close all of them even if an exit comes meanwhile; the first error is raised last."""
        first: BaseException | None = None
        while slots:
            try:
                slot = slots.pop()
                self._let_go(slot, slot.empty())
            except BaseException as err:  # noqa: PERF203
                first = first or err
        if first is not None:
            raise first

    def recreate(self) -> GreenQueuePool:
        """Return a pool with the same parameters and events, and no connections.

        If this one has been disposed of, it serves those who wait, and keeps no connection.
        """
        self.logger.info("Pool recreating")
        successor = self.__class__(
            self._creator, pool_size=self.size(), max_overflow=self._max_overflow,
            timeout=self._timeout, pre_ping=self._pings, recycle=self._recycle, echo=self.echo,
            logging_name=self._orig_logging_name, reset_on_return=self._reset_on_return,
            _dispatch=self.dispatch, dialect=self._dialect,
        )  # fmt: skip
        if self._disposed:  # last: an exit before this line leaves the pool in use
            self._performer.apply(self._performer.state.wind_down)
        return successor

    # Measures

    def checkedin(self) -> int:
        """Return how many connections are idle."""
        return len(self._performer.state.idle)

    def checkedout(self) -> int:
        """Return how many connections are in use."""
        return len(self._performer.state.lent)

    def waiting(self) -> int:
        """Return how many tasks wait for a connection."""
        return len(self._performer.state.waiters)

    def holders(self) -> list[Holder]:
        """Return who holds each lent connection, where and for how long; the oldest loan first."""
        return self._slots.holders()

    def waiters(self) -> list[Waiting]:
        """Return which tasks wait for a connection, in the order in which they are served."""
        return self._slots.waiters()

    def failures(self) -> list[Failure]:
        """Return the last failure of each kind, the latest first."""
        return self._slots.failures()

    @property
    def _overflow(self) -> int:  # type: ignore[override]  # an attribute there
        return len(self._performer.state.slots) - self.size()

    def status(self) -> str:
        """Describe the pool as QueuePool does, and say how many tasks wait."""
        return f"{super().status()} Waiting: {self.waiting()}"

    def _limit(self) -> int:
        return maxsize if self._max_overflow < 0 else self.size() + self._max_overflow

    def _timeout_text(self) -> str:
        cause = ": the first connect is not over"
        if self._connected:
            cause = f" limit of size {self.size()} overflow {self._max_overflow} reached"
        state = self._performer.state
        text = (
            f"{type(self).__name__}{cause}, connection timed out, "
            f"timeout {self._timeout:.2f} ({describe_load(state, monotonic())})"
        )
        return with_oldest_stacks(text, state)


def _borrower() -> FrameType:
    """Return the frame outside SQLAlchemy that asks for a connection, for error messages."""
    found = _getframe(2)
    while found.f_globals.get("__name__", "").startswith(OURS) and found.f_back is not None:
        found = found.f_back
    return found
