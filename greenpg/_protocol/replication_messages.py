"""The messages in a replication stream: bytes to meaning, and what a position stands for."""

from __future__ import annotations

from datetime import datetime
from struct import Struct
from struct import error as StructError
from typing import Final

from psycopg2 import OperationalError

DATA: Final = ord("w")  # type, start and end of WAL, time
KEEPALIVE: Final = ord("k")  # type, end of WAL, time, whether a reply is wanted
HEADER: Final = 25  # bytes before a data message's payload
_EPOCH: Final = 946_684_800  # 2000-01-01 UTC, where the server's clock begins
_data: Final = Struct(">xQQq").unpack_from
_keepalive: Final = Struct(">xQq?").unpack_from
_KEEPALIVE_SIZE: Final = 18
_feedback: Final = Struct(">cQQQq?").pack


def data_header(header: bytes) -> tuple[int, int, int]:
    """Return where the payload starts, where the server's WAL ends, and when it was sent."""
    try:
        return _data(header)
    except StructError:
        raise OperationalError("data message header too small") from None


def keepalive(message: bytes) -> tuple[int, bool]:
    """Return where the server's WAL ends, and whether it wants an answer at once."""
    if len(message) < _KEEPALIVE_SIZE:
        raise OperationalError("keepalive message header too small")
    end, _, reply = _keepalive(message)
    return end, reply


def moment(microseconds: int) -> datetime:
    """Return the local time of a time in a message."""
    return datetime.fromtimestamp(microseconds / 1e6 + _EPOCH)


class Progress:
    """How far a consumer has come; positions only go forward.

    `confirmed` is what the consumer itself said of `flush`, which also follows the server's
    end of WAL when all that was received is confirmed, so that an idle stream holds no WAL back.
    """

    __slots__ = ("apply", "confirmed", "flush", "start", "wal_end", "write")

    def __init__(self) -> None:
        self.write = self.flush = self.apply = self.confirmed = 0
        self.start = 0  # of the last data message
        self.wal_end = 0

    def confirm(self, write: int, flush: int, apply: int) -> None:
        """Note what the consumer has written, flushed and applied."""
        self.write = max(self.write, write)
        self.flush = max(self.flush, flush)
        self.confirmed = max(self.confirmed, flush)
        self.apply = max(self.apply, apply)

    def received(self, start: int, wal_end: int) -> None:
        """Take the positions of a data message; some have no `start` of their own."""
        self.wal_end = wal_end
        if start > self.start:
            self.start = start

    def kept_alive(self, wal_end: int) -> None:
        """Take the position of a keepalive message."""
        self.wal_end = wal_end
        if self.confirmed >= self.start and wal_end > self.confirmed:
            self.flush = max(self.flush, wal_end)

    def feedback(self, now: float, reply: bool) -> bytes:
        """Return the message that tells the server; `now` is Unix time."""
        return feedback(self.write, self.flush, self.apply, now, reply)


def feedback(write: int, flush: int, apply: int, now: float, reply: bool) -> bytes:
    """Return a standby status update; `reply` asks the server for a keepalive at once."""
    return _feedback(b"r", write, flush, apply, int((now - _EPOCH) * 1e6), reply)
