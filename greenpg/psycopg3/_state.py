"""What psycopg 3's room knows of one connection, and the lock that psycopg takes."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from psycopg import Error, pq
from psycopg.errors import QueryCanceled

from greenpg._session.session import Session
from greenpg._session.shield import graver

from ._cancelling import cancel_query
from ._errors import ERRORS, DeadlineExceeded
from ._finishing import finish_command
from ._statements import is_rollback

if TYPE_CHECKING:
    from greenpg._session.shield import Shield
    from greenpg.backend import Backend

BAD: Final = pq.ConnStatus.BAD
ACTIVE: Final = pq.TransactionStatus.ACTIVE
IDLE: Final = pq.TransactionStatus.IDLE
INERROR: Final = pq.TransactionStatus.INERROR
UNKNOWN: Final = pq.TransactionStatus.UNKNOWN


class State(Session):
    """A psycopg 3 connection's session; operations pass its `PGconn` for the connection.

    `cleaners` are the tasks whose operations no deadline refuses, and whether an interrupt lets
    them finish. While `stopping`, an interrupted operation is brought to its end: it may send
    nothing more. `two_phase`: psycopg takes a two-phase transaction to be open, unprepared.
    `pipeline_cut`: an interrupt has cut off the pipeline's implicit transaction.
    `closer` is the task that has called `close()`, None before.
    `cursors_fetching` has the id() of each whose result is being built in slices. `recovery_end`
    is the instant until which the running operation may recover, 0 before it does. `outdone` has
    what it had raised before `pending` came, and may still propagate.
    """

    __slots__ = (
        "cleaners", "closer", "cursors_fetching", "outdone", "pipeline_cut", "recovery_end",
        "stopping", "two_phase",
    )  # fmt: skip

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend, ERRORS)
        self.cleaners: dict[Hashable, bool] = {}
        self.closer: Hashable = None
        self.cursors_fetching: list[int] = []
        self.outdone: tuple[BaseException, ...] = ()
        self.recovery_end = 0.0
        self.stopping = False
        self.two_phase = False
        self.pipeline_cut = False

    # Operations that have to be done

    @contextmanager
    def cleaning_up(self, finish: bool = True) -> Iterator[None]:
        """Let no deadline refuse this task's operations in a block, nor an interrupt cut them."""
        me = self.current()
        outer = self.cleaners.get(me)
        self.cleaners[me] = finish
        try:
            yield
        finally:
            if outer is None:
                self.cleaners.pop(me, None)
            else:
                self.cleaners[me] = outer

    @contextmanager
    def ending(self, pgconn: Any, error: BaseException | None) -> Iterator[BaseException | None]:
        """Keep the connection for the end of a block that `error` leaves, if anything.

        An interrupt that comes in the queue is given to the block, and raised after it. In the
        hub the connection is closed, if no task uses it.
        """
        if not self.can_wait() and not self.in_driver:
            self.shut(pgconn)
        interrupt = self._acquire_to_end()
        try:
            interrupt = interrupt or self._passed_deadline()
            cause = interrupt if error is None else error
            if is_interrupt(cause) and pgconn.transaction_status == ACTIVE:
                interrupt = self._stop(pgconn, cause)
            yield interrupt
        finally:
            self.depth -= 1
            self.let_go()
        if interrupt is not None and interrupt is not error:
            raise interrupt

    def _acquire_to_end(self) -> BaseException | None:
        """Take the lock, and return what came meanwhile."""
        me = self.current()
        try:
            self.acquire(me)
        except self.errors.programming:
            raise
        except BaseException as exc:
            self._acquire_again(me, exc)
            return exc
        return None

    def _acquire_again(self, me: Hashable, exc: BaseException) -> None:
        refused: list[Error] = []

        def acquire(left: float) -> bool:
            try:
                self.acquire(me, left, first=True)
            except Error as error:
                refused.append(error)
            return True

        def run(shield: Shield) -> None:
            shield.wait(acquire)

        _, failure = self.bounded(exc, self.cancel_timeout, run)
        if failure is not None or refused:
            raise exc

    def _passed_deadline(self) -> Exception | None:
        end = self.deadlines.get(self.current())
        if end is None or monotonic() < end:
            return None
        return self.errors.deadline_exceeded("the deadline had passed at the end of the block")

    def _stop(self, pgconn: Any, exc: BaseException | None) -> BaseException | None:
        """Cancel what runs; return what the block raises."""
        run = partial(cancel_query, self, pgconn)
        verdict, failure = self.bounded(exc, self.cancel_timeout, run)
        if failure is not None:
            self.shut(pgconn)
        return verdict

    def give_up(self, pgconn: Any) -> None:
        """Close a connection that cannot be mended, once nobody is in libpq."""
        if self.in_driver:
            self.close_soon()
        else:
            self.shut(pgconn)

    def pause_inside(self) -> None:
        """Let other tasks run inside an operation; an interrupt is noted, and raised."""
        try:
            self.check()
            self.time_slice.pause_if_over()
        except BaseException as exc:
            self.note_interrupt(exc)
            raise

    def patience(self) -> float:
        """Return the seconds left for the recovery, which all its steps have together."""
        self.recovery_end = self.recovery_end or monotonic() + self.recovery_seconds()
        self.exit_needs_check = True
        return self.recovery_end - monotonic()

    # What an interrupted transaction admits

    def is_rollback(self, statement: Any) -> bool:
        return True  # the lock admits all; `admit` decides about each statement

    def _admit(self, me: Hashable, finish_on_interrupt: bool, statement: object) -> None:
        if self.forked:
            if not self.depth:
                self.release()
            raise self.parents_error()
        super()._admit(me, finish_on_interrupt, statement)
        self.rolling_back = False

    def admit(self, statement: Any) -> None:
        """Refuse a statement in an interrupted transaction, unless it rolls back."""
        self.refuse_if_stopping()
        if not self.must_roll_back or self.rolling_back:  # RELEASE follows ROLLBACK TO
            return
        if not is_rollback(statement):
            raise self.failed_transaction()
        self.rolling_back = True

    def refuse_if_stopping(self) -> None:
        """Refuse an interrupted operation's next command, as if the cancel had hit it."""
        if self.stopping:
            raise QueryCanceled("the operation was interrupted")

    def doom(self) -> None:
        """Allow the open transaction only a rollback, from the running operation on."""
        self.must_roll_back = self.entry_needs_check = self.exit_needs_check = True

    # An operation's end

    def note_interrupt(self, exc: BaseException | None) -> None:
        self.outdone = () if self.pending is None else (*self.outdone, self.pending)
        super().note_interrupt(exc)

    def note_failure(self, error: BaseException, pgconn: Any) -> None:
        """Note an error that has left a command running, or an interrupt outside a wait."""
        given_up = isinstance(error, GeneratorExit)
        interrupt = not isinstance(error, Exception) and not given_up
        if self.pending is None:
            if interrupt or _is_running(pgconn):
                self.note_interrupt(error)
            elif given_up and pgconn.transaction_status == INERROR:
                self.doom()  # the query of a stream was cancelled
        elif interrupt and error not in (self.pending, *self.outdone):
            self.pending = graver(self.backend, self.errors, self.pending, error)

    def recover(self, pgconn: Any) -> BaseException | None:
        if self.pending is not None and _is_running(pgconn):
            self._finish_command(pgconn)
        self.recovery_end, self.outdone = 0.0, ()
        if self.closing:
            pgconn.finish()
        if pgconn.status == BAD:
            self.waiter.close()
        status = pgconn.transaction_status
        believed_open = self.two_phase or self.pipeline_cut
        self.note_transaction(self.pending is not None, status, believed_open)
        return self.pending

    def _finish_command(self, pgconn: Any) -> None:
        if not self.can_wait():
            pgconn.finish()
            return
        run = partial(finish_command, self, pgconn)
        self.waiting_outside = True  # no other task may close
        self.pending, failure = self.bounded(self.pending, self.patience(), run)
        self.waiting_outside = False
        if failure is not None:
            pgconn.finish()

    def has_transaction(self, conn: Any) -> bool:
        return bool(self.two_phase or conn.pgconn.transaction_status not in (IDLE, UNKNOWN))

    def needs_recovery(self) -> bool:
        return bool(self.recovery_end) or super().needs_recovery()

    def disable_in_child(self) -> None:
        super().disable_in_child()
        self.entry_needs_check = True

    def refresh_flags(self) -> None:
        super().refresh_flags()
        if self.forked:
            self.entry_needs_check = True

    def shut(self, pgconn: Any) -> None:
        pgconn.finish()
        self.waiter.close()

    def refuse_if_closed_by_another(self) -> None:
        """Raise at the end of a block whose work is lost, where psycopg takes it for given up."""
        if self.closer not in (None, self.current()):
            raise self.closed_error()

    def closed_error(self) -> Exception:
        return self.errors.interface("the connection is closed")  # psycopg's own text


def is_interrupt(error: BaseException | None) -> bool:
    """Return True for what ends the work of a task: a kill, a timeout, a deadline, Ctrl-C."""
    return isinstance(error, DeadlineExceeded) or not isinstance(error, Exception | None)


def _is_running(pgconn: Any) -> bool:
    """Return True if a command runs which no pipeline's end will read."""
    return bool(pgconn.transaction_status == ACTIVE and not pgconn.pipeline_status)


class OperationLock:
    """The lock of one connection, as psycopg holds it across an operation."""

    __slots__ = ("_pgconn", "_state")

    def __init__(self, state: State, pgconn: Any) -> None:
        self._state = state
        self._pgconn = pgconn

    def __enter__(self) -> None:
        state = self._state
        if not state.cleaners or (finish := state.cleaners.get(state.current())) is None:
            state.enter()
            return
        me = state.enter(True)
        try:
            if not finish:
                state.bound_operation(state.deadlines.get(me))
            # a pipeline's end may have to wait for queries
            state.finish_on_interrupt = finish and not self._pgconn.pipeline_status
        except BaseException as error:  # what a signal handler raises
            self.__exit__(type(error), error, None)
            raise

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        state = self._state
        state.in_driver = False
        if error is not None:
            state.note_failure(error, self._pgconn)
        state.leave(self._pgconn)
