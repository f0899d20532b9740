"""Pipeline mode for many tasks: groups of statements, each ended by a Sync of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from psycopg2 import OperationalError

from .generators import COPYING, UNEXPECTED
from .libpq import (
    PGRES_COMMAND_OK,
    PGRES_PIPELINE_SYNC,
    PGRES_TUPLES_OK,
    as_pointer,
    error_message,
    libpq,
)  # fmt: skip

if TYPE_CHECKING:
    from .libpq import Pointer
    from .prepared import Command

MOST: Final = 1 << 18  # bytes that are queued until the socket has taken them
OVERHEAD: Final = 64  # bytes of the messages around a statement, about


class Group(Protocol):
    """Statements of one task, and one transaction; its error touches no other group."""

    statements: Sequence[bytes]
    answers: list[tuple[Pointer, int]]  # libpq's results, each with its status; the group owns them
    size: int  # the length of a prepared statement's values
    before: int  # commands that prepare it, whose answers are dropped; not 0 at its end: one failed
    values: Any  # of a prepared statement's parameters


class Groups:
    """Groups under way on one connection; `sent` holds them in the order of their answers.

    `ended` has those with all answers, until the caller of `receive` clears it: no interrupt loses
    a group between the two.

    `rest` is what is still to be queued of a long group, None if nothing is. `commands` has the
    tags of commands that have ended since somebody last cleared it.

    Nothing here waits. Where tasks are OS threads, one of them may send while another receives:
    each call into libpq keeps the GIL, and a group is in `sent` before libpq has it.
    """

    def __init__(self, pgconn: int) -> None:
        self._pgconn: Any = as_pointer(pgconn)  # ctypes has nothing left to convert
        self.sent: deque[Any] = deque()
        self.ended: list[Any] = []
        self.broken: OperationalError | None = None
        self.rest: Any = None  # an iterator over statements
        self._queued = 0  # bytes since libpq last had nothing left to send
        self.commands: list[tuple[Any, bytes]] = []
        quick = libpq.quick
        self._query, self._prepared = quick("PQsendQueryParams"), quick("PQsendQueryPrepared")
        at_once = not libpq.has("PQsendPipelineSync")  # libpq 17's, which leaves it to PQflush
        self._sync = quick("PQpipelineSync" if at_once else "PQsendPipelineSync")
        self._busy, self._result = quick("PQisBusy"), quick("PQgetResult")
        self._flush, self._input = quick("PQflush"), quick("PQconsumeInput")
        self._status, self._clear = quick("PQresultStatus"), quick("PQclear")

    def enter(self) -> None:
        """Switch libpq to pipeline mode."""
        self._check(libpq.PQenterPipelineMode(self._pgconn))

    def leave(self) -> None:
        """Leave pipeline mode; nothing may be under way."""
        self._check(libpq.PQexitPipelineMode(self._pgconn))

    def _check(self, ok: int) -> None:
        if not ok:
            raise self.lost()

    def lost(self) -> OperationalError:
        """Return the error for a connection that libpq has lost."""
        return OperationalError(error_message(self._pgconn).strip() or UNEXPECTED)

    def send(self, group: Any) -> None:
        """Queue a group, of a long one the first part; OperationalError if libpq refuses."""
        statements, pgconn = group.statements, self._pgconn
        self.sent.append(group)
        if len(statements) == 1:
            self._queued += len(statements[0])
            ok = self._query(pgconn, statements[0], 0, None, None, None, None, 0)
            self._check(ok and self._sync(pgconn))
        else:
            self.rest = iter(statements)
            self.send_on()

    def send_prepared(self, group: Any, name: bytes) -> None:
        """Queue a group that is one prepared statement."""
        values, pgconn = group.values, self._pgconn
        self._queued += group.size
        if not group.before:  # else it is in `sent`
            self.sent.append(group)
        count = 0 if values is None else len(values)
        if not (self._prepared(pgconn, name, count, values, None, None, 0) and self._sync(pgconn)):
            raise self.lost()

    def prepare(self, group: Any, commands: Sequence[Command]) -> None:
        """Queue commands that prepare a group's statement; the group is to be sent next."""
        self.sent.append(group)
        group.before = len(commands)
        self._queued += len(group.statements[0])
        for command in commands:
            self._check(command(self._pgconn))

    def send_on(self) -> None:
        """Queue more of a long group, until the socket takes no more."""
        pgconn = self._pgconn
        while self.rest is not None and not self.is_full():
            sql = next(self.rest, None)
            if sql is None:
                self.rest = None
                self._check(self._sync(pgconn))
            else:
                self._queued += len(sql) + OVERHEAD
                self._check(self._query(pgconn, sql, 0, None, None, None, None, 0))

    def is_full(self) -> bool:
        """Return True if so much is queued that more would only take memory."""
        return self._queued >= MOST and not self._drained()

    def _drained(self) -> bool:
        if self._flush(self._pgconn) == 1:
            return False
        self._queued = 0
        return True

    def flush(self) -> bool:
        """Send what is queued; return False if a part is left for later.

        A lost connection is noticed where answers are read.
        """
        return self._drained() and self.rest is None

    def receive(self) -> list[Any]:
        """Read what has arrived, and return the groups that have all answers.

        `broken` is then the error that ends the connection, if it is lost or out of step; nothing
        more may come that would wake the reader.
        """
        if not self._input(self._pgconn):
            self.broken = self.lost()
        ended = self._take()
        if self.sent and libpq.PQstatus(self._pgconn):  # libpq itself has closed the socket
            self.broken = self.broken or self.lost()
        return ended

    def _take(self) -> list[Any]:
        pgconn, sent, ended = self._pgconn, self.sent, self.ended
        busy, result_of, status_of, clear = self._busy, self._result, self._status, self._clear
        while sent and not busy(pgconn):
            result = result_of(pgconn)
            if not result:  # nothing of it has been sent yet (by another OS thread)
                break
            status, group = status_of(result), sent[0]
            if status == PGRES_TUPLES_OK:
                group.answers.append((result, status))
            elif status == PGRES_PIPELINE_SYNC:
                clear(result)
                if group.statements and not group.answers:
                    self.broken = OperationalError(UNEXPECTED)
                    break
                ended.append(group)
                sent.popleft()
                continue
            elif not self._take_other(group, result, status):
                break
            if result_of(pgconn):  # else None, the end of the command's results
                self.broken = OperationalError(UNEXPECTED)
                break
        return ended

    def _take_other(self, group: Any, result: Any, status: int) -> bool:
        """Take the result of a command, or an error; return False for that of a COPY."""
        if group.before and status == PGRES_COMMAND_OK:
            group.before -= 1
            self._clear(result)
            return True
        group.answers.append((result, status))
        if status in COPYING:  # libpq makes its result again and again (fe-exec.c)
            self.broken = OperationalError(UNEXPECTED)
            return False
        if status == PGRES_COMMAND_OK:
            self.commands.append((group, libpq.PQcmdStatus(result)))
        return True
