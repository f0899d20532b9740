"""The interface between a pool and a driver's connections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from greenpg._session.connect_plan import Conninfo
    from greenpg.backend import Backend

Hook: TypeAlias = Callable[[Any], object]
Reset: TypeAlias = Literal["none", "rollback", "discard"] | Hook


class Condition(IntEnum):
    """The condition of a returned connection, from good to bad."""

    CLEAN = 0
    DIRTY = 1  # in a transaction
    BROKEN = 2  # closed, or still executing something


# Before Python 3.12 access to a member through its class is slow (enum.py): `bench -w pool`.
CLEAN: Final = Condition.CLEAN
DIRTY: Final = Condition.DIRTY
BROKEN: Final = Condition.BROKEN


@dataclass(frozen=True, slots=True)
class PoolErrors:
    """The classes of the errors that a pool raises, each also one of its driver's."""

    programming: type[Exception]  # a call that is not allowed in this place
    timeout: type[Exception]
    closed: type[Exception]
    too_many: type[Exception]


class ConnectionManager(Protocol):
    """Makes, checks, cleans and closes a pool's connections.

    `connect`, `check`, `clean` and `close` may wait; only the pool's own tasks call them.
    """

    errors: PoolErrors

    def connect(self) -> Any:
        """Return a new connection, ready to be lent."""

    def input_check(self, conn: Any) -> Callable[[int], Any]:
        """Return a function that is true, given 0, if unsolicited data has arrived."""

    def condition(self, conn: Any) -> Condition:
        """Return the condition of a returned connection; does not wait."""

    def session(self, conn: Any) -> tuple[str, int | None]:
        """Return the state of a lent connection's session and its server process; may not wait."""

    def commit(self, conn: Any) -> None:
        """Commit the open transaction; called by the holder."""

    def check(self, conn: Any) -> None:
        """Raise unless the connection works."""

    def clean(self, conn: Any) -> None:
        """Make a connection CLEAN, or raise."""

    def cancel(self, conn: Any) -> None:
        """Cancel the running query, if there is one."""

    def close(self, conn: Any) -> None:
        """Close a connection and wait briefly until the server has ended the session."""


class Driver(Protocol):
    """What pools need of a driver beyond its connections' common methods."""

    errors: PoolErrors
    error: type[Exception]  # the base of all that the driver raises
    read_only: type[Exception]  # the error of a write where only reading is allowed
    conninfo: Conninfo

    def make_conninfo(self, conninfo: str, **params: Any) -> str:
        """Return a connection string with more parameters; raises the driver's error."""

    def connect(self, conninfo: str, backend: Backend, options: dict[str, Any]) -> Any:
        """Return a new green connection."""

    def condition(self, conn: Any) -> Condition:
        """Return the condition of a connection that is not in use; does not wait."""

    def reset(self, conn: Any) -> None:
        """Roll back, discard all that the session holds, and forget the connection's settings."""

    def end(self, conn: Any) -> None:
        """Close a connection, even if a task keeps it."""
