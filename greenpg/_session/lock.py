"""The lock of one connection: one operation at a time, tasks served in order, kill-safe."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from greenpg.backend import has_ended
from greenpg.threads import this_thread

if TYPE_CHECKING:
    from greenpg.backend import Backend, Event
    from greenpg.threads import ThisThread

    from .errors import ErrorClasses

REENTERED: Final = (
    "the connection is inside another operation of the same task (a copy() or pipeline() "
    "block, or called by a finalizer, a signal handler, a wait callback or a file in COPY)"
)
IN_HUB: Final = (
    "this operation would have to wait, and in the event loop's own greenlet nothing may "
    "wait; run it in a green thread"
)
ENDED: Final = (
    "the task that keeps the connection has ended inside a block (exclusive(), a pipeline, "
    "listen, ...); leave each block in its own task"
)
BEING_FETCHED: Final = "another task is fetching this cursor's result; use another cursor"
_LOOK: Final = 1.0  # seconds; a wake-up is lost to a signal that lands in the releasing task


class Once:
    """Is settled by the first of several threads; all learn how (`dict.setdefault` is atomic)."""

    __slots__ = ("_settled",)

    def __init__(self) -> None:
        self._settled: dict[int, Any] = {}

    def settle(self, value: Any) -> Any:
        """Return the value of the first call; a caller that Ctrl-C interrupted may ask again."""
        return self._settled.setdefault(0, value)

    def value(self) -> Any:
        """Return the value, None if it is not settled."""
        return self._settled.get(0)


class Waiting(Once):
    """One task's place in the queue for a connection; settled with whether the lock is granted."""

    __slots__ = ("event", "task")

    def __init__(self, task: Hashable, event: Event) -> None:
        super().__init__()
        self.task = task
        self.event = event

    @property
    def granted(self) -> bool:
        """True if the task has the lock."""
        return self.value() is True


class Lock:
    """Held by one task at a time, for one operation or for a block of several.

    Entry into the driver is never re-entrant, not even in a block: psycopg2 holds a mutex across
    its wait callback. Threads need no mutex here by one rule: anybody sets a `..._needs_check`
    flag, after its cause; only the holder clears one, before it reads the causes.
    """

    __slots__ = (
        "backend", "can_wait", "current", "deadlines", "depth", "errors", "exit_needs_check",
        "granted", "holder", "holder_lost", "in_driver", "last", "queue", "thread",
    )  # fmt: skip

    def __init__(self, backend: Backend, errors: ErrorClasses) -> None:
        self.backend = backend
        self.errors = errors
        self.can_wait = backend.can_wait
        self.current = backend.current
        self.holder: Hashable | None = None
        self.in_driver = False
        self.depth = 0
        self.queue: deque[Waiting] = deque()
        self.granted: Waiting | None = None
        self.thread: ThisThread | None = None
        self.last: Callable[[], Hashable | None] = lambda: None
        self.holder_lost = False
        self.deadlines: dict[Hashable, float] = {}
        self.exit_needs_check = False

    def claim(self, me: Hashable, free: Hashable | None = None) -> Hashable | None:
        """Take the lock if it is free, or `free` holds it, and return its holder.

        Atomic among threads too: CPython changes threads, and handles signals, only where
        something is called and at the end of a loop (`test_lock_threads.py`).
        """
        self.holder = holder = me if self.holder is free else self.holder
        return holder

    def acquire(self, me: Hashable, timeout: float | None = None, first: bool = False) -> None:
        """Take the lock over several operations; `depth -= 1` and `let_go` undo it."""
        if self.claim(me) != me:
            deadline = None if timeout is None else monotonic() + timeout
            own = None if first else self.deadlines.get(me)
            self._line_up(me, _nearer(deadline, own), first)
        self.thread = this_thread()
        self.depth += 1  # no call follows, hence no Ctrl-C
        self.exit_needs_check = True

    def let_go(self) -> None:
        """Pass the lock on after the last block, which has counted itself out of `depth`.

        It has done so itself: Ctrl-C at this function's entry leaves a lock that others take over.
        """
        if not self.depth and not self.in_driver:
            self.refresh_flags()
            self.release()

    def release(self) -> None:
        """Give the lock to the task that has waited longest, if one waits."""
        while True:
            if self.queue:
                with suppress(IndexError):  # a thread that waited has given up
                    if self._pass_on(self.queue.popleft()):
                        return
                continue
            self.holder = None
            if not (self.queue and self._claim_to_serve()):  # one has queued up meanwhile
                return

    def serve(self) -> None:
        """Serve a thread that queued up while the lock was given back."""
        if self._claim_to_serve():
            self.release()

    def refresh_flags(self) -> None:
        """Derive `exit_needs_check` from its causes; for the holder alone."""
        self.exit_needs_check = False  # first: a cause that another thread adds now sets it again
        if self.depth or self.queue:
            self.exit_needs_check = True

    def _claim_to_serve(self) -> bool:
        server = object()  # of two threads that come here at once, one must lose
        return bool(self.queue) and self.claim(server) is server

    def _meet(self, me: Hashable) -> None:
        """Check that a task other than the last one may wait here.

        One that may, always may, and never changes its OS thread. The reference is weak: else
        it would keep a dead task, and with its traceback perhaps this connection.
        """
        if not self.can_wait():
            raise self.errors.programming(IN_HUB)
        self._refuse_other_thread()
        self.thread = this_thread()
        try:
            self.last = ref(me)
        except TypeError:  # a number, for example
            self.last = lambda: me

    def _pass_on(self, waiting: Waiting) -> bool:
        self.granted = self.holder = waiting  # not its task, which may give up and come again
        if not waiting.settle(True):
            self.granted = None
            return False
        waiting.event.set()
        return True

    def _line_up(self, me: Hashable, deadline: float | None, first: bool = False) -> None:
        if not self.can_wait():
            raise self.errors.programming(IN_HUB)
        if self.holder_lost:
            raise self.parents_error()
        self._refuse_other_thread()
        waiting = Waiting(me, self.backend.event())
        try:
            (self.queue.appendleft if first else self.queue.append)(waiting)
            self.exit_needs_check = True
            while not waiting.granted:
                self._wait_for(waiting, deadline)
        except BaseException:
            self._give_up(waiting)
            raise
        self.holder = me
        self.granted = None

    def _wait_for(self, waiting: Waiting, deadline: float | None) -> None:
        me = waiting.task
        holder = self.claim(me)
        if holder is waiting:  # Ctrl-C may have stopped the task that passes the lock on
            holder = self.claim(me, waiting)
        if holder == me:
            self._take(waiting)
            return
        left = None if deadline is None else deadline - monotonic()
        abandoned = holder is not None and self._is_abandoned()
        ended = has_ended(holder)
        waiting.event.wait(_nearer(_LOOK, left))
        if waiting.granted:
            return
        if deadline is not None and monotonic() >= deadline:
            raise self.errors.deadline_exceeded(
                "the deadline passed while waiting for the connection"
            )
        if abandoned and self._is_abandoned() and self.claim(me, holder) == me:
            self._take(waiting)
        elif ended and self.holder == holder:  # no finalizer has left the block for it
            raise self.errors.programming(ENDED)

    def _take(self, waiting: Waiting) -> None:
        with suppress(ValueError):  # the lock is being passed on to it this moment
            self.queue.remove(waiting)
        waiting.settle(True)

    def _is_abandoned(self) -> bool:
        """Return True if the holder lost the lock by a signal between two steps.

        A thread may stand there for a moment too, but not for a second.
        """
        return not self.in_driver and not self.depth and self.granted is None

    def _give_up(self, waiting: Waiting) -> None:
        granted = waiting.settle(False)
        with suppress(ValueError):
            self.queue.remove(waiting)
        if granted:  # pass it on
            self.granted = None
            self.release()

    def is_in_other_thread(self) -> bool:
        """Return True if another OS thread used the connection last, on a green backend."""
        return self.thread is not this_thread() and "hub" in self.backend.capabilities

    def _refuse_other_thread(self) -> None:
        other = self.thread
        if self.in_driver and other is not None and self.is_in_other_thread():
            here = this_thread().ident
            raise self.errors.programming(
                f"the connection is used by OS threads {other.ident} and {here} at once; on "
                f"backend {self.backend.name!r} it belongs to one thread at a time"
            )

    def parents_error(self) -> Exception:
        """Return the error for the use of a connection that was inherited by a fork."""
        return self.errors.operational(
            "the connection belongs to the parent process; open another one"
        )


def _nearer(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)
