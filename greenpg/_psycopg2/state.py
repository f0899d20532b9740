"""What psycopg2's room knows of one connection, beside the driver-neutral session."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Final, Protocol

from psycopg2 import Error, InterfaceError, OperationalError, ProgrammingError
from psycopg2 import extensions as ext

from greenpg._protocol.generators import finish
from greenpg._protocol.libpq import libpq
from greenpg._session.errors import ErrorClasses
from greenpg._session.lock import Once
from greenpg._session.session import Session, TransactionStatus
from greenpg.errors import DeadlineExceeded, InFailedSqlTransaction

from .cancel_request import cancel_query
from .psycopg2_c import autocommit_of, close, rollback, transaction_status
from .rollback_statements import is_rollback

if TYPE_CHECKING:
    from greenpg._session.connect_plan import Plan
    from greenpg._session.shield import Shield
    from greenpg.backend import Backend

ACTIVE: Final = TransactionStatus.ACTIVE
log = logging.getLogger("greenpg")

ERRORS: Final = ErrorClasses(
    error=Error,
    interface=InterfaceError,
    operational=OperationalError,
    programming=ProgrammingError,
    deadline_exceeded=DeadlineExceeded,
    failed_transaction=InFailedSqlTransaction,
)


class CopyJob(Protocol):
    """What to do once the server has begun a COPY."""

    error: BaseException | None
    lasting: bool  # the COPY goes on beyond the statement that began it

    def steps(self, pgconn: int, fd: int, status: int) -> Generator[tuple[int, int], None, None]:
        """Return the steps of the transfer; `status` is PGRES_COPY_IN or PGRES_COPY_OUT."""


class State(Session):
    """A psycopg2 connection's session; its fields are described in the room's docstring."""

    __slots__ = (
        "attempt", "block_paused", "collector", "copy_may_be_running", "cursors_fetching",
        "delivering", "inbox", "job", "plan", "sending_blocked", "status_uncertain",
    )  # fmt: skip

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend, ERRORS)
        self.attempt: Any = None  # an Attempt, if greenpg makes the connection
        self.job: CopyJob | None = None
        self.block_paused: Once | None = None
        self.copy_may_be_running = False
        self.status_uncertain = False
        self.sending_blocked = False
        self.cursors_fetching: list[Any] = []
        self.collector: Any = None
        self.inbox: list[Any] = []
        self.delivering = False
        self.plan: Plan | None = None

    def is_rollback(self, statement: Any) -> bool:
        return is_rollback(statement)

    def needs_recovery(self) -> bool:
        return bool(
            super().needs_recovery() or self.sending_blocked or self.status_uncertain
            or self.copy_may_be_running or self.collector is not None
        )  # fmt: skip

    def note_copy(self) -> None:
        """Note that psycopg2 may have abandoned a COPY half-way."""
        self.copy_may_be_running = self.exit_needs_check = True

    def note_failure(self) -> None:
        """Note that an operation failed half-way, so that psycopg2's status may be wrong."""
        self.status_uncertain = self.exit_needs_check = True

    def note_blocked(self) -> None:
        """Note that libpq may be in pipeline mode, where psycopg2 can send nothing more."""
        self.sending_blocked = self.exit_needs_check = True

    def set_collector(self, collector: Any) -> None:
        """Append notifications to `collector` after each operation; None: psycopg2 appends."""
        self.collector = collector
        if collector is not None:
            self.exit_needs_check = True

    def pause_block(self) -> None:
        """Note that the task of a block, such as COPY's, goes back to its own code."""
        self.block_paused = Once()

    def resume_block(self, who: int) -> bool:
        """Take libpq from a paused block, for its own task or for `close`; one wins."""
        paused = self.block_paused
        return paused is not None and bool(paused.settle(who) == who)

    # Recovery at an operation's end

    def recover(self, conn: Any) -> BaseException | None:
        if self.sending_blocked:
            if not (conn.closed or libpq.PQexitPipelineMode(conn.pgconn_ptr)):
                close(conn)  # results are left to read: a pipeline's repair has failed
            self.sending_blocked = False  # last: if the above fails, the next operation does it
        copying, self.copy_may_be_running = self.copy_may_be_running, False
        if copying and not (conn.closed or conn.async_) and transaction_status(conn) == ACTIVE:
            self.pending = self._run_behind_psycopg2(conn, cancel_query)
        if (self.pending is not None or self.status_uncertain) and _has_failed_unseen(conn):
            self.pending = self._run_behind_psycopg2(conn, _send_rollback)
        if self.closing and not conn.closed:
            close(conn)
        if conn.closed:
            self.waiter.close()
        else:
            self._restore_status(conn)
        self.status_uncertain = False
        return self.pending

    def _run_behind_psycopg2(
        self, conn: Any, begin: Callable[[Any, Shield], object]
    ) -> BaseException | None:
        """Run a command that psycopg2 does not see, such as the end of an abandoned COPY."""

        def run(shield: Shield) -> None:
            begin(conn, shield)
            shield.take(finish(conn.pgconn_ptr, self.fd), self.wait)

        verdict, failure = self.bounded(self.pending, self.cancel_timeout, run)
        if failure is not None:
            close(conn)
        return verdict

    def _restore_status(self, conn: Any) -> None:
        """Bring psycopg2's idea of the transaction into line with the server's."""
        interrupted = self.pending is not None
        if (interrupted or self.status_uncertain) and believes_in_transaction(conn):
            interrupted = True
            self.finish_on_interrupt = True
            try:
                rollback(conn)  # else psycopg2 would send no BEGIN for what follows
            except ProgrammingError:  # PREPARE failed: its tpc_rollback() is to come
                self.must_roll_back = True
                return
            except Error:
                close(conn)
                return
        status = transaction_status(conn)
        self.note_transaction(interrupted, status, conn.status == ext.STATUS_BEGIN)

    def has_transaction(self, conn: Any) -> bool:
        if conn.closed or conn.async_:
            return False
        idle = transaction_status(conn) == TransactionStatus.IDLE
        return bool(conn.status == ext.STATUS_BEGIN or not idle)

    def recovered(self) -> None:
        """Append notifications to the program's collector, outside C and without the lock."""
        if self.delivering:
            return  # the task that is at it goes on with those that have come meanwhile
        self.delivering = True
        try:
            while self.collector is not None and self.inbox:
                _append(self.collector, self.inbox.pop(0))
        finally:
            self.delivering = False

    def abandon(self, conn: Any) -> None:
        """Close without waiting, unless a task that never runs again has psycopg2's mutex."""
        if not self.in_driver:
            self.shut(conn)

    def shut(self, conn: Any) -> None:
        close(conn)
        self.waiter.close()


def believes_in_transaction(conn: Any) -> bool:
    """Return True if psycopg2 believes that a finished transaction is still open."""
    idle = transaction_status(conn) == TransactionStatus.IDLE
    return conn.status == ext.STATUS_BEGIN and idle


def _has_failed_unseen(conn: Any) -> bool:
    """Return True if a failed transaction is open that psycopg2 believes to be finished.

    So it is after a COMMIT that was cancelled before the server had begun with it.
    """
    if conn.closed or conn.async_ or not libpq.has("PQsendQueryParams"):
        return False
    if transaction_status(conn) != TransactionStatus.IN_ERROR:
        return False
    return bool(conn.status == ext.STATUS_READY and not autocommit_of(conn))


def _send_rollback(conn: Any, shield: Shield) -> None:
    libpq.PQsendQueryParams(conn.pgconn_ptr, b"ROLLBACK", 0, None, None, None, None, 0)


def _append(collector: Any, note: Any) -> None:
    try:
        collector.append(note)
    except Exception:
        log.exception("conn.notifies.append failed for channel %r", note.channel)
