"""Makes connected sockets for tests of waiting, below every monkey-patch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeAlias

__all__ = ["End", "fill", "pair", "reset", "tcp_pair"]

End: TypeAlias = Any  # a `_socket.socket`
BLOCK: Final = bytes(65536)


@contextmanager
def pair() -> Iterator[tuple[End, End]]:
    """Give two ends, blocking ones; they are closed after the block if they still are open."""
    import _socket  # late: it must not be loaded before a monkey-patch

    with _closed_after(*_socket.socketpair()) as ends:
        yield ends


@contextmanager
def tcp_pair() -> Iterator[tuple[End, End]]:
    """Give two ends of a TCP connection, which can be reset."""
    import _socket

    listener: Any = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    client = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    client.connect(listener.getsockname())
    accepted = _socket.socket(fileno=listener._accept()[0])
    listener.close()
    with _closed_after(client, accepted) as ends:
        yield ends


@contextmanager
def _closed_after(one: End, other: End) -> Iterator[tuple[End, End]]:
    try:
        yield one, other
    finally:
        one.close()
        other.close()


def fill(end: End) -> None:
    """Send until no more is taken: the end is not writable then."""
    os.set_blocking(end.fileno(), False)
    with suppress(BlockingIOError):
        while True:
            end.send(BLOCK)
    os.set_blocking(end.fileno(), True)


def reset(end: End) -> None:
    """Close an end of a TCP connection so that the other one meets an error."""
    import _socket
    import struct

    end.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
