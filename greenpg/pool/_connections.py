"""What a pool asks of connections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

__all__ = ["BROKEN", "CLEAN", "SOILED", "Driver"]

CLEAN: Final = 0
SOILED: Final = 1  # in a transaction
BROKEN: Final = 2  # closed, or doing something still


class Driver(Protocol):
    """What a pool does with connections; all that waits is called in the pool's own tasks."""

    def connect(self) -> Any:
        """Return a new connection, ready to be lent."""
        ...

    def peek(self, conn: Any) -> Callable[[int], Any]:
        """Return a function that tells, given 0, whether the server has said something."""
        ...

    def condition(self, conn: Any) -> int:
        """Tell how a connection came back: CLEAN, SOILED or BROKEN."""
        ...

    def commit(self, conn: Any) -> None:
        """Commit what is open; called by the holder."""
        ...

    def spoken(self, conns: Sequence[Any]) -> list[bool]:
        """Tell for each of several connections whether the server has said something."""
        ...

    def check(self, conn: Any) -> None:
        """Raise unless the connection works."""
        ...

    def clean(self, conn: Any) -> None:
        """Make a connection CLEAN, or raise."""
        ...

    def cancel(self, conn: Any) -> None:
        """Cancel what a connection is doing."""
        ...

    def close(self, conn: Any) -> None:
        """Close a connection and wait a moment for the server's end of the session."""
        ...
