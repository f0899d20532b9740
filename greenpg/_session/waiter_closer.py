"""The end of a waiter whose connection is dropped without a close."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from greenpg.backend import Waiter


class WaiterCloser(list["Waiter"]):
    """Closes the waiter before psycopg2's deallocator closes the socket.

    Only the connection refers to it. A weakref's callback would run too late: connection_dealloc
    (psycopg2, connection_type.c) clears weak references after it has closed the socket.
    """

    __slots__ = ()

    def __del__(self) -> None:
        for waiter in self:
            waiter.close()
