"""A driver without a server: statements of a connection take simulated time."""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from greenpg import sync
from greenpg._session import lock, session, shield, time_slice
from greenpg._session.errors import ErrorClasses
from greenpg._session.session import Session, TransactionStatus
from greenpg.backend import READ

if TYPE_CHECKING:
    import pytest

    from greenpg._session.shield import Shield

    from .simtasks import Sim

CLOCKS: Final[tuple[ModuleType, ...]] = (lock, session, shield, sync, time_slice)


class Error(Exception):
    """The base class of this driver's errors."""


InterfaceError: Any = type("InterfaceError", (Error,), {})
OperationalError: Any = type("OperationalError", (Error,), {})
ProgrammingError: Any = type("ProgrammingError", (Error,), {})
DeadlineExceeded: Any = type("DeadlineExceeded", (Error,), {})
FailedTransaction: Any = type("FailedTransaction", (Error,), {})
ERRORS: Final = ErrorClasses(
    error=Error,
    interface=InterfaceError,
    operational=OperationalError,
    programming=ProgrammingError,
    deadline_exceeded=DeadlineExceeded,
    failed_transaction=FailedTransaction,
)


class FakeSession(Session):
    """The session of a connection that has connected."""

    def __init__(self, backend: Any) -> None:
        super().__init__(backend, ERRORS)
        self.fd = 3
        self.refresh_flags()

    def is_rollback(self, statement: Any) -> bool:
        return bool(statement == "rollback")

    def has_transaction(self, conn: Any) -> bool:
        return bool(conn.status != TransactionStatus.IDLE)

    def recover(self, conn: Any) -> BaseException | None:
        if self.closing:
            self.shut(conn)
        if not conn.closed:
            self.note_transaction(self.pending is not None, conn.status, believed_open=False)
        return self.pending

    def shut(self, conn: Any) -> None:
        conn.closed = True


class FakeConnection:
    """`ran` are the completed statements, `cancels` the requests sent."""

    def __init__(self, sim: Sim) -> None:
        self._greenpg_state: Any = FakeSession(sim)
        self.status = TransactionStatus.IDLE
        self.ran: list[str] = []
        self.cancels = 0
        self.closed = False

    def execute(self, statement: str, seconds: float = 1.0) -> None:
        state = self._greenpg_state
        state.enter(statement == "rollback", statement)
        try:
            self._run(statement, seconds)
        finally:
            state.in_driver = False
            state.leave(self)

    def _run(self, statement: str, seconds: float) -> None:
        state = self._greenpg_state
        if state.forked:
            raise state.parents_error()
        if statement == "begin":
            self.status = TransactionStatus.IN_TRANSACTION
        state.waiter.delay = seconds
        try:
            state.wait_for(READ)
        except BaseException as exc:
            self._interrupted(statement, exc)
        else:
            self._ended(statement)

    def _ended(self, statement: str) -> None:
        self.ran.append(statement)
        if statement in ("commit", "rollback"):
            self.status = TransactionStatus.IDLE

    def _interrupted(self, statement: str, exc: BaseException) -> None:
        state = self._greenpg_state
        recover = partial(self._drain, statement) if state.finish_on_interrupt else self._cancel
        verdict, failure = state.bounded(exc, state.cancel_timeout, recover)
        if failure is not None:
            state.shut(self)
        state.note_interrupt(verdict)

    def _drain(self, statement: str, shield: Shield) -> None:
        shield.wait(lambda left: self._greenpg_state.wait(3, READ, left))
        self._ended(statement)

    def _cancel(self, shield: Shield) -> None:
        """Send a request and wait for the statement's end; each takes a tenth of a second."""
        self.cancels += 1
        for _ in range(2):
            self._greenpg_state.waiter.delay = 0.1
            shield.wait(lambda left: self._greenpg_state.wait(3, READ, left))
        if self.status is TransactionStatus.IN_TRANSACTION:
            self.status = TransactionStatus.IN_ERROR


def run_by(monkeypatch: pytest.MonkeyPatch, sim: Sim) -> None:
    """Let the simulation's clock be that of the core."""
    for module in CLOCKS:
        monkeypatch.setattr(module, "monotonic", sim.clock)
