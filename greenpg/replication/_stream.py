"""A replication stream on one connection: messages one way, feedback the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from psycopg2 import DatabaseError, Error, OperationalError
from psycopg2 import extensions as ext

from greenpg._protocol.copy_buffers import CopyMessages, Intake
from greenpg._protocol.generators import COPYING, UNEXPECTED
from greenpg._protocol.libpq import (
    PGRES_COPY_IN,
    PGRES_FATAL_ERROR,
    error_message,
    libpq,
)
from greenpg._protocol.replication_messages import HEADER, Progress, other_message
from greenpg._protocol.results import error_of
from greenpg._psycopg2.operation import guarded, pgconn_of
from greenpg._psycopg2.psycopg2_c import checked_poll
from greenpg._session.input_wait import InputWait
from greenpg.backend import READ, WRITE

if TYPE_CHECKING:
    from greenpg.backend import Event

_T = TypeVar("_T")
ROOM: Final = 65536  # bytes of messages taken at a time: `greenpg bench -w replication`
BUSY: Final = 0.3  # seconds; far below the default wal_sender_timeout of 60 s
SHORTEST: Final = 0.01  # seconds
FATAL: Final = ("FATAL", "PANIC")  # severities after which the session has ended


class ReplicationStream:
    """One cursor's stream. Only `wait` waits; an interrupt does not end the stream.

    Feedback that the socket has no room for is sent with the next read: the server reads it
    once it no longer waits for the client.
    """

    def __init__(self, conn: Any) -> None:
        self.progress = Progress()
        self.ahead: deque[tuple[bytes, bytes]] = deque()  # taken from libpq, not consumed yet
        self.codec: str | None = None
        self.interval = 10.0
        self.due = 0.0  # monotonic time of the next feedback
        self.active = False
        self.io_time = self.feedback_time = 0.0
        self._conn = conn
        self._messages = CopyMessages()
        self._consume = Intake().consume
        self._readings = 1
        self._input = InputWait(conn)
        self._half_ended = False
        self._ended = False  # no more messages, but perhaps an error to fetch
        self._error: Error | None = None
        self._unflushed = False
        self._feedback_pending: bool | None = None  # requested by another task; True with a reply

    def begin(self, codec: str | None, interval: float) -> None:
        """Reset for a stream that the server has started."""
        self.codec, self.interval = codec, interval
        self.active, self._half_ended, self._ended, self._error = True, False, False, None
        self.ahead.clear()
        self.io_time = time()
        # the first read may leave part of a TLS record in OpenSSL, where poll() does not see it
        self._readings = 2 if self._conn.info.ssl_in_use else 1

    def stop(self) -> None:
        """Discard the stream."""
        self.active = False
        self.ahead.clear()

    def read(self) -> bool:
        """Read messages into `ahead`, send feedback if due; return False if `ahead` is empty.

        The end of the stream sets `active` to False; the server's error is raised.
        """
        guarded(self._conn, self._read)
        return bool(self.ahead)

    def send_feedback(self, reply: bool = False) -> None:
        """Send feedback now; if another task waits for the stream, that task sends it."""
        if self._input.waiting:
            self._feedback_pending = reply or bool(self._feedback_pending)
            self._input.wake()
        else:
            guarded(self._conn, self._feed, reply)

    def handle_keepalive(self, message: bytes) -> None:
        """Note a keepalive message, and reply if requested; see `parsed` for other types.

        Many may follow one another without a message for the consumer, so other tasks run.
        """
        wal_end, reply = self.parsed(other_message, message)
        self.progress.kept_alive(wal_end)
        if reply:
            self.send_feedback()
        self._conn._greenpg_state.time_slice.pause_if_over()

    def parsed(self, parse: Callable[[bytes], _T], message: bytes) -> _T:
        """Return the parts of a message; what no server sends closes the connection."""
        try:
            return parse(message)
        except OperationalError:
            self.stop()
            self._conn.close()
            raise

    def wait(self) -> None:
        """Wait for data or for feedback to send; `feedback_loop` keeps the interval."""
        events = READ | WRITE if self._unflushed else READ
        self._input.wait(None, lambda: self._feedback_pending is not None, events)

    def feedback_loop(self, done: Event) -> None:
        """Until `done`, send feedback when due, and every BUSY seconds while the consumer is busy.

        A busy consumer does not answer keepalives: after wal_sender_timeout the server disconnects.
        """
        while not done.wait(min(BUSY, max(self.due - monotonic(), SHORTEST))):
            waiting, holder = self._input.waiting, self._conn._greenpg_state.holder
            wanted = monotonic() >= self.due if waiting else holder is None
            if wanted and self.active and not self._conn.closed:
                with suppress(Error):  # the consumer gets the same error
                    self.send_feedback()

    def _read(self) -> None:
        pgconn, _ = pgconn_of(self._conn)
        if not self._ended:
            self._gather(pgconn)
        if self._ended and not self.ahead:
            self._finish(pgconn)
            if self.active:  # the result is incomplete
                if not libpq.PQconsumeInput(pgconn):
                    raise self._lost(pgconn)
                self._finish(pgconn)
        due = self._feedback_pending is not None or monotonic() >= self.due
        if due and not self._ended and not libpq.PQstatus(pgconn):
            reply, self._feedback_pending = bool(self._feedback_pending), None
            self._feed(reply)  # on a lost connection it would replace the error

    def _gather(self, pgconn: int) -> None:
        """Take messages from libpq; read the socket only if libpq has none."""
        take, ahead = self._messages.take, self.ahead
        status = take(pgconn, HEADER, ROOM, ahead.append)
        for _ in range(self._readings):
            if status == 0 and not ahead:
                alive = self._consume(pgconn)  # if not, earlier data may contain the error
                status = take(pgconn, HEADER, ROOM, ahead.append)
                if not alive and status == 0 and not ahead:
                    raise self._lost(pgconn)
        if status == -2 and not ahead:
            raise self._lost(pgconn)
        self._ended = status == -1
        if ahead:
            self.io_time = time()

    def _finish(self, pgconn: int) -> None:
        """Fetch the results that end the stream, as far as they have arrived."""
        while not libpq.PQisBusy(pgconn):
            result = libpq.PQgetResult(pgconn)
            if not result:
                self.stop()
                break
            self._take(pgconn, result)
        error = self._error
        if error is not None and (not self.active or error.diag.severity_nonlocalized in FATAL):
            self.stop()
            raise self._noticed(error)

    def _take(self, pgconn: int, result: int) -> None:
        try:
            status = libpq.PQresultStatus(result)
            if status == PGRES_COPY_IN and not self._half_ended:
                self._half_ended = True  # by the server; this ends our direction
                libpq.PQputCopyEnd(pgconn, None)
                libpq.PQflush(pgconn)
            elif status in COPYING:  # libpq would make such results without an end
                raise self._unexpected()
            elif status == PGRES_FATAL_ERROR and self._error is None:
                self._error = error_of(result, ext.encodings[self._conn.encoding])
        finally:
            libpq.PQclear(result)

    def _feed(self, reply: bool) -> None:
        pgconn, _ = pgconn_of(self._conn)
        message = self.progress.feedback(time(), reply)
        if libpq.PQputCopyData(pgconn, message, len(message)) < 0:
            raise self._failure(pgconn)  # the next read ends the stream
        self._unflushed = libpq.PQflush(pgconn) == 1
        self.io_time = self.feedback_time = time()
        self.due = monotonic() + self.interval

    def _lost(self, pgconn: int) -> Error:
        self.stop()
        return self._noticed(self._error or self._failure(pgconn))

    def _unexpected(self) -> Error:
        """Close the connection; return the error for an answer that libpq cannot be rid of."""
        self.stop()
        self._conn._greenpg_state.shut(self._conn)
        return OperationalError(UNEXPECTED)

    def _failure(self, pgconn: int) -> Error:
        kind = OperationalError if libpq.PQstatus(pgconn) else DatabaseError
        return kind(error_message(pgconn))

    def _noticed(self, error: Error) -> Error:
        """Let psycopg2 detect a lost connection too; return the error."""
        with suppress(Error):
            checked_poll(self._conn)
        if self._conn.closed:
            self._conn._greenpg_state.waiter.close()
        return error
