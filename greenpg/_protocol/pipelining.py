"""libpq's pipeline mode as steps: many commands are sent before the first is answered."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final, Protocol

from psycopg2 import OperationalError

from greenpg.backend import READ, WRITE

from .generators import COPYING, UNEXPECTED, Steps, flush
from .libpq import PGRES_PIPELINE_SYNC, error_message, libpq

PIPELINES: Final = ("PQenterPipelineMode", "PQpipelineSync", "PQsendFlushRequest")
EVERY: Final = 256  # commands between two reads of the server's answers


def has_pipelines() -> bool:
    """Return True if libpq has pipeline mode (PostgreSQL 14 and later)."""
    return libpq.has(*PIPELINES)


class Answer(Protocol):
    """Receives one command's results."""

    def take(self, result: int, status: int) -> bool | None:
        """Read a result; it is freed afterwards, unless this returns True to keep it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Sync:
    """The end of a group; `answer` receives an error of the group's commit."""

    answer: Answer | None

    def take(self, result: int, status: int) -> None:
        if self.answer is not None:
            self.answer.take(result, status)


class Pipe:
    """The commands that were sent and not answered, Syncs among them."""

    def __init__(self, pgconn: int, fd: int) -> None:
        self._pgconn = pgconn
        self._fd = fd
        self._waiting: deque[Answer] = deque()
        self._answered = False
        self._torn = False  # an exception came between a call of libpq and its count here
        self.sent = 0
        self._settled = True

    def enter(self) -> None:
        """Switch libpq to pipeline mode."""
        self._check(libpq.PQenterPipelineMode(self._pgconn))

    def leave(self) -> None:
        """Leave pipeline mode; all commands have been answered."""
        self._check(libpq.PQexitPipelineMode(self._pgconn))

    def send(self, answer: Answer, sql: bytes) -> None:
        """Queue a statement without parameters."""
        self._torn = True
        sent = libpq.PQsendQueryParams(self._pgconn, sql, 0, None, None, None, None, 0)
        self._sent(answer, sent)

    def prepare(self, answer: Answer, sql: bytes, types: Any) -> None:
        """Queue the preparation of the unnamed statement."""
        self._torn = True
        self._sent(answer, libpq.PQsendPrepare(self._pgconn, b"", sql, len(types), types))

    def send_prepared(self, answer: Answer, values: Any) -> None:
        """Queue an execution of the unnamed statement with text values."""
        count = len(values)
        self._torn = True
        sent = libpq.PQsendQueryPrepared(self._pgconn, b"", count, values, None, None, 0)
        self._sent(answer, sent)

    def _sent(self, answer: Answer, ok: int) -> None:
        if ok:
            self._waiting.append(answer)
            self.sent += 1
        self._torn = False
        self._check(ok)

    def _check(self, ok: int) -> None:
        if not ok:
            raise OperationalError(error_message(self._pgconn) or "pipeline mode failed")

    def turn(self) -> Steps:
        """After every EVERY commands, read answers, send, and let other tasks run."""
        if self.sent % EVERY == 0:
            yield from self.pump()
            yield self._fd, 0

    def pause(self) -> Steps:
        """Let other tasks run."""
        yield self._fd, 0

    def pump(self) -> Steps:
        """Send all queued commands, reading answers meanwhile."""
        self._receive()
        while libpq.PQflush(self._pgconn) == 1:
            yield self._fd, READ | WRITE
            self._receive()

    def sync(self, answer: Answer | None = None) -> Steps:
        """End a group of commands and its error state; `answer` receives an error of its commit."""
        end = _Sync(answer)
        self._torn = True
        ok = libpq.PQpipelineSync(self._pgconn)
        if ok:
            self._waiting.append(end)
        self._torn = False
        self._check(ok)
        yield from self.pump()

    def until(self, answer: Answer) -> Steps:
        """Wait until the server has answered this command."""
        if answer in self._waiting:
            self._check(libpq.PQsendFlushRequest(self._pgconn))
            yield from self.finish(len(self._waiting) - self._waiting.index(answer) - 1)

    def finish(self, left: int = 0) -> Steps:
        """Wait until all but the last `left` commands have been answered."""
        yield from flush(self._pgconn, self._fd)
        self._absorb()
        while len(self._waiting) > left:
            yield self._fd, READ
            self._receive()

    def is_settled(self) -> bool:
        """Return True if results have come since this last was True, and none is to come."""
        if self._settled or self._waiting:
            return False
        self._settled = True
        return True

    def abandon(self, answer: Answer | None = None) -> Steps:
        """Synchronise, read all answers, and leave pipeline mode; also after a cancel."""
        if not self._waiting or not isinstance(self._waiting[-1], _Sync):
            yield from self.sync(answer)
        yield from self.finish()
        self.leave()

    def _receive(self) -> None:
        self._check(libpq.PQconsumeInput(self._pgconn))
        self._absorb()

    def _absorb(self) -> None:
        if self._torn:
            raise OperationalError("the pipeline's answers cannot be matched to its statements")
        pgconn, waiting, nothing = self._pgconn, self._waiting, 0
        while waiting and not libpq.PQisBusy(pgconn):
            self._torn = True
            result = libpq.PQgetResult(pgconn)
            if result:
                self._take(result)
                nothing = 0
            elif self._answered:  # the end of a command's results
                self._answered = False
                if not isinstance(waiting[0], _Sync):  # PGRES_PIPELINE_SYNC follows its error
                    waiting.popleft()
            elif nothing > 1:  # libpq has dropped commands, after an answer that it refused
                raise OperationalError(UNEXPECTED)
            else:
                nothing += 1
            self._torn = False

    def _take(self, result: int) -> None:
        status = libpq.PQresultStatus(result)
        if status == PGRES_PIPELINE_SYNC or status in COPYING:
            libpq.PQclear(result)
            if status in COPYING:  # libpq makes its result again and again (fe-exec.c)
                raise OperationalError("the server has begun a COPY, which no pipeline can run")
            if not isinstance(self._waiting[0], _Sync):
                raise OperationalError(UNEXPECTED)
            self._waiting.popleft()
            return
        self._answered = True
        self._settled = False
        # an exception here leaks the result; the other order could free it twice
        if not self._waiting[0].take(result, status):
            libpq.PQclear(result)
