"""The pool's shell: it performs what the state decides, through the seam."""

from __future__ import annotations

import logging
import traceback
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from itertools import compress
from math import inf
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from psycopg2 import ProgrammingError

from greenpg._fork_hooks import Order, in_child
from greenpg.errors import PoolTimeout, TooManyRequests
from greenpg.threads import pristine

from . import _life, _performer
from ._connections import BROKEN, CLEAN, SOILED, Driver
from ._holders import holder, load
from ._lease import give_back_after
from ._report import Stats
from ._slots import Limits, Slot, Waiter
from ._state import PoolState
from ._thread_marks import mark, no_thread

if TYPE_CHECKING:
    from greenpg.backend import Backend, Event

__all__ = ["Pool"]

CLEANING_SECONDS: Final = 1.0  # how long the giver of a connection waits for its rollback
TOLD: Final = ("warn", "give_up")  # by tasks of their own: a log's handler may wait
IN_HUB: Final = "no connection is at hand, and in the event loop's own greenlet nothing may wait"
INSIDE: Final = "the pool is inside another operation (called by a finalizer or a signal handler)"
log = logging.getLogger("greenpg.pool")
_thread = pristine("_thread")
_pools: Final[weakref.WeakSet[Pool]] = weakref.WeakSet()


class Pool:
    """Slots and waiters of one pool; `driver` knows connections, `backend` how to wait.

    The lock is native and held for a few microseconds, never across a wait or a switch.
    """

    def __init__(
        self,
        driver: Driver,
        backend: Callable[[], Backend],
        limits: Limits,
        *,
        name: str,
        timeout: float = 30.0,
        opens_itself: bool = True,
        keeps_stacks: bool = False,
        warns_of_leaks: bool = True,
        verdicts: tuple[int, int, int] = (CLEAN, SOILED, BROKEN),
        give_up: Callable[[], object] | None = None,
    ) -> None:
        self.driver = driver
        self.condition = driver.condition
        self.name = name
        self.timeout = timeout
        self.stats = Stats()
        self.state = PoolState(limits)
        self.fatal: tuple[type[BaseException], ...] = ()  # what a block raises of a bad session
        self.on_acquire: Callable[[Any], object] | None = None
        self.on_release: Callable[[Any], object] | None = None
        self._find_backend = backend
        self._backend: Any = None
        self.opens_itself = opens_itself
        self._keeps_stacks = keeps_stacks
        self._warns_of_leaks = warns_of_leaks
        self._give_up = give_up
        self._verdicts = verdicts  # what to make of each condition
        self._inherited: frozenset[Slot] = frozenset()
        self._begin()
        _pools.add(self)

    def _begin(self) -> None:
        self._lock = _thread.RLock()  # which tells its owner; nothing takes it twice
        self._mail: deque[tuple[int, Any]] = deque()  # connections lost by their holders
        self._keeping = _thread.allocate_lock()  # held by the task that keeps time
        self._keeper: Any = no_thread  # a reference to the mark of that task's thread
        self._alarm: Any = None

    @property
    def backend(self) -> Backend:
        """The backend, chosen when it is first needed."""
        if self._backend is None:
            self._backend = self._find_backend()
        backend: Backend = self._backend
        return backend

    # Lending

    def lend(self, timeout: float | None, frame: FrameType) -> tuple[Slot, Any]:
        """Return a slot and its connection; `frame` is where they are taken."""
        now = monotonic()
        lock = self._lock
        if lock._is_owned():
            raise ProgrammingError(INSIDE)
        try:  # `with lock` would make a loan an eighth dearer
            lock.acquire()
            self.stats.requests_num += 1
            slot = self.state.take(now)
            if slot is not None:
                conn, peek, slot.conn = slot.conn, slot.peek, None  # the holder keeps it alive
            else:
                seconds = self.timeout if timeout is None else timeout
                waiter = self._line_up(now, seconds)
        finally:
            try:  # noqa: SIM105  Ctrl-C may land as suppress begins
                lock.release()
            except RuntimeError:  # Ctrl-C came before the lock was ours
                pass
        if slot is None:
            slot = self._await(waiter, now, seconds)
            conn, slot.conn = slot.conn, None
        elif slot.stale or peek(0):
            seconds = self.timeout if timeout is None else timeout
            slot.conn = conn
            slot = self._await(self._suspect(slot, now + seconds), now, seconds)
            conn, slot.conn = slot.conn, None
        slot.holder = frame.f_code, frame.f_lasti
        if self._keeps_stacks:
            slot.stack = "".join(traceback.format_stack(frame))
        if self.on_acquire is not None:
            self._call(self.on_acquire, slot, conn)
        return slot, conn

    def _call(self, hook: Callable[[Any], object], slot: Slot, conn: Any) -> None:
        try:
            hook(conn)
        except BaseException as error:
            give_back_after(error, self, slot, conn)
            raise

    def _line_up(self, now: float, seconds: float) -> Waiter:
        """Stand in line; called with the lock held."""
        state = self.state
        backend = self._backend or self.backend
        try:
            if not backend.can_wait():
                raise ProgrammingError(IN_HUB)
            if not state.open:
                _life.open_or_refuse(self, now)
            # the keeper of time watches over those of its own thread
            kept = self._keeper() is mark()
            waiter = Waiter(backend.event(), now + seconds if kept else inf)
            if not state.queue(waiter, now):
                text = f"pool {self.name!r}: too many wait already ({load(state, now)})"
                raise TooManyRequests(text) from state.last_error
        except BaseException:
            self.stats.requests_errors += 1
            raise
        self.stats.requests_queued += 1
        return waiter

    def _suspect(self, slot: Slot, deadline: float) -> Waiter:
        """Have a connection that was just taken checked, and stand first in line."""
        if not self.backend.can_wait():
            self.tell(self.state.give_back, slot)
            raise ProgrammingError(IN_HUB)
        waiter = Waiter(self.backend.event(), deadline if self._keeper() is mark() else inf)
        self.tell(self.state.suspect, slot, [] if slot.stale else self._spoken(), waiter)
        return waiter

    def _spoken(self) -> list[Slot]:
        """Return the idle slots on whose connections the server has said something, or ended."""
        slots = tuple(self.state.idle)
        return list(compress(slots, self.driver.spoken([slot.conn for slot in slots])))

    def _await(self, waiter: Waiter, began: float, seconds: float) -> Slot:
        """Wait for a connection on which the server has not said anything since its last use."""
        try:
            while True:
                if self.state.effects:
                    self._perform()
                if waiter.deadline < inf or seconds == inf:
                    waiter.event.wait()
                else:
                    waiter.event.wait(began + seconds - monotonic())
                slot = waiter.slot
                if slot is None:
                    raise waiter.error or self._timed_out(seconds)
                if not slot.peek(0):
                    return slot
                waiter = self._suspect(slot, began + seconds)
        except BaseException:
            self.stats.requests_errors += 1
            self.tell(self.state.abandon, waiter)
            raise
        finally:
            self.stats.requests_wait += monotonic() - began

    def _timed_out(self, seconds: float) -> PoolTimeout:
        fact = f"no connection in {seconds:.1f} s ({load(self.state, monotonic())})"
        error = PoolTimeout(f"pool {self.name!r}: {fact}; raise max_size or lend for shorter")
        error.__cause__ = self.state.last_error
        return error

    # Taking back

    def take_back(self, slot: Slot, conn: Any, condition: int) -> None:
        """End a loan: a clean connection goes to the next in line, another to our own task.

        Then this waits for its cleaning, a second at most; an interrupt ends the wait alone.
        """
        if self.on_release is not None:
            condition = max(condition, self._released(conn))
        condition = self._verdicts[condition]
        state, now = self.state, monotonic()
        done: Event | None = None
        lock = self._lock
        if lock._is_owned():
            raise ProgrammingError(INSIDE)
        try:
            lock.acquire()
            if state.lent.get(slot.key) is not slot:
                self._refuse(slot)
                return
            self.stats.usage += now - slot.since
            slot.conn, slot.warned = conn, False
            if condition == CLEAN:
                state.give_back(slot, now)
            elif condition == SOILED:
                done = slot.done = self.backend.event()
                state.soil(slot, now)
            else:
                self.stats.returns_bad += 1
                state.retire(slot, now)
        finally:
            try:  # noqa: SIM105  Ctrl-C may land as suppress begins
                lock.release()
            except RuntimeError:  # Ctrl-C came before the lock was ours
                pass
        if state.effects or self._mail:
            self._perform()
        if condition:
            self._after_trouble(done)

    def _released(self, conn: Any) -> int:
        """Call the user's hook, whose failure must not hide an error of the block."""
        try:
            if self.on_release is not None:
                self.on_release(conn)
        except Exception:
            log.exception("pool %r: the hook on_release failed", self.name)
        return self.condition(conn)

    def _after_trouble(self, done: Event | None) -> None:
        if done is None:
            # what broke one connection may have broken others
            self.tell(self.state.inspect_idle, self._spoken())
        elif self.backend.can_wait():
            done.wait(CLEANING_SECONDS)

    def _refuse(self, slot: Slot) -> None:
        if slot not in self._inherited:  # a fork's copy of a task knows no better
            fact = f"the connection was not lent by pool {self.name!r}, or is back already"
            raise ValueError(fact)

    # Performing

    def tell(self, event: Callable[..., Any], *args: Any) -> Any:
        """Let the state know of an event, and do what it asks for."""
        if self._lock._is_owned():
            raise ProgrammingError(INSIDE)
        now = monotonic()
        with self._lock:
            self._read_mail(now)
            answer = event(*args, now)
        self._perform()
        return answer

    def report(self, event: str, slot: Slot, *args: Any) -> None:
        """Let the state know how a task of ours ended; not so a copy of it in a forked child."""
        if slot in self.state.slots:
            self.tell(getattr(self.state, event), slot, *args)

    def note_lost(self, key: int, ref: Any) -> None:
        """Note that a lent connection was garbage-collected; from anywhere."""
        self._mail.append((key, ref))
        if not self._lock._is_owned():
            self.tell(_nothing)

    def _read_mail(self, now: float) -> None:
        while self._mail:
            key, ref = self._mail.popleft()
            slot = self.state.lent.get(key)
            if slot is not None and slot.ref is ref:
                self.state.effects.append(("lost", slot))
                self.state.closed(slot, now)

    def _perform(self) -> None:
        effects = self.state.effects
        while effects:
            try:
                name, thing = effects.popleft()
            except IndexError:  # another thread was quicker
                return
            if name == "serve" or name in _performer.WAKING:
                thing.event.set()
            elif name in TOLD:
                self.backend.spawn(getattr(self, f"_do_{name}"), thing)
            elif name in _performer.JOBS:
                self.backend.spawn(_performer.JOBS[name], self, thing)
                self.keep_time()
            else:
                getattr(self, f"_do_{name}")(thing)
        if self._mail and not self._lock._is_owned():
            self.tell(_nothing)

    def _do_lost(self, slot: Slot) -> None:
        if self._warns_of_leaks:
            text = f"pool {self.name!r}: a connection lent at {holder(slot)} was never given back"
            warnings.warn(text, ResourceWarning, stacklevel=2)

    def _do_warn(self, slot: Slot) -> None:
        held = monotonic() - slot.since
        log.warning("pool %r: held for %.1f s: %s", self.name, held, holder(slot))

    def _do_give_up(self, _: None) -> None:
        log.error("pool %r: reconnecting failed for too long", self.name)
        if self._give_up is not None:
            self.backend.spawn(self._give_up)

    def _do_wake(self, _: None) -> None:
        self.keep_time()
        if self._alarm is not None:
            self._alarm.set()

    # Time

    def keep_time(self) -> None:
        """Have a task call `tick`, unless one does or there is no more to come."""
        if self._keeper is not no_thread and self._keeper() is None:  # its thread has ended
            self._keeper, self._alarm, self._keeping = no_thread, None, _thread.allocate_lock()
        if self.state.alive() and self._keeping.acquire(False):
            try:
                self.backend.spawn(_performer.keep, weakref.ref(self), self._keeping)
            except BaseException:
                self._keeping.release()
                raise

    def tick(self) -> tuple[Event, float] | None:
        """Do what is due; return what to wait for and how long, None when there is no more."""
        self._keeper = weakref.ref(mark())
        alarm = self._alarm = self.backend.event()
        due = self.tell(self._tick)
        return None if due is None else (alarm, min(due, self.state.limits.rest()))

    def _tick(self, now: float) -> float | None:
        self.state.tick(now)
        if not self.state.alive():
            return None
        return max(self.state.planned - now, 0.001)

    def forked(self) -> None:
        """Begin anew in a child process: what was inherited is the parent's."""
        old = self.state
        self._inherited |= old.slots
        _life.dismiss(old.waiters, self.name)
        self.state = PoolState(old.limits)
        self.state.ended = old.ended
        self.opens_itself = self.opens_itself or old.open
        self._begin()

    def __del__(self) -> None:
        state, alarm = getattr(self, "state", None), getattr(self, "_alarm", None)
        if alarm is not None:
            alarm.set()
        if state is None or not state.slots or state.ended:
            return
        state.open, state.ended = False, True
        if self._warns_of_leaks:
            warnings.warn(f"pool {self.name!r} was never closed", ResourceWarning, stacklevel=2)


def _nothing(now: float) -> None:
    """Happen: whoever is told reads the mail first."""


def _after_fork() -> None:
    for pool in list(_pools):
        pool.forked()


in_child(Order.POOLS, _after_fork)
