"""The pool: lend connections and take them back; open, wait and close."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from math import inf
from sys import _getframe
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from greenpg._fork_hooks import Order, in_child
from greenpg._instances import Instances
from greenpg._session.backoff import one_line

from ._borrowers import Holder, Waiting, describe_load, holders, waiting, with_oldest_stacks
from ._connections import BROKEN, DIRTY, Condition, ConnectionManager, Hook
from ._measures import Measures, measures
from ._performer import RETRY, Performer
from ._slots import Borrower, Limits, Phase, Slot, Waiter
from ._state import Effect

if TYPE_CHECKING:
    from greenpg._session.failures import Failure
    from greenpg.backend import Backend

_Lent = TypeVar("_Lent")
CLEANING_SECONDS: Final = 1.0  # the wait for the rollback of a returned connection
CANCEL_SECONDS: Final = 1.0  # the wait of `close` after cancelling queries
IN_HUB: Final = "no connection is idle, and in the event loop's own greenlet nothing may wait"
log = logging.getLogger("greenpg.pool")
_pools: Final[Instances[Pool]] = Instances()


class Pool:
    """Lends a manager's connections; returned in `clean_from` or worse they are cleaned first."""

    def __init__(
        self,
        manager: ConnectionManager,
        backend: Callable[[], Backend],
        limits: Limits,
        *,
        name: str,
        timeout: float = 30.0,
        opens_itself: bool = True,
        keeps_stacks: bool = False,
        warns_of_leaks: bool = True,
        clean_from: Condition = DIRTY,
        discard_on: tuple[type[BaseException], ...] = (),
        on_acquire: Hook | None = None,
        on_release: Hook | None = None,
        give_up: Callable[[], object] | None = None,
    ) -> None:
        self.manager, self.limits, self.name, self.timeout = manager, limits, name, timeout
        self.performer = Performer(manager, backend, limits, name, warns_of_leaks, give_up)
        self.condition, self.commit = manager.condition, manager.commit
        self._errors = manager.errors
        self._opens_itself = opens_itself
        self._keeps_stacks = keeps_stacks
        self._clean_from = clean_from
        self._discard_on = discard_on
        self._on_acquire = on_acquire
        self._on_release = on_release
        self.inherited: frozenset[Slot] = frozenset()  # the slots of a forked child's parent
        _pools.add(self)

    # Lending

    def lend(self, timeout: float | None, frame: FrameType) -> tuple[Slot, Any]:
        """Return a slot and its connection; `frame` is where they are borrowed."""
        now = monotonic()
        performer = self.performer
        lock = performer.lock
        if lock._is_owned():
            raise performer.reentered()
        # of the task the slot keeps a weak reference: it may be dropped with its connection
        current = performer.current or performer.find_current()
        borrower = frame.f_code, frame.f_lasti, performer.refer(current())
        waiter: Any = None
        conn: Any = None
        try:  # cheaper than `with lock`: `greenpg bench -w pool`
            lock.acquire()
            slot = performer.state.take(now)
            if slot is not None:
                # from now on only the holder keeps the connection alive
                conn, has_input, slot.conn = slot.conn, slot.has_input, None
                loan = slot.loan
            else:
                seconds = self.timeout if timeout is None else timeout
                waiter = self._line_up(now, seconds, borrower)
        finally:
            try:  # noqa: SIM105  Ctrl-C may land as suppress begins
                lock.release()
            except RuntimeError:  # Ctrl-C came before the lock was ours
                pass
        try:
            if slot is None:
                slot = self._await(waiter, now, seconds)
                conn, slot.conn = slot.conn, None
            elif slot.stale or has_input(0):
                seconds = self.timeout if timeout is None else timeout
                slot.conn, conn = conn, None
                waiter = self._suspect(slot, now, seconds, borrower)
                slot = self._await(waiter, now, seconds)
                conn, slot.conn = slot.conn, None
            slot.holder = borrower
            if self._keeps_stacks:
                slot.stack = "".join(traceback.format_stack(frame))
        except BaseException:  # perhaps no depth is left to call a function
            if conn is not None and slot is not None:
                slot.conn = conn
            if waiter is None:
                performer.state.effects.append((Effect.RECLAIM, (slot, loan)))
            elif waiter.slot is not None or waiter in performer.state.waiters:
                performer.state.effects.append((Effect.ABANDON, waiter))
            raise
        if self._on_acquire is not None:
            self._call(self._on_acquire, slot, conn)
        return slot, conn

    def _call(self, hook: Hook, slot: Slot, conn: Any) -> None:
        try:
            hook(conn)
        except BaseException as error:
            self.take_back_after(error, slot, conn)
            raise

    def _line_up(self, now: float, seconds: float, borrower: Borrower) -> Waiter:
        """Add a waiter to the line; called with the lock held."""
        performer = self.performer
        state = performer.state
        performer.stats.requests_num += 1
        waiter = None
        try:
            if not performer.backend.can_wait():
                raise self._errors.programming(IN_HUB)
            if not state.open:
                self._open_on_first_use(now)
            waiter = performer.waiter(now + seconds, borrower, now)
            if not state.queue(waiter, now):
                text = f"pool {self.name!r}: too many wait already ({describe_load(state, now)})"
                raise self._errors.too_many(with_oldest_stacks(text, state)) from state.last_error
        except BaseException:
            performer.stats.requests_errors += 1
            if waiter is not None:
                state.effects.append((Effect.ABANDON, waiter))
            raise
        performer.stats.requests_queued += 1
        return waiter

    def _open_on_first_use(self, now: float) -> None:
        state = self.performer.state
        if state.ended:
            text = f"pool {self.name!r} is closed ({describe_load(state, now)})"
            raise self._errors.closed(text) from state.last_error
        if not self._opens_itself:
            text = f"pool {self.name!r} is not open yet; call open(), or use it in a with"
            raise self._errors.closed(text)
        state.begin(now)

    def _suspect(
        self, slot: Slot, began: float, seconds: float, borrower: Borrower | None
    ) -> Waiter:
        """Schedule a check of a connection that was just taken; return a waiter, first in line."""
        performer = self.performer
        if not performer.backend.can_wait():
            performer.apply(performer.state.undo, slot)
            raise self._errors.programming(IN_HUB)
        waiter = performer.waiter(began + seconds, borrower, began)
        try:
            performer.apply(performer.state.suspect, slot, waiter)
        except BaseException:
            performer.state.effects.append((Effect.ABANDON, waiter))
            raise
        return waiter

    def _await(self, waiter: Waiter, began: float, seconds: float) -> Slot:
        """Wait for a connection on which no unsolicited data has arrived."""
        performer = self.performer
        try:
            while True:
                limited = waiter.deadline < inf or seconds == inf  # by `tick`, or not at all
                self._wait_for(waiter, waiter.served, began + seconds, limited)
                slot = waiter.slot
                if slot is None:
                    raise waiter.error or self._timed_out(seconds)
                if not slot.has_input(0):
                    waited = monotonic() - began
                    performer.times.waits.note(waited)
                    performer.times.waits.report(waited)
                    return slot
                waiter = self._suspect(slot, began, seconds, waiter.borrower)
        except BaseException:
            performer.stats.requests_errors += 1
            performer.state.effects.append((Effect.ABANDON, waiter))
            performer.perform()
            raise
        finally:
            performer.stats.requests_wait += monotonic() - began

    def _wait_for(
        self, waiter: Waiter, done: Callable[[], object], end: float, limited: bool = False
    ) -> None:
        """Wait until `done()` is true, or for `end`, which `tick` sees to if `limited`.

        Effects that could not be carried out are tried again meanwhile.
        """
        performer = self.performer
        effects = performer.state.effects
        while not done():
            if effects:
                performer.perform(repeats=True)
            left = end - monotonic()
            if effects:
                waiter.event.wait(min(max(left, 0.0), RETRY))
            else:
                waiter.event.wait(None if limited or left == inf else max(left, 0.0))
            if done() or monotonic() >= end:
                return
            waiter.event = performer.backend.event()  # it was woken for the effects

    def _timed_out(self, seconds: float) -> Exception:
        self.performer.times.timeouts += 1
        state = self.performer.state
        fact = f"no connection in {seconds:.1f} s ({describe_load(state, monotonic())})"
        remedy = "raise max_size or hold connections for less time"
        if state.last_error is not None:
            remedy = f"the last attempt to connect failed: {one_line(state.last_error)}"
        told = f"pool {self.name!r}: {fact}; {remedy}"
        error = self._errors.timeout(with_oldest_stacks(told, state))
        error.__cause__ = state.last_error
        self.performer.failures.note("request", error, fact)
        return error

    # Taking back

    def take_back(self, slot: Slot, conn: Any, condition: Condition) -> None:
        """End a loan: a clean connection goes to the next waiter, others to a task.

        This waits up to CLEANING_SECONDS for the cleaning; an interrupt ends only the wait.
        """
        if self._on_release is not None:
            condition = max(condition, self._released(self._on_release, conn))
        performer, now = self.performer, monotonic()
        state = performer.state
        done, heard, loan = None, False, slot.loan
        lock = performer.lock
        if lock._is_owned():
            raise performer.reentered()
        try:
            lock.acquire()
            if state.lent.get(slot.key) is not slot:
                if slot in self.inherited:  # by a forked child's copy of a task
                    return
                raise self.not_lent()
            used = now - slot.since
            slot.conn = conn
            if condition is BROKEN:
                performer.stats.returns_bad += 1
                state.retire(slot, now)
            elif condition >= self._clean_from:
                done = slot.done = performer.backend.event()
                state.return_dirty(slot, now)
            else:
                state.give_back(slot, now)
            # after the return, which counts the loan: an interrupt may come between
            performer.used += used
            if used > performer.brief:
                heard = performer.times.loans.note(used)
        except BaseException:
            if slot.conn is conn and slot.loan == loan and state.lent.get(slot.key) is slot:
                slot.conn = None  # as before: the holder has it
            raise
        finally:
            try:  # noqa: SIM105  Ctrl-C may land as suppress begins
                lock.release()
            except RuntimeError:  # Ctrl-C came before the lock was ours
                pass
        if heard:
            performer.times.loans.report(used)
        if state.effects or performer.lost:
            performer.perform()
        if condition is BROKEN:
            # other connections may be broken for the same reason
            performer.apply(performer.state.check_input)
        elif done is not None and performer.backend.can_wait():
            done.wait(CLEANING_SECONDS)

    def take_back_after(self, error: BaseException, slot: Slot, conn: Any) -> None:
        """End a loan after an error; a later timeout does not replace a kill."""
        try:
            fatal = isinstance(error, self._discard_on)
            self.take_back(slot, conn, BROKEN if fatal else self.condition(conn))
        except BaseException as later:
            exits = (*self.performer.backend.exits, KeyboardInterrupt, SystemExit)
            if not isinstance(error, exits) or isinstance(later, exits):
                raise

    def _released(self, hook: Hook, conn: Any) -> Condition:
        """Call the user's hook; its failure must not hide an error of the block."""
        try:
            hook(conn)
        except Exception:
            log.exception("pool %r: the hook on_release failed", self.name)
        return self.condition(conn)

    def slot_of(self, conn: Any) -> Slot | None:
        """Return the slot of a lent connection; None if this pool has not lent it."""
        slot = self.performer.state.lent.get(id(conn))
        return None if slot is None or slot.ref() is not conn else slot

    def not_lent(self) -> ValueError:
        """Return the error for the return of a connection that is not lent."""
        return ValueError(f"the connection was not lent by pool {self.name!r}, or is back already")

    # Who borrows

    def holders(self, most: int | None = None) -> list[Holder]:
        """Return the holders of lent connections, that of the oldest loan first."""
        return holders(self.performer.state, self.manager, monotonic(), most)

    def waiters(self, most: int | None = None) -> list[Waiting]:
        """Return those that wait for a connection, in the order in which they are served."""
        return waiting(self.performer.state, monotonic(), most)

    def failures(self) -> list[Failure]:
        """Return the last failure of each kind, the latest first."""
        return self.performer.failures.last()

    def measures(self) -> Measures:
        """Return the pool's numbers for monitoring; does not wait."""
        performer = self.performer
        with performer.lock:  # amid a loan's steps a counter may be one too high, and fall again
            return measures(performer.state, performer.times, performer.used, monotonic())

    def listen_to(self, times: str, listener: Callable[[float], object]) -> None:
        """Call `listener` with each duration of `times`, a field of `Times`; with all loans too."""
        getattr(self.performer.times, times).listener = listener
        if times == "loans":
            self.performer.brief = -inf

    @property
    def backend(self) -> Backend | None:
        """The pool's backend; None before it has one."""
        return self.performer._backend

    # Opening and closing

    @property
    def last_error(self) -> BaseException | None:
        """The error of the last attempt to connect; None if it succeeded."""
        return self.performer.state.last_error

    @property
    def gone(self) -> bool:
        """True once the pool is closed and has no session left."""
        return (state := self.performer.state).ended and not state.slots

    def open(self) -> None:
        """Open the pool; raises the `closed` error if it has been closed."""
        state = self.performer.state
        if state.ended:
            text = f"pool {self.name!r} has been closed and cannot be opened again"
            raise self._errors.closed(text)
        self._opens_itself = True
        self.performer.apply(state.begin)

    def wait(self, timeout: float) -> None:
        """Open the pool and wait until it is filled; after `timeout` seconds close it and raise."""
        self.open()
        state = self.performer.state
        if not self._until(state.filled, timeout):
            self.close(0)
            size = state.limits.min_size
            text = f"pool {self.name!r}: not filled with {size} connections in {timeout:g} s"
            raise self._errors.timeout(text) from state.last_error

    def _until(self, true: Callable[[], bool], timeout: float) -> bool:
        performer = self.performer
        if not performer.backend.can_wait():
            raise self._errors.programming("in the event loop's own greenlet nothing may wait")
        waiter = Waiter(performer.backend.event())
        try:
            performer.apply(performer.state.watch, waiter, true)
            self._wait_for(waiter, true, monotonic() + timeout)
        finally:
            performer.apply(performer.state.unwatch, waiter)
        return true()

    def check(self) -> None:
        """Check all idle connections, and wait for the checks."""
        state = self.performer.state
        slots = list(state.idle)
        self.performer.apply(state.check_idle, slots)
        self._until(lambda: all(slot.phase is not Phase.CHECKING for slot in slots), inf)

    def close(self, timeout: float) -> None:
        """Wait `timeout` seconds for lent connections, cancel their queries, then close them."""
        performer = self.performer
        state = performer.state
        if not state.ended:
            text = f"pool {self.name!r} was closed ({describe_load(state, monotonic())})"
            error = self._errors.closed(text)
            performer.apply(state.end, error)
        if not state.slots or not performer.backend.can_wait():
            return
        if not self._until(performer.state.empty, timeout):  # a fork may replace the state
            self._on_lent(self.manager.cancel)
            if not self._until(performer.state.empty, CANCEL_SECONDS):
                self._on_lent(self.manager.close)

    def _on_lent(self, act: Callable[[Any], None]) -> None:
        for slot in list(self.performer.state.lent.values()):
            conn = slot.ref()
            if conn is None:
                continue
            try:
                act(conn)
            except Exception as error:
                log.warning("pool %r: while closing: %s", self.name, error)

    def forked(self) -> None:
        """Reset in a forked child: sessions and waiting tasks belong to the parent."""
        old = self.performer.forked()
        self.inherited |= old.slots
        self._opens_itself = self._opens_itself or old.open
        for waiter in old.waiters:
            text = f"pool {self.name!r}: the forked child's copy of a waiting task"
            waiter.error = self._errors.closed(text)
            waiter.event.set()


class Lease(Generic[_Lent]):
    """One `with pool.connection()`: commits on success, rolls back on error, returns it.

    `ConnectionPool.connection` sets `pool`, `timeout` and `slot`, which is None outside the
    block; an `__init__` would be slower: `greenpg bench -w pool`.
    """

    __slots__ = ("conn", "pool", "slot", "timeout")

    pool: Pool
    timeout: float | None
    slot: Any
    conn: Any

    def __enter__(self) -> _Lent:
        """Wait for a connection and return it."""
        if self.slot is not None:
            raise RuntimeError("this connection() is in use; call it once for each with block")
        try:
            frame = _getframe(1)
        except ValueError:  # a greenlet begins with this call
            frame = _getframe()
        self.slot, self.conn = self.pool.lend(self.timeout, frame)
        return self.conn  # type: ignore[no-any-return]  # Any here; cast() is a call

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """End the transaction and return the connection."""
        slot, conn, pool = self.slot, self.conn, self.pool
        self.slot = self.conn = None
        loan = slot.loan
        try:
            if error is not None:
                pool.take_back_after(error, slot, conn)
                return
            examine = pool.condition  # a local is called faster than an attribute: `bench -w pool`
            condition = examine(conn)
            if condition is DIRTY:
                try:
                    pool.commit(conn)
                    condition = examine(conn)
                except BaseException as failure:
                    pool.take_back_after(failure, slot, conn)
                    raise
            pool.take_back(slot, conn, condition)
        except BaseException:
            state = pool.performer.state
            held = state.lent.get(slot.key)
            if held is not None and held is slot and held.loan == loan:
                held.conn = conn  # perhaps no depth is left to call a function
                state.effects.append((Effect.RECLAIM, (slot, loan)))
            raise


def all_pools() -> list[Pool]:
    """Return the pools of this process, by their names."""
    return sorted(_pools.all(), key=lambda pool: pool.name)


def _after_fork() -> None:
    for pool in _pools.all():
        pool.forked()


in_child(Order.POOLS, _after_fork)
