"""One connection as its tasks share it: operations, deadlines, interrupts; it knows no driver."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from .counts import counts
from .lock import REENTERED, Lock
from .shield import Shield, Unrecovered
from .time_slice import TimeSlice

if TYPE_CHECKING:
    from greenpg.backend import Backend, Event, Waiter

    from .errors import ErrorClasses

CANCEL_TIMEOUT: Final = 5.0  # seconds
CLOSE_TIMEOUT: Final = 1.0  # seconds for a recovery if the connection is to be closed anyway


class TransactionStatus(IntEnum):
    """libpq's PGTransactionStatusType, as every driver passes it on."""

    IDLE = 0
    ACTIVE = 1
    IN_TRANSACTION = 2
    IN_ERROR = 3
    UNKNOWN = 4


class Session(Lock):
    """A connection's lock, its running operation, and what has interrupted it.

    An operation is `enter`, calls into the driver, `in_driver = False`, `leave`. A driver derives
    its own class, which says what recovery means there: `needs_recovery`, `recover`, `shut`.
    The fields are described in the room's docstring.
    """

    __slots__ = (
        "cancel_timeout", "cancels", "cancels_done", "closing", "entry_needs_check", "fd",
        "finish_on_interrupt", "forked", "interrupted_outside", "left_over", "must_roll_back",
        "operation_deadline", "pending", "rolling_back", "time_slice", "wait", "wait_needs_check",
        "waiter", "waiting_outside",
    )  # fmt: skip

    def __init__(self, backend: Backend, errors: ErrorClasses) -> None:
        super().__init__(backend, errors)
        self.waiter: Waiter = backend.waiter()
        self.wait = self.waiter.wait
        self.fd = -1
        self.time_slice = TimeSlice(backend)
        self.operation_deadline: float | None = None
        self.finish_on_interrupt = False
        self.rolling_back = False
        self.pending: BaseException | None = None
        self.interrupted_outside: Callable[[], Any] | None = None
        self.must_roll_back = False
        self.left_over: list[Callable[[], object]] = []
        self.cancels = 0
        self.cancels_done: Event | None = None
        self.cancel_timeout = CANCEL_TIMEOUT
        self.closing = False
        self.waiting_outside = False
        self.forked = False
        self.entry_needs_check = False
        self.wait_needs_check = True

    # Operations

    def enter(self, finish_on_interrupt: bool = False, statement: object = None) -> Hashable:
        """Take the lock for one operation in the driver and return the task.

        Raises the driver's ProgrammingError in the hub and inside another operation of the same
        task, DeadlineExceeded, and InFailedSqlTransaction after an interrupt in the transaction.
        """
        current, last = self.current, self.last  # CPython is slow to call what is in a slot
        me = current()
        if last() != me:
            self._meet(me)
        if self.claim(me) != me:
            self._line_up(me, self._deadline_of(me, finish_on_interrupt))
        elif self.in_driver:
            raise self.errors.programming(REENTERED)
        self.finish_on_interrupt = finish_on_interrupt
        if self.entry_needs_check:
            self._admit(me, finish_on_interrupt, statement)
        self.in_driver = True  # last: Ctrl-C can land only where something was called
        return me

    def leave(self, conn: Any) -> None:
        """End an operation: recover if needed, pass the lock on, raise what interrupted it."""
        if not self.exit_needs_check:
            self.release()
        elif self.needs_recovery():
            self._recover_and_release(conn)
        elif not self.depth:
            self.refresh_flags()
            self.release()

    def _deadline_of(self, me: Hashable, finish_on_interrupt: bool) -> float | None:
        """Return the operation's deadline; a cleanup has at least `cancel_timeout`."""
        deadline = self.deadlines.get(me)
        if deadline is None or not finish_on_interrupt:
            return deadline
        return max(deadline, monotonic() + self.cancel_timeout)

    def _admit(self, me: Hashable, finish_on_interrupt: bool, statement: object) -> None:
        refusal: Exception | None = None
        if self.left_over:
            self._do_left_over()
            self.finish_on_interrupt = finish_on_interrupt
        self._settle_outside()
        self.bound_operation(self._deadline_of(me, finish_on_interrupt))
        if self.operation_deadline is not None and monotonic() >= self.operation_deadline:
            refusal = self.errors.deadline_exceeded(
                "the deadline had passed before the operation began"
            )
        self.rolling_back = self.is_rollback(statement)
        if self.must_roll_back and not finish_on_interrupt and not self.rolling_back:
            refusal = self.failed_transaction()
        if refusal is not None:
            if not self.depth:
                self.release()
            raise refusal
        if not (self.must_roll_back or self.deadlines):  # the last deadline has gone
            self.refresh_flags()

    def _do_left_over(self) -> None:
        """Do, before the holder's operation, what finalizers in other OS threads have left."""
        self.depth += 1
        try:
            while self.left_over:
                self.left_over.pop(0)()
        except BaseException:
            self.depth -= 1
            self.let_go()
            raise
        self.depth -= 1

    def bound_operation(self, deadline: float | None) -> None:
        """Set the running operation's deadline."""
        self.operation_deadline = deadline
        self.wait_needs_check = self.wait_needs_check or deadline is not None

    def _recover_and_release(self, conn: Any) -> None:
        self.in_driver = True
        try:
            if self.cancels and self.cancels_done is not None:
                self._await_cancels(conn, self.cancels_done)
            self._settle_outside()
            interrupt = self.recover(conn)
        except BaseException:  # Ctrl-C between two steps: what is left to do is unknown
            self.shut(conn)
            raise
        finally:
            self.in_driver = False
            self.pending = None
            self.refresh_flags()
            if not self.depth:
                self.release()
        try:
            self.recovered()
        except BaseException:
            self.note_outside(conn)
            raise
        if interrupt is not None:
            try:
                deadline, exits = self.errors.deadline_exceeded, self.backend.exits
                counts.note_interrupt(interrupt, deadline, exits)
            except Exception:
                pass
            raise interrupt

    def _await_cancels(self, conn: Any, done: Event) -> None:
        """Wait for other tasks' cancel requests: a late one would hit the next query."""

        def wait(shield: Shield) -> None:
            shield.wait(done.wait)

        self.pending, failure = self.bounded(self.pending, self.cancel_timeout, wait)
        if failure is not None:
            self.shut(conn)
            self.pending = self.pending or self.closed_error()

    # What a driver says

    def is_rollback(self, statement: Any) -> bool:
        """Return True if a statement ends or undoes an interrupted transaction."""
        raise NotImplementedError

    def recover(self, conn: Any) -> BaseException | None:
        """Bring the connection back to rest after an operation; return what that raises."""
        raise NotImplementedError

    def has_transaction(self, conn: Any) -> bool:
        """Return True if a transaction is open, or the driver takes one to be open."""
        raise NotImplementedError

    def recovered(self) -> None:
        """Do what has to wait until the lock was given back."""

    def shut(self, conn: Any) -> None:
        """Close the connection without waiting."""
        raise NotImplementedError

    # Waiting

    def settle_descriptor(self, conn: Any) -> None:
        """Note the descriptor, which no longer changes once the connection has connected."""
        self.fd = conn.fileno()
        self.refresh_flags()

    def wait_for(self, events: int) -> None:
        """Wait for the socket until the operation's deadline; raises it, or a close."""
        left = self.check()
        if not self.wait(self.fd, events, left) and left is not None:
            self.check()

    def wait_until(self, events: int, end: float | None) -> int:
        """Wait as `wait_for` does, but no longer than until `end`; return what is ready.

        For no events it pauses if the time slice is over.
        """
        left = self.check()
        if not events:
            self.time_slice.pause_if_over()
            return 0
        if end is not None:
            until_end = max(end - monotonic(), 0.0)
            left = until_end if left is None else min(left, until_end)
        ready = self.wait(self.fd, events, left)
        if not ready:
            self.check()
        return ready

    def check(self) -> float | None:
        """Return the seconds left; raises once the deadline has passed or another task closes."""
        if self.closing:
            raise self.closed_error()
        end = self.operation_deadline
        left = None if end is None else end - monotonic()
        if left is not None and left <= 0:
            raise self.errors.deadline_exceeded(
                "canceling statement due to the deadline of its task"
            )
        return left

    def call_in_finalizer(self, work: Callable[[], object]) -> None:
        """Call `work`, which waits: at once if nobody uses the connection, else in a task.

        A finalizer may run in the hub, in any task, inside an operation of its own task, and in an
        OS thread that runs no hub: there, the connection's next operation calls it first.
        """
        if self.is_in_other_thread():
            self.left_over.append(work)
            self.entry_needs_check = True
            return
        free = self.holder is None or (self.holder == self.current() and not self.in_driver)
        if free and self.can_wait():
            work()
        else:
            self.backend.spawn(work)

    def is_ending(self) -> bool:
        """Return True if the interpreter ends, when green threads no longer switch."""
        return sys.is_finalizing() and "hub" in self.backend.capabilities

    def wait_or_pause(self, events: int, time_slice: TimeSlice) -> None:
        """Wait for a protocol step's events; without any, pause if the time slice is over."""
        if events:
            self.wait_for(events)
            time_slice.restart()
        elif time_slice.is_over():
            self.check()
            time_slice.pause_if_over()

    # Interrupts

    def note_interrupt(self, exc: BaseException | None) -> None:
        """Make the running operation raise `exc` at its end."""
        self.pending = exc
        self.exit_needs_check = self.wait_needs_check = True

    def note_error(self, error: BaseException) -> None:
        """Note what the running operation raises, if it is an interrupt that came outside a wait.

        It may be a kill in the user's code, or Ctrl-C between two steps.
        """
        if self.pending is None and not isinstance(error, Exception):
            self.note_interrupt(error)

    def note_outside(self, conn: Any) -> None:
        """Allow the open transaction only a rollback: an interrupt came outside the driver.

        Any task may call this. If another one has the lock, its operation's end, or the entry
        of its next one, finds out whether a transaction is open.
        """
        self.interrupted_outside = ref(conn)
        self.entry_needs_check = self.exit_needs_check = True
        me = self.current()
        if self.claim(me) == me and not self.in_driver:
            self._settle_outside()
            if not self.depth:
                self.refresh_flags()
                self.release()

    def pause_outside(self, conn: Any, time_slice: TimeSlice) -> None:
        """Pause if the time slice is over, in an operation that is outside the driver.

        Raises the task's deadline if it has passed by then.
        """
        try:
            if self.deadlines and time_slice.is_over():
                end = self.deadlines.get(self.current())
                if end is not None and monotonic() >= end:
                    raise self.errors.deadline_exceeded("the deadline passed during the operation")
            time_slice.pause_if_over()
        except BaseException:
            self.note_outside(conn)
            raise

    def _settle_outside(self) -> None:
        if self.interrupted_outside is not None:
            conn, self.interrupted_outside = self.interrupted_outside(), None
            if conn is not None and self.has_transaction(conn):
                self.must_roll_back = True

    def close_soon(self) -> None:
        """Make the running operation stop and close the connection."""
        self.closing = self.exit_needs_check = self.wait_needs_check = True

    def recovery_seconds(self) -> float:
        """Return the seconds for a recovery: fewer if the connection is to be closed anyway."""
        return min(self.cancel_timeout, CLOSE_TIMEOUT) if self.closing else self.cancel_timeout

    def bounded(
        self, first: BaseException | None, seconds: float, recover: Callable[[Shield], object]
    ) -> tuple[BaseException | None, BaseException | None]:
        """Call `recover` under a shield; return what to raise, and why it failed if it did."""
        if self.is_ending():
            return first, Unrecovered()
        shield = Shield(self.backend, self.errors, first, seconds)
        try:
            recover(shield)
        except (Unrecovered, self.errors.error) as failure:
            counts.failed_repairs += 1
            return shield.verdict, failure
        except BaseException as failure:
            counts.failed_repairs += 1
            shield.note_failure(failure)
            return shield.verdict, failure
        return shield.verdict, None

    def note_transaction(
        self, interrupted: bool, status: TransactionStatus | int, believed_open: bool
    ) -> None:
        """Decide at an operation's end whether only a rollback may follow.

        `believed_open`: the driver takes a transaction to be open, which may not have begun.
        """
        idle = status == TransactionStatus.IDLE
        if interrupted:
            self.must_roll_back = believed_open or not idle
        elif self.must_roll_back:
            to_savepoint = self.rolling_back and status == TransactionStatus.IN_TRANSACTION
            ended = idle and (self.rolling_back or not believed_open)
            self.must_roll_back = not (to_savepoint or ended)

    @contextmanager
    def cancelling(self) -> Iterator[None]:
        """Keep the running operation from ending before a cancel request has ended."""
        if not self.cancels:
            self.cancels_done = self.backend.event()
        self.cancels += 1
        self.exit_needs_check = True
        try:
            yield
        finally:
            self.cancels -= 1
            if not self.cancels and self.cancels_done is not None:
                self.cancels_done.set()

    # Forks

    def disable_in_child(self) -> None:
        """Make every later entry into the driver fail before it waits, in a forked child.

        Where tasks are OS threads, only the one that forked lives on in the child: a connection
        that another one was using stays locked, in the driver's C code too.
        """
        self.forked = self.wait_needs_check = True
        if "hub" not in self.backend.capabilities:
            self.holder_lost = self.in_driver
            if not self.in_driver:
                self.holder = None
                self.queue.clear()
                self.depth = 0

    def set_deadline(self, task: Hashable, instant: float | None) -> None:
        """Bound a task's operations from now on, or no more."""
        if instant is None:
            self.deadlines.pop(task, None)
        else:
            self.deadlines[task] = instant
            self.entry_needs_check = True

    # Derived flags

    def refresh_flags(self) -> None:
        """Derive the `..._needs_check` flags from their causes; for the holder alone."""
        self.entry_needs_check = self.wait_needs_check = self.exit_needs_check = False
        if self.must_roll_back or self.deadlines or self.interrupted_outside is not None:
            self.entry_needs_check = True
        else:
            self.operation_deadline = None
        if self.left_over:
            self.entry_needs_check = True
        if (
            self.fd < 0 or self.forked or self.closing
            or self.pending is not None or self.operation_deadline is not None
        ):  # fmt: skip
            self.wait_needs_check = True
        if self.depth or self.queue or self.needs_recovery():
            self.exit_needs_check = True

    def needs_recovery(self) -> bool:
        """Return True if an operation's end requires more than to pass the lock on."""
        return bool(
            self.pending is not None or self.must_roll_back or self.closing or self.cancels
            or self.interrupted_outside is not None
        )  # fmt: skip

    def failed_transaction(self) -> Exception:
        """Return the error for anything but a rollback after an interrupt."""
        return self.errors.failed_transaction(
            "an operation of this transaction was interrupted; roll back before going on"
        )

    def closed_error(self) -> Exception:
        """Return the error for the use of a closed connection."""
        return self.errors.interface("connection already closed")
