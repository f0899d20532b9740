"""Replication: psycopg2's cursor and connections for it, green."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final

from psycopg2 import InterfaceError, ProgrammingError, extras
from psycopg2 import extensions as ext
from psycopg2._psycopg import ReplicationConnection as c_replication_connection
from psycopg2._psycopg import ReplicationCursor as c_replication_cursor
from psycopg2._psycopg import ReplicationMessage as c_replication_message

from greenpg._checks import check_count, check_members, check_options, check_seconds
from greenpg._connecting.connect import connect_untraced
from greenpg._green_classes import become, green, green_class, with_c_methods
from greenpg._protocol.generators import finish
from greenpg._protocol.replication_messages import DATA, data_header, moment
from greenpg._psycopg2.operation import pgconn_of, run_operation
from greenpg.backend import Backend, as_backend, current
from greenpg.connection import Connection, planned
from greenpg.cursor import Cursor
from greenpg.sync import Deadline

from ._follow import Follower
from ._stream import ReplicationStream


class ReplicationMessage(c_replication_message):
    """A message of the stream, with psycopg2's attributes."""

    __slots__ = ("_sent", "data_size", "data_start", "wal_end")

    data_size: int
    data_start: int
    wal_end: int
    _sent: int

    @property
    def send_time(self) -> datetime:
        """When the server sent the message, in local time."""
        return moment(self._sent)

    def __repr__(self) -> str:
        return (
            f"<ReplicationMessage object at {id(self):#x}; data_size: {self.data_size}; "
            f"data_start: {_lsn(self.data_start)}; wal_end: {_lsn(self.wal_end)}; "
            f"send_time: {self._sent}>"
        )


def _lsn(position: int) -> str:
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:08X}"


@green(c_replication_connection)
class GreenReplicationConnection(  # type: ignore[misc]  # two overloads of cursor()
    c_replication_connection, Connection
):
    """psycopg2's replication connection, which refuses some settings, above the green one."""

    def __init__(self, dsn: str, *args: Any, **kwargs: Any) -> None:
        """Connect as `Connection.__init__` does, which psycopg2's class does not call."""
        super().__init__(planned(self, dsn), *args, **kwargs)


@green(c_replication_cursor)
class GreenReplicationCursor(Cursor, c_replication_cursor):
    """psycopg2's replication cursor over the connection's backend.

    While messages are consumed, other tasks can use the connection for feedback. An interrupt
    leaves the stream open: continue to consume, or end it with `stop_replication`.
    """

    _greenpg_consuming = False
    _greenpg_its_stream: ReplicationStream | None = None

    def __init__(self, conn: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(conn, *args, **kwargs)
        if not hasattr(conn, "_greenpg_state"):  # a plain connection
            become(self, _PlainReplicationCursor)

    @property
    def _greenpg_stream(self) -> ReplicationStream:
        if self.closed:
            raise InterfaceError("cursor already closed")
        if self._greenpg_its_stream is None:
            self._greenpg_its_stream = ReplicationStream(self.connection)
        return self._greenpg_its_stream

    def start_replication_expert(
        self, command: Any, decode: bool = False, status_interval: float = 10
    ) -> None:
        """Start the stream with the given START_REPLICATION command."""
        stream = self._greenpg_stream
        check_seconds("status_interval", status_interval)
        if status_interval < 1.0:
            raise ProgrammingError("status_interval must be >= 1 (sec)")
        conn = self.connection
        Cursor.execute(self, command)
        if conn.async_ or conn.get_transaction_status() == ext.TRANSACTION_STATUS_ACTIVE:
            stream.begin(ext.encodings[conn.encoding] if decode else None, status_interval)

    def read_message(self) -> ReplicationMessage | None:
        """Return the next message that has arrived, or None; never waits."""
        stream = self._greenpg_stream
        if not stream.active:
            raise ProgrammingError("read_message: not replicating, call start_replication first")
        return self._greenpg_next(stream)

    def consume_stream(
        self, consume: Callable[[Any], object], keepalive_interval: float | None = None
    ) -> None:
        """Call `consume(message)` for each message; returns when the server ends the stream.

        Exceptions of `consume`, also StopReplication, propagate and leave the stream at the next
        message, where another call continues. While `consume` runs, a task sends feedback.
        """
        if self.connection.async_:
            raise ProgrammingError("consume_stream cannot be used in asynchronous mode")
        interval = _checked(keepalive_interval)
        stream = self._greenpg_stream
        if self._greenpg_consuming:
            raise ProgrammingError("consume_stream cannot be used when already in the consume loop")
        if not stream.active:
            raise ProgrammingError("consume_stream: not replicating, call start_replication first")
        if interval is not None:
            stream.interval = interval
        backend = self.connection._greenpg_state.backend
        done = backend.event()
        self._greenpg_consuming = True
        try:
            backend.spawn(stream.feedback_loop, done)
            self._greenpg_consume(stream, consume)
        finally:
            self._greenpg_consuming = False
            done.set()

    def _greenpg_consume(self, stream: ReplicationStream, consume: Callable[[Any], object]) -> None:
        conn = self.connection
        time_slice = conn._greenpg_state.time_slice
        while stream.active:
            message = self._greenpg_next(stream)
            if message is not None:
                consume(message)
            elif stream.active:
                stream.wait()
                time_slice.restart()
            time_slice.pause_if_over()

    def _greenpg_next(self, stream: ReplicationStream) -> ReplicationMessage | None:
        ahead = stream.ahead
        while ahead or self._greenpg_stream.read():
            header, payload = ahead.popleft()
            if header[0] == DATA:
                return self._greenpg_message(stream, header, payload)
            stream.handle_keepalive(header)
        return None

    def _greenpg_message(
        self, stream: ReplicationStream, header: bytes, payload: bytes
    ) -> ReplicationMessage:
        start, wal_end, sent = stream.parsed(data_header, header)
        codec = stream.codec
        message = ReplicationMessage(self, payload if codec is None else payload.decode(codec))
        message.data_size = len(payload)
        message.data_start = start
        message.wal_end = wal_end
        message._sent = sent
        stream.progress.received(start, wal_end)
        return message

    def send_feedback(
        self,
        write_lsn: int = 0,
        flush_lsn: int = 0,
        apply_lsn: int = 0,
        reply: bool = False,
        force: bool = False,
    ) -> None:
        """Note the consumer's positions; `force` sends them now, not at the next interval.

        From any task. `reply` also sends them now, and requests a keepalive message.
        """
        stream = self._greenpg_stream
        stream.progress.confirm(write_lsn, flush_lsn, apply_lsn)
        if force or reply:
            stream.send_feedback(bool(reply))

    def stop_replication(self) -> None:
        """Send the consumer's positions to the server, and end the stream.

        The connection stays usable, but another stream of a logical slot needs a new one. If the
        server does not answer within `cancel_timeout` the connection is closed.
        """
        stream = self._greenpg_stream
        if not stream.active:
            return
        conn = self.connection
        stream.send_feedback()
        stream.stop()
        pgconn, fd = pgconn_of(conn)
        with Deadline(conn, conn._greenpg_state.cancel_timeout):
            run_operation(conn, finish(pgconn, fd), lambda: finish(pgconn, fd))

    @property
    def flush_lsn(self) -> int:
        """The flushed position: `send_feedback`'s, or the end of WAL once all is confirmed."""
        return 0 if self._greenpg_its_stream is None else self._greenpg_its_stream.progress.flush

    @property
    def wal_end(self) -> int:
        """The end of the server's WAL in its last message."""
        return 0 if self._greenpg_its_stream is None else self._greenpg_its_stream.progress.wal_end

    @property
    def io_timestamp(self) -> datetime:
        """When data was last sent or received, in local time."""
        return datetime.fromtimestamp(self._greenpg_stream.io_time)

    @property
    def feedback_timestamp(self) -> datetime:
        """When feedback was last sent, in local time."""
        return datetime.fromtimestamp(self._greenpg_stream.feedback_time)


_PlainReplicationCursor: Final = with_c_methods(GreenReplicationCursor, c_replication_cursor)


def _checked(interval: Any) -> float | None:
    if interval is None:
        return None
    if not isinstance(interval, int | float):
        raise ProgrammingError("keepalive_interval must be int or float")
    if not interval >= 1.0:
        raise ProgrammingError("keepalive_interval must be >= 1 (sec)")
    return float(interval)


ReplicationCursor: Any = green_class(extras.ReplicationCursor)
LogicalReplicationConnection: Any = green_class(extras.LogicalReplicationConnection)
PhysicalReplicationConnection: Any = green_class(extras.PhysicalReplicationConnection)


def follow(
    dsn: str,
    slot_name: str,
    consume: Callable[[Any], object],
    *,
    options: Mapping[str, object] | None = None,
    decode: bool = False,
    start_lsn: int = 0,
    status_interval: float = 10,
    confirm: bool = True,
    patience: float | None = None,
    backend: str | Backend | None = None,
) -> int:
    """Consume a logical slot, connecting again whenever the connection is lost.

    `consume(message)` is called as by `consume_stream`. Its return confirms the message; with
    `confirm=False` it calls `message.cursor.send_feedback(flush_lsn=...)` itself. A new
    connection continues after the last confirmed transaction: every message is delivered at least
    once, and an interrupted transaction again from its beginning, its messages in order.

    Returns the confirmed position when `consume` raises StopReplication. Other exceptions of
    `consume` propagate, as do errors of the first connection, errors that a new connection cannot
    repair, and the last error after `patience` seconds without a stream.
    """
    check_members("a function for consume", "__call__", consume)
    check_options(options=options)
    check_count("start_lsn", start_lsn)
    check_seconds("status_interval", status_interval)
    check_seconds("patience", patience, none=True)

    def confirming(message: Any) -> None:
        consume(message)
        message.cursor.send_feedback(flush_lsn=message.data_start)

    def begin(cur: Any, position: int) -> None:
        cur.start_replication(
            slot_name=slot_name,
            start_lsn=max(position, start_lsn),
            options=dict(options or {}),
            decode=decode,
            status_interval=status_interval,
        )

    chosen = current() if backend is None else as_backend(backend)
    factory = LogicalReplicationConnection
    connected = partial(connect_untraced, dsn, connection_factory=factory, backend=chosen)
    follower = Follower(connected, begin, confirming if confirm else consume, chosen, patience)
    follower.run()
    return follower.position
