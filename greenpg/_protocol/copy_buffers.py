"""Buffers for the data of a COPY, which libpq returns row by row."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, byref, c_char, c_void_p
from functools import cache
from typing import Any, Final

from .libpq import libpq

SKIPPED: Final = 1000  # messages; half a millisecond


class Intake:
    """Reads a stream of data from the socket, in larger parts as the stream goes on."""

    def __init__(self) -> None:
        self._enlarging = 5

    def consume(self, pgconn: int) -> bool:
        """Read what has arrived into libpq's buffer; False if the connection is lost."""
        if self._enlarging:  # a read doubles a full buffer (fe-misc.c, pqReadData)
            self._enlarging -= 1
            libpq.PQconsumeInput(pgconn)
        return bool(libpq.PQconsumeInput(pgconn))


class CopyBuffer:
    """Collects the data of a COPY that libpq has received, many rows at a time."""

    SIZE: Final = 65536

    def __init__(self) -> None:
        self._memory = ctypes.create_string_buffer(2 * self.SIZE)
        self._view = memoryview(self._memory).cast("B")
        self.consume: Final = Intake().consume

    def fill(self, pgconn: int) -> tuple[bytes, bool]:
        """Return the data received, SIZE bytes or more if more may follow, and whether it ended."""
        get, memory, room = _untyped("PQgetlineAsync"), self._memory, self.SIZE
        connection = _reference(pgconn)
        position = 0
        while position < room:
            count = get(connection, byref(memory, position), room)
            if count <= 0:
                return bytes(self._view[:position]), count < 0
            position += count
        return bytes(self._view[:position]), False


@cache
def _untyped(name: str) -> Any:
    """Return a function without argument types, which ctypes need not convert: `bench -w copy`."""
    libpq.need(name)
    return libpq._dll[name]


def _reference(address: int) -> Any:
    """Return a pointer for an untyped function, faster to pass than a c_void_p: `bench -w copy`."""
    return byref(c_char.from_address(address))


def skip_copy_data(pgconn: int) -> int:
    """Discard received data of a COPY, up to SKIPPED messages.

    Returns 1 if more has been received, 0 if more may come, below 0 at the end.
    """
    data = c_void_p()
    for _ in range(SKIPPED):
        count = libpq.PQgetCopyData(pgconn, byref(data), 1)
        if count <= 0:
            return int(count)
        libpq.PQfreemem(data)
    return 1


class CopyMessages:
    """Reads whole messages of a COPY that libpq has received."""

    def __init__(self) -> None:
        self._pointer = c_void_p()
        self._reference = byref(self._pointer)
        # the same pointer as text: a slice of it makes the bytes (`greenpg bench -w replication`)
        self._text: Any = POINTER(c_char).from_buffer(self._pointer)

    def take(
        self, pgconn: int, head: int, room: int, append: Callable[[tuple[bytes, bytes]], None]
    ) -> int:
        """Pass messages on, each split after `head` bytes, until their size exceeds `room`.

        Returns PQgetCopyData's last result: above 0 after a message, 0 if the next one has not
        arrived, -1 at the transfer's end, -2 on a failure.
        """
        get, free = _untyped("PQgetCopyData"), _untyped("PQfreemem")
        text, pointer, reference = self._text, self._pointer, self._reference
        connection = _reference(pgconn)
        while (size := get(connection, reference, 1)) > 0:
            append((text[:head] if size > head else text[:size], text[head:size]))
            free(pointer)
            room -= size
            if room < 0:
                break
        return int(size)
