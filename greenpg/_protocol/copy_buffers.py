"""Buffers for the data of a COPY, which libpq hands out row by row."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, byref, c_char, c_void_p
from functools import cache
from typing import Any, Final

from .libpq import libpq


class Intake:
    """Takes what has arrived from the socket for a stream of data, more at a time as it goes on."""

    def __init__(self) -> None:
        self._enlarging = 5

    def consume(self, pgconn: int) -> bool:
        """Let libpq read; False if the connection is lost."""
        if self._enlarging:  # it doubles a buffer that is full when it reads again
            self._enlarging -= 1
            libpq.PQconsumeInput(pgconn)
        return bool(libpq.PQconsumeInput(pgconn))


class CopyBuffer:
    """Gathers the data of a COPY that libpq has received, many rows at a time."""

    SIZE: Final = 65536

    def __init__(self) -> None:
        self._memory = ctypes.create_string_buffer(2 * self.SIZE)
        self._view = memoryview(self._memory).cast("B")
        self.consume: Final = Intake().consume

    def fill(self, pgconn: int) -> tuple[bytes, bool]:
        """Return what is there, SIZE bytes or more if there may be more, and whether it ended."""
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
    """Return a function without argument types, which is quicker; pointers are ctypes objects."""
    libpq.need(name)
    return libpq._dll[name]


def _reference(address: int) -> Any:
    """Return a pointer for an untyped function; it is quicker to pass than a c_void_p."""
    return byref(c_char.from_address(address))


def skip_copy_data(pgconn: int) -> int:
    """Discard what has arrived of a COPY; 0 if more may come, below 0 at its end."""
    data = c_void_p()
    while (count := libpq.PQgetCopyData(pgconn, byref(data), 1)) > 0:
        libpq.PQfreemem(data)
    return int(count)


class CopyMessages:
    """Takes whole messages of a COPY that libpq has received."""

    def __init__(self) -> None:
        self._pointer = c_void_p()
        self._reference = byref(self._pointer)
        # the same pointer as text: a slice is the quickest way to bytes
        self._text: Any = POINTER(c_char).from_buffer(self._pointer)

    def take(
        self, pgconn: int, head: int, room: int, append: Callable[[tuple[bytes, bytes]], None]
    ) -> int:
        """Pass messages on, each parted after `head` bytes, until their size exceeds `room`.

        Returns libpq's word on the next one: above 0 it is there, 0 means not yet, -1 is the
        transfer's end, -2 a failure.
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
