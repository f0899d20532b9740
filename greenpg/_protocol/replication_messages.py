"""A replication stream's messages (manual, "Streaming Replication Protocol") and positions."""

from __future__ import annotations

from datetime import datetime
from struct import Struct
from struct import error as StructError
from typing import Final

from psycopg2 import OperationalError

DATA: Final = ord("w")  # type, start and end of WAL, time
KEEPALIVE: Final = ord("k")  # type, end of WAL, time, whether a reply is requested
HEADER: Final = 25  # bytes before a data message's payload
_EPOCH: Final = 946_684_800  # 2000-01-01 UTC, the zero of the messages' times
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
    """Return where the server's WAL ends, and whether it requests an immediate reply."""
    if len(message) < _KEEPALIVE_SIZE:
        raise OperationalError("keepalive message header too small")
    end, _, reply = _keepalive(message)
    return end, reply


def other_message(message: bytes) -> tuple[int, bool]:
    """Return a keepalive message's parts: there is no other type beside data."""
    if message[0] != KEEPALIVE:
        raise OperationalError("unrecognized replication message type")
    return keepalive(message)


def moment(microseconds: int) -> datetime:
    """Return the local time for a message's time in microseconds."""
    try:
        return datetime.fromtimestamp(microseconds / 1e6 + _EPOCH)
    except (ValueError, OverflowError, OSError) as err:
        raise OperationalError(f"a message with an impossible time: {err}") from None


class Progress:
    """How far a consumer has come; positions only go forward.

    `confirmed` is the position that the consumer has flushed. `flush` also follows the server's
    end of WAL once all received messages are confirmed, so that an idle stream retains no WAL.
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
        """Note the positions of a data message; `start` is 0 in some."""
        self.wal_end = wal_end
        if start > self.start:
            self.start = start

    def kept_alive(self, wal_end: int) -> None:
        """Note the position of a keepalive message."""
        self.wal_end = wal_end
        if self.confirmed >= self.start and wal_end > self.confirmed:
            self.flush = max(self.flush, wal_end)

    def feedback(self, now: float, reply: bool) -> bytes:
        """Return the message that reports the positions; `now` is Unix time."""
        return feedback(self.write, self.flush, self.apply, now, reply)


def feedback(write: int, flush: int, apply: int, now: float, reply: bool) -> bytes:
    """Return a standby status update; `reply` asks the server for a keepalive at once."""
    return _feedback(b"r", write, flush, apply, int((now - _EPOCH) * 1e6), reply)
