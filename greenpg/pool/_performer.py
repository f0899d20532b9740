"""Carries out the decisions of the pool's state in tasks of the pool, and calls `tick` in time."""

from __future__ import annotations

import logging
import sys
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from greenpg._session.backoff import backoff, one_line
from greenpg._session.failures import Failures
from greenpg._session.job import Job
from greenpg.backend import is_stranded
from greenpg.threads import ThisThread, pristine, this_thread

from ._borrowers import describe_holder, with_stacks
from ._measures import BRIEF, Times, count_on
from ._report import Stats
from ._slots import Borrower, Limits, Phase, Slot, Waiter
from ._state import WAKE, Effect, PoolState

if TYPE_CHECKING:
    from greenpg.backend import Backend, Event, Task

    from ._connections import ConnectionManager

RETRY: Final = 0.1  # seconds until what could not be started is tried again
log = logging.getLogger("greenpg.pool")
_thread = pristine("_thread")


@dataclass(eq=False, repr=False)
class Performer:
    """The state of a pool behind its lock, and the tasks that connect, check, clean and close.

    The lock is native, and never held across a wait or a switch.
    """

    manager: ConnectionManager
    find_backend: Callable[[], Backend]
    limits: Limits
    name: str
    warns_of_leaks: bool
    give_up: Callable[[], object] | None

    def __post_init__(self) -> None:
        self.stats = Stats()
        self.times = Times()
        self.used = 0.0  # the seconds of all loans
        self.brief = BRIEF  # loans of up to that many seconds are not noted in `times`
        self.state = PoolState(self.limits)
        self._backend: Backend | None = None
        self.current: Callable[[], Any] | None = None
        self.refer: Callable[[Any], Callable[[], Any]] = weakref.ref
        self._start()

    def _start(self) -> None:
        self.failures = Failures()
        self.lock = _thread.RLock()  # for its `_is_owned`; nothing acquires it twice
        self.lost: deque[Any] = deque()  # dead references to connections
        self._keeper: ThisThread | None = None  # the thread that keeps time
        self._keepers_task: Task | None = None
        self._seat: dict[int, object] = {}  # its entry is the token of the task that keeps time
        self._alarm: Event | None = None  # wakes that task
        self._ticks_failed = 0  # in succession

    @property
    def backend(self) -> Backend:
        if self._backend is None:
            self._backend = self.find_backend()
        return self._backend

    def find_current(self) -> Callable[[], Any]:
        """Return the backend's `current`, and note how to refer to what that returns."""
        current = self.backend.current
        try:
            weakref.ref(current())
        except TypeError:
            self.refer = _keep
        self.current = current
        return current

    def reentered(self) -> Exception:
        """Return the error for a call during another call of the same thread."""
        fact = "the pool is inside another operation (called by a finalizer or a signal handler)"
        return self.manager.errors.programming(fact)

    def apply(self, event: Callable[..., Any], *args: Any) -> Any:
        """Pass an event to the state, carry out its effects, and return its result."""
        if self.lock._is_owned():
            raise self.reentered()
        now = monotonic()
        with self.lock:
            self._free_lost(now)
            answer = event(*args, now)
        self.perform()
        return answer

    def perform(self, repeats: bool = False) -> None:
        """Carry out all effects; one that cannot be is tried again by the next call.

        Tasks that wait for the pool repeat it meanwhile; others wake one of them to do so.
        """
        effects = self.state.effects
        left: list[tuple[Effect, Any]] = []
        try:
            while effects:
                try:
                    left.append(effects.popleft())
                except IndexError:  # another thread was faster
                    break
                try:
                    self._carry_out(left)
                except Exception as error:  # no thread, no memory, no depth is left
                    if left and left[-1][0] is Effect.CONNECT:
                        self.state.last_error = error
                    self._warn(error)
        finally:
            effects.extend(left)
        if left and not repeats:
            self._find_helper()
        if self.lost and not self.lock._is_owned():
            self.apply(self._free_lost)

    def _find_helper(self) -> None:
        try:
            for waiter in self.state.helpers():
                waiter.event.set()
        except Exception as error:
            self._warn(error)

    def _carry_out(self, left: list[tuple[Effect, Any]]) -> None:
        """Carry out the last one of `left`, and remove it there once it needs no other try."""
        effect, subject = left[-1]
        if effect is WAKE:
            subject.event.set()
        elif effect in TASKS:
            self._start_task(effect, subject, left)
            return
        elif effect is Effect.KEEP_TIME:
            self.keep_time()
        elif effect is Effect.TICK_EARLIER:
            self._tick_earlier()
        elif effect is Effect.ABANDON:
            self.apply(self.state.abandon, subject)
        elif effect is Effect.RECLAIM:
            self.apply(self.state.reclaim, *subject)
        elif effect is Effect.STRAND:
            self.apply(self.state.strand)
        elif effect is Effect.REPORT:
            subject()
        left.pop()
        if effect is Effect.WARN_LOST:
            self._warn_lost(subject)

    def _start_task(self, effect: Effect, subject: Any, left: list[tuple[Effect, Any]]) -> None:
        job = Job(partial(self._work, effect, subject), partial(self.request, effect, subject))
        try:
            self.backend.spawn(job)
        except BaseException:
            if not job.cancel():
                left.pop()
            raise
        left.pop()
        self.state.effects.append((Effect.KEEP_TIME, None))

    def request(self, effect: Effect, subject: Any) -> None:
        """Leave an effect, whose task never began, to a task that waits or to the next call.

        The caller may be killing task after task: it must not find a new one at once.
        """
        if isinstance(subject, Slot) and subject not in self.state.slots:
            return  # the parent process's
        self.state.effects.append((effect, subject))
        self._find_helper()
        if self._alarm is not None:
            self._alarm.set()

    def _work(self, effect: Effect, subject: Any, begin: Callable[[], bool]) -> None:
        """Do the work of an effect: that on a slot once, however many tasks are started for it."""
        if not begin():
            return
        if effect not in WORK:
            TASKS[effect](self, subject)
            return
        slot, phase, me = subject, WORK[effect], object()
        # on one line, as in `Lock.claim`
        slot.worker = me if slot.worker is None and slot.phase is phase else slot.worker
        if slot.worker is not me:
            return
        try:
            TASKS[effect](self, slot)
        except BaseException:  # it could not even report
            if slot.worker is me and slot.phase is phase:
                slot.worker = None
                self.request(effect, slot)
            raise

    def _warn(self, error: BaseException) -> None:
        if sys.is_finalizing():
            return  # nothing is tried again
        try:  # noqa: SIM105  suppress() may find no depth or memory either
            log.warning("pool %r: trying again after an error: %s", self.name, one_line(error))
        except Exception:
            pass

    # Slots and their connections

    def add(self, conn: Any) -> None:
        """Add an idle connection made by the caller, if there is room and no task waits."""
        slot = Slot(monotonic())
        self.apply(self.state.adopt, slot, self._fill(slot, conn))

    def _fill(self, slot: Slot, conn: Any) -> int:
        """Put a connection into a slot; returns its key in `state.lent`."""
        slot.has_input = self.manager.input_check(conn)
        slot.conn = conn
        slot.alarm = weakref.ref(conn, partial(_on_lost, weakref.ref(self)))
        slot.ref = weakref.ref(conn, self.lost.append)  # called first, and in C: it cannot fail
        return id(conn)

    def note_lost(self) -> None:
        """Free the slot of a garbage-collected connection, now or after the current operation.

        A finalizer may run in any OS thread; one that has no hub of its own must not get one.
        """
        if self._keeper is not this_thread() and "hub" in self.backend.capabilities:
            self.request(Effect.KEEP_TIME, None)
        elif not self.lock._is_owned():
            self.apply(self._free_lost)

    def _free_lost(self, now: float) -> None:
        while self.lost:
            ref = self.lost[0]
            for slot in [slot for slot in self.state.lent.values() if slot.ref is ref]:
                self.state.lost(slot, now)
            self.lost.popleft()

    def _warn_lost(self, slot: Slot) -> None:
        if self.warns_of_leaks:
            fact = f"a connection lent at {describe_holder(slot)} was never given back"
            text = with_stacks(f"pool {self.name!r}: {fact}", [slot])
            warnings.warn(text, ResourceWarning, stacklevel=2)

    # Tasks

    def _connect(self, slot: Slot) -> None:
        began = monotonic()
        self.stats.connections_num += 1
        try:
            key = self._open(slot)
        except BaseException as error:
            self.stats.connections_errors += 1
            level = logging.DEBUG if self.state.failures else logging.WARNING
            self._report(self.state.connect_failed, slot, error)  # first: a log handler may wait
            self.failures.note("connect", error)
            log.log(level, "pool %r: no connection: %s", self.name, one_line(error))
            return
        seconds = monotonic() - began
        self.stats.connections += seconds
        self.times.connects.note(seconds)
        self.times.connects.report(seconds)
        self._report(self.state.connected, slot, key)

    def _open(self, slot: Slot) -> int:
        conn = self.manager.connect()
        try:
            return self._fill(slot, conn)
        except BaseException:
            slot.empty()
            self.manager.close(conn)
            raise

    def _check(self, slot: Slot) -> None:
        try:
            self.manager.check(slot.conn)
        except BaseException as error:
            self.stats.connections_lost += 1
            self._report(self.state.retire, slot)
            self.failures.note("check", error)
            log.info("pool %r: a connection is broken: %s", self.name, one_line(error))
        else:
            self._report(self.state.restored, slot)

    def _clean(self, slot: Slot) -> None:
        done, slot.done = slot.done, None
        try:
            self.manager.clean(slot.conn)
        except BaseException as error:
            self.stats.returns_bad += 1
            self._report(self.state.retire, slot)
            self.failures.note("reset", error)
            log.warning(
                "pool %r: a connection could not be cleaned: %s", self.name, one_line(error)
            )
        else:
            self._report(self.state.restored, slot)
        finally:
            if done is not None:
                done.set()

    def _close(self, slot: Slot) -> None:
        conn = slot.empty()  # kept until the slot is free: `slot.key` is its id
        try:
            self.manager.close(conn)
        except BaseException as error:
            log.warning("pool %r: closing a connection failed: %s", self.name, one_line(error))
        finally:
            self._report(self.state.closed, slot)

    def _report(self, event: Callable[..., None], slot: Slot, *args: Any) -> None:
        """Report how a task ended, unless it is a forked child's copy of the task."""
        self._report_in((slot.phase, slot.worker), event, slot, *args)

    def _report_in(
        self, turn: tuple[Phase, object], event: Callable[..., None], slot: Slot, *args: Any
    ) -> None:
        """Report once, while it is the task's turn."""
        if slot not in self.state.slots or turn != (slot.phase, slot.worker):
            return
        try:
            self.apply(event, slot, *args)
        except Exception as error:
            if turn == (slot.phase, slot.worker):  # nothing of it has happened
                again = partial(self._report_in, turn, event, slot, *args)
                self.state.effects.append((Effect.REPORT, again))
            self._warn(error)

    def _warn_held(self, slot: Slot) -> None:
        held = monotonic() - slot.since
        place = with_stacks(describe_holder(slot), [slot])
        log.warning("pool %r: held for %.1f s: %s", self.name, held, place)

    def _call_give_up(self, _: None) -> None:
        log.error("pool %r: reconnecting failed for too long", self.name)
        if self.give_up is not None:
            self.give_up()

    # Time

    def waiter(self, deadline: float, borrower: Borrower | None, since: float) -> Waiter:
        """Return a waiter, with its deadline if `tick` is called in this thread."""
        self._replace_keeper()
        kept_here = self._keeper is this_thread()
        return Waiter(self.backend.event(), deadline if kept_here else inf, borrower, since)

    def keep_time(self) -> None:
        """Start a task that calls `tick`, if it is needed and not running yet."""
        self._replace_keeper()
        seat, whose, me = self._seat, weakref.ref(self), object()
        if seat or not self.state.alive():
            return
        job = Job(partial(_keep_time, whose, seat, me), partial(_end_keeping, whose, seat, me))
        if seat.setdefault(0, me) is me:
            try:
                self._keepers_task = self.backend.spawn(job)
            except BaseException:
                seat.clear()  # a task that runs even so finds that it has no seat
                raise

    def _replace_keeper(self) -> None:
        """Forget the task that keeps time if its thread has ended, or its hub was destroyed."""
        lost = self._keeper is not None and self._keeper.dead
        stranded = is_stranded(self._keepers_task)
        if lost or stranded:
            self._keeper, self._alarm, self._seat = None, None, {}
            self._keepers_task = None
        if stranded:
            self.state.effects.append((Effect.STRAND, None))

    def tick(self) -> tuple[Event, float] | None:
        """Do what is due; return an event and the seconds to wait for it, None at the end.

        After an error these are a pause, which nothing shortens: a fault may last.
        """
        self._keeper = this_thread()
        try:
            rest = self._tick()
        except Exception as error:
            self._warn(error)
            rest = self.backend.event(), backoff(self._ticks_failed)
            self._ticks_failed += 1
        else:
            self._ticks_failed = 0
        return rest

    def _tick(self) -> tuple[Event, float] | None:
        alarm = self._alarm = self.backend.event()
        due = self.apply(self.state.tick)
        if self.state.effects:
            due = RETRY
        return None if due is None else (alarm, min(due, self.limits.rest()))

    def _tick_earlier(self) -> None:
        self.keep_time()
        if self._alarm is not None:
            self._alarm.set()

    # End

    def forked(self) -> PoolState:
        """Begin again in a forked child, and return the state inherited from the parent."""
        old = self.state
        self.state = PoolState(self.limits)
        self.state.ended = old.ended
        count_on(self.state, old)
        self._start()
        return old

    def __del__(self) -> None:
        state, alarm = getattr(self, "state", None), getattr(self, "_alarm", None)
        if alarm is not None:
            alarm.set()
        if state is None or not state.slots or state.ended:
            return
        state.open, state.ended = False, True
        if self.warns_of_leaks:
            warnings.warn(f"pool {self.name!r} was never closed", ResourceWarning, stacklevel=2)


TASKS: Final[dict[Effect, Callable[[Performer, Any], None]]] = {
    Effect.CONNECT: Performer._connect,
    Effect.CHECK: Performer._check,
    Effect.CLEAN: Performer._clean,
    Effect.CLOSE: Performer._close,
    Effect.WARN_HELD: Performer._warn_held,  # a logging handler may wait
    Effect.GIVE_UP: Performer._call_give_up,
}
WORK: Final = {
    Effect.CONNECT: Phase.CONNECTING,
    Effect.CHECK: Phase.CHECKING,
    Effect.CLEAN: Phase.CLEANING,
    Effect.CLOSE: Phase.CLOSING,
}


def _keep(task: Any) -> Callable[[], Any]:
    return lambda: task


def _on_lost(whose: Callable[[], Performer | None], _: Any) -> None:
    performer = whose()
    if performer is not None:
        performer.note_lost()


def _keep_time(
    whose: Callable[[], Performer | None],
    seat: dict[int, object],
    me: object,
    begin: Callable[[], bool],
) -> None:
    """Call `tick` whenever something is due, while the pool exists and needs it."""
    if not begin() or seat.get(0) is not me:
        return
    try:
        while (performer := whose()) is not None and (rest := performer.tick()) is not None:
            del performer  # this task must not keep the pool alive
            alarm, seconds = rest
            alarm.wait(seconds)
    finally:
        _end_keeping(whose, seat, me)
        performer = whose()
        if performer is not None:
            performer.perform()


def _end_keeping(
    whose: Callable[[], Performer | None], seat: dict[int, object], me: object
) -> None:
    if seat.get(0) is not me:
        return
    seat.clear()
    performer = whose()
    if performer is not None:  # its task was killed, or needed again since its last tick
        performer.request(Effect.KEEP_TIME, None)
