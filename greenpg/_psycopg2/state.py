"""What greenpg knows of one connection: its lock, its waiter, and what is to be put right."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Hashable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import ref

from psycopg2 import OperationalError, ProgrammingError

from greenpg.errors import DeadlineExceeded, InFailedSqlTransaction
from greenpg.threads import pristine

from .rollback_statements import is_rollback

if TYPE_CHECKING:
    from greenpg.backend import Backend, Event, Waiter

__all__ = ["Job", "State", "Turn"]

CANCEL_TIMEOUT: Final = 5.0
REENTERED: Final = (
    "the connection is inside another operation of the same task (a copy() or pipeline() "
    "block, or called by a finalizer, a signal handler, a wait callback or a file in COPY)"
)
IN_HUB: Final = (
    "this operation would have to wait, and in the event loop's own greenlet nothing may "
    "wait; run it in a green thread"
)
_LOOK: Final = 1.0  # seconds; a wake-up is lost to a signal that lands in the releasing task
_ident = pristine("_thread").get_ident


class Job(Protocol):
    """What to do once the server has begun a COPY."""

    error: BaseException | None
    lasting: bool  # the COPY goes on beyond the statement that began it

    def steps(self, pgconn: int, fd: int, status: int) -> Generator[tuple[int, int], None, None]:
        """Return the steps of the transfer; `status` is PGRES_COPY_IN or PGRES_COPY_OUT."""


class Turn:
    """One task's place in the queue for a connection."""

    __slots__ = ("_fate", "event", "task")

    def __init__(self, task: Hashable, event: Event) -> None:
        self.task = task
        self.event = event
        self._fate: dict[int, bool] = {}

    @property
    def granted(self) -> bool:
        """Tell whether the task has the lock."""
        return self._fate.get(0, False)

    def settle(self, granted: bool) -> bool:
        """Grant it, or give it up; the first of two threads decides, and both learn how."""
        return self._fate.setdefault(0, granted)


class State:
    """The lock is `holder`, the task that has it; `inside` means that this task is in C.

    `depth` counts the task's nested `exclusive()` blocks. Entry into C is never re-entrant:
    psycopg2 holds a mutex there across the wait callback.
    """

    __slots__ = (
        "attempt",
        "backend",
        "barred",
        "broken",
        "calls",
        "can_wait",
        "cancel_timeout",
        "cancels",
        "chores",
        "closing",
        "current",
        "deadlines",
        "delivering",
        "depth",
        "doomed",
        "dsn",
        "fd",
        "fetching",
        "forked",
        "granted",
        "holder",
        "inbox",
        "inside",
        "job",
        "last",
        "live",
        "lost",
        "notifies",
        "odd",
        "patient",
        "pending",
        "quiet",
        "resting",
        "special",
        "stray",
        "thread",
        "turns",
        "undoing",
        "until",
        "wait",
        "waiter",
        "waiting",
    )  # fmt: skip

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.attempt: Any = None  # an Attempt, if the connecting is ours
        self.can_wait = backend.can_wait
        self.current = backend.current
        self.waiter: Waiter = backend.waiter()
        self.wait = self.waiter.wait
        self.calls = 0  # operations since the last pause
        self.fd = -1
        self.live = False  # connected: the descriptor does not change any more
        self.holder: Hashable | None = None
        self.inside = False
        self.depth = 0
        self.granted: Turn | None = None
        self.turns: deque[Turn] = deque()
        self.thread = 0
        self.last: Callable[[], Hashable | None] = lambda: None  # the task that entered last
        self.special = False  # admission needs a closer look
        self.deadlines: dict[Hashable, float] = {}
        self.doomed = False  # the open transaction was interrupted: only a rollback may follow
        self.until: float | None = None  # the running operation's deadline
        self.undoing = False  # the running statement begins with ROLLBACK
        self.patient = False  # the running operation is let finish when interrupted
        self.odd = True  # waiting needs a closer look
        self.chores = False  # leaving needs more than to release the lock
        self.pending: BaseException | None = None  # what interrupted the running operation
        self.job: Job | None = None  # what the running COPY is to do
        self.stray = False  # psycopg2 may have let go of a COPY half-way
        self.broken = False  # an operation failed half-way: psycopg2's status may be wrong
        self.barred = False  # libpq refuses to send more of the interrupted operation
        self.cancels = 0  # cancel requests of other tasks under way
        self.quiet: Event | None = None  # set when the last of them has ended
        self.closing = False
        self.resting: dict[int, int] | None = None  # who has libpq in the midst of a block
        self.waiting = False  # the holder waits for the socket outside C
        self.cancel_timeout = CANCEL_TIMEOUT
        self.notifies: Any = None  # the user's collector, when C must not call it
        self.inbox: list[Any] = []
        self.delivering = False  # a task hands notifications to the user's collector
        self.dsn: str | None = None
        self.lost = False  # a thread that does not exist in this forked child has the lock
        self.fetching: list[Any] = []  # cursors whose large result is being built
        self.forked = False

    def enter(self, patient: bool = False, statement: object = None) -> Hashable:
        """Take the lock for one operation in C and return the task; `leave` gives it back.

        Raises ProgrammingError in the hub and inside another operation of the same task,
        DeadlineExceeded, and InFailedSqlTransaction after an interrupt (see `doomed`).
        """
        current, last = self.current, self.last  # CPython is slow to call what is in a slot
        me = current()
        if last() != me:
            self._meet(me)
        if self.claim(me) != me:
            self._queue(me, self._until(me, patient))
        elif self.inside:
            raise ProgrammingError(REENTERED)
        self.patient = patient
        if self.special:
            self._admit(me, patient, statement)
        self.inside = True  # last: Ctrl-C can land only where something was called
        return me

    def claim(self, me: Hashable) -> Hashable | None:
        """Take the lock if it is free, and return who has it.

        Atomic among threads too: CPython changes threads, and lets a signal in, only where
        something is called and at the end of a loop (`test_lock_threads.py`).
        """
        self.holder = holder = me if self.holder is None else self.holder
        return holder

    def _meet(self, me: Hashable) -> None:
        """Check that a task other than the last one may wait here.

        One that may, always may, and never changes its OS thread. The reference is weak: else
        it would keep a dead task, and with its traceback perhaps this connection.
        """
        if not self.can_wait():
            raise ProgrammingError(IN_HUB)
        self._refuse_other_thread()
        self.thread = _ident()
        try:
            self.last = ref(me)
        except TypeError:  # a number, such as a thread's
            self.last = lambda: me

    def _until(self, me: Hashable, patient: bool) -> float | None:
        """Return the operation's deadline; what cleans up has `cancel_timeout` at the least."""
        deadline = self.deadlines.get(me)
        if deadline is None or not patient:
            return deadline
        return max(deadline, monotonic() + self.cancel_timeout)

    def _admit(self, me: Hashable, patient: bool, statement: object) -> None:
        refusal: Exception | None = None
        self.until = self._until(me, patient)
        self.odd = self.odd or self.until is not None
        if self.until is not None and monotonic() >= self.until:
            refusal = DeadlineExceeded("the deadline had passed before the operation began")
        self.undoing = is_rollback(statement)
        if self.doomed and not patient and not self.undoing:
            refusal = InFailedSqlTransaction(
                "an operation of this transaction was interrupted; roll back before going on"
            )
        if refusal is not None:
            if not self.depth:
                self.release()
            raise refusal

    def acquire(self, me: Hashable, timeout: float | None = None, first: bool = False) -> None:
        """Take the lock over several operations; `relinquish` undoes one `acquire`."""
        if self.claim(me) != me:
            deadline = None if timeout is None else monotonic() + timeout
            own = None if first else self.deadlines.get(me)
            self._queue(me, _nearer(deadline, own), first)
        self.thread = _ident()
        self.chores = True
        self.depth += 1  # last: Ctrl-C can land only where something was called

    def relinquish(self) -> None:
        """Undo one `acquire`; the last one passes the lock on."""
        self.depth -= 1
        if not self.depth and not self.inside:
            self.release()
        self.look_closer()

    def release(self) -> None:
        """Give the lock to the task that has waited longest, if one waits."""
        while True:
            if self.turns:
                with suppress(IndexError):  # a thread that waited has given up
                    if self._hand_over(self.turns.popleft()):
                        return
                continue
            self.holder = None
            if not self._claim_to_serve():  # a thread that has queued up meanwhile
                return

    def rest(self) -> None:
        """Note that the task of a block, such as COPY's, goes back to its own code."""
        self.resting = {}

    def resume(self, who: int) -> bool:
        """Take libpq from a block that rests, for its own task or for `close`; one wins.

        The winner may ask again: Ctrl-C may have kept it from learning the answer.
        """
        resting = self.resting
        return resting is not None and resting.setdefault(0, who) == who

    def serve(self) -> None:
        """Serve a thread that queued up while the lock was given back."""
        if self._claim_to_serve():
            self.release()

    def _claim_to_serve(self) -> bool:
        server = object()  # of two threads that come here at once, one must lose
        return bool(self.turns) and self.claim(server) is server

    def interrupted(self, exc: BaseException | None) -> None:
        """Have the running operation raise `exc` at its end."""
        self.pending = exc
        self.chores = self.odd = True

    def close_soon(self) -> None:
        """Have the running operation stop and close the connection."""
        self.closing = self.chores = self.odd = True

    def become_the_parents(self) -> None:
        """Serve a forked child no more: what enters C there fails before it waits.

        Where tasks are OS threads, only the one that forked lives on in the child: a connection
        that another one was using stays locked, in psycopg2's C code too.
        """
        self.forked = self.odd = True
        if "hub" not in self.backend.capabilities:
            self.lost = self.inside
            if not self.inside:
                self.holder = None
                self.turns.clear()
                self.depth = 0

    def _hand_over(self, turn: Turn) -> bool:
        self.granted = turn
        self.holder = turn.task
        if not turn.settle(granted=True):
            self.granted = None
            return False
        turn.event.set()
        return True

    def _queue(self, me: Hashable, deadline: float | None, first: bool = False) -> None:
        if not self.can_wait():
            raise ProgrammingError(IN_HUB)
        if self.lost:
            raise not_ours()
        self._refuse_other_thread()
        turn = Turn(me, self.backend.event())
        self.chores = True
        try:
            (self.turns.appendleft if first else self.turns.append)(turn)
            while not turn.granted:
                self._wait_for(turn, deadline)
        except BaseException:
            self._give_up(turn)
            raise
        self.granted = None

    def _wait_for(self, turn: Turn, deadline: float | None) -> None:
        holder = self.claim(turn.task)
        if holder == turn.task:
            self._take(turn)
            return
        left = None if deadline is None else deadline - monotonic()
        abandoned = holder is not None and self._abandoned()
        turn.event.wait(_nearer(_LOOK, left))
        if turn.granted:
            return
        if deadline is not None and monotonic() >= deadline:
            raise DeadlineExceeded("the deadline passed while waiting for the connection")
        if abandoned and self._abandoned() and self.holder == holder:
            self._take(turn)

    def _take(self, turn: Turn) -> None:
        with suppress(ValueError):  # the lock is being handed over to it this moment
            self.turns.remove(turn)
        if turn.settle(granted=True):
            self.holder = turn.task

    def _abandoned(self) -> bool:
        """Tell whether the holder lost the lock out of sight, by a signal between two steps.

        A thread may stand there for a moment too, but not for a second.
        """
        return not self.inside and not self.depth and self.granted is None

    def _give_up(self, turn: Turn) -> None:
        granted = turn.settle(granted=False)
        with suppress(ValueError):
            self.turns.remove(turn)
        if granted:  # pass it on
            self.granted = None
            self.release()

    def _refuse_other_thread(self) -> None:
        mine = _ident()
        if self.thread != mine and self.inside and "hub" in self.backend.capabilities:
            raise ProgrammingError(
                f"the connection is used by OS threads {self.thread} and {mine} at once; on "
                f"backend {self.backend.name!r} it belongs to one thread at a time"
            )

    def look_closer(self) -> None:
        """Note whether admission, waiting and leaving have more to do than the usual."""
        self.special = bool(self.doomed or self.deadlines)
        if not self.special:
            self.until = None
        self.odd = bool(
            not self.live or self.forked or self.closing
            or self.pending is not None or self.until is not None
        )  # fmt: skip
        self.chores = bool(self.depth or self.turns or self.troubled())

    def troubled(self) -> bool:
        """Tell whether leaving needs more than to pass the lock on."""
        return bool(
            self.pending is not None or self.doomed or self.closing or self.cancels
            or self.barred or self.broken or self.stray or self.notifies is not None
        )  # fmt: skip


def not_ours() -> OperationalError:
    """Return the error for the use of a connection that was inherited by a fork."""
    return OperationalError("the connection belongs to the parent process; connect anew")


def _nearer(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)
