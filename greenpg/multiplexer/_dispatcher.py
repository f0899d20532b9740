"""The queue of groups, the lines that serve it, and which line gets them."""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

from psycopg2 import OperationalError

from greenpg._checks import check_count, check_number, check_seconds
from greenpg._protocol.prepared import Statements
from greenpg._session.backoff import one_line
from greenpg._session.failures import Failures
from greenpg._session.job import Job
from greenpg.backend import Backend, parking, soon
from greenpg.errors import DeadlineExceeded, PoolClosed, PoolTimeout, TooManyRequests
from greenpg.threads import pristine

from ._group import first
from ._line import Line

if TYPE_CHECKING:
    from greenpg.pool import ConnectionPool

    from ._group import Group

PACKED: Final = 0.01  # seconds of work that are sent on one line before another one is used
LOOK: Final = 0.05  # seconds between two looks at groups that wait
LINGER: Final = 1.0  # seconds without work until a connection goes back to the pool
_Error = TypeVar("_Error", bound=Exception)
log = logging.getLogger("greenpg.multiplexer")
_thread = pristine("_thread")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a multiplexer is bounded by."""

    max_size: int
    slow: float
    max_in_flight: int
    prepared_max: int
    max_waiting: int
    timeout: float

    def __post_init__(self) -> None:
        for name in "max_size", "max_in_flight", "prepared_max":
            check_count(name, getattr(self, name), 1)
        check_seconds("slow", self.slow, above=0)
        check_number("max_waiting", self.max_waiting)
        check_number("timeout", self.timeout, -inf)


class Dispatcher:
    """Runs groups on lines; `name` is the multiplexer's.

    `cursor` belongs to an open line, if there is one.
    """

    backend: Backend

    def __init__(self, name: str, limits: Limits, pool: ConnectionPool) -> None:
        self.name, self.limits, self.closed = name, limits, False
        self.slow, self.max_in_flight = limits.slow, limits.max_in_flight
        self.asked = self.failed = 0  # statements, and those without an answer
        self.answered = self.slow_answers = 0
        self.answer_time = 0.0
        self.failures = Failures()
        self._pool = pool
        self.begin()

    def begin(self) -> None:
        """Set what a forked child does not share with its parent."""
        self.lock = _thread.RLock()  # for its `_is_owned`; never held across a wait or a switch
        self.queue: OrderedDict[Group, None] = OrderedDict()
        self.lines: list[Line] = []
        self.tasks: set[Hashable] = set()  # of lines
        self.deadlines: dict[Hashable, float] = {}
        self.cursor: Any = None
        self._statements: weakref.WeakKeyDictionary[Any, Statements] = weakref.WeakKeyDictionary()
        self._opening: set[object] = set()  # a token for each line that has no connection yet
        self._opened_at = -inf
        self._scheduled = False
        self._due = False  # a `push` that found the lock taken
        self._alarm: Any = None  # the event of the task that looks after queue and lines
        self._looks_often = False
        self._last_error: BaseException | None = None

    def use(self, backend: Backend) -> None:
        """Run on this backend."""
        self.backend = backend
        self._soon, self._current = soon(backend), backend.current
        self._park, self.unpark = parking(backend)
        self._has_hub = "hub" in backend.capabilities

    # What tasks call

    def run(self, group: Group) -> None:
        """Queue a group and wait for its end; raises its error."""
        deadline = self.deadlines.get(self._current()) if self.deadlines else None
        if deadline is not None:
            if deadline <= monotonic():
                raise self._overdue(group)
            group.deadline = deadline
        try:
            self.queue[group] = None
            if self._alarm is None:
                self._look_after()  # also for a `push` that is lost
            if not self._scheduled:
                self._scheduled = self._has_hub
                self._soon(self.push)
            if deadline is None:
                self._park(group)
            else:
                self._park(group, max(deadline - monotonic(), 0))
                if not group.ended:
                    raise self._overdue(group)
        except BaseException:
            self._scheduled = False  # perhaps `soon` has raised
            self._abandon(group)
            raise
        if group.error is not None:
            raise group.error

    def _abandon(self, group: Group) -> None:
        with self.looking():
            group.abandoned = True
            self.queue.pop(group, None)
            if group.ended:
                group.free()
            elif group.line is not None:
                group.line.forget(group)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Hold the lock, and do afterwards what a `push` has left meanwhile."""
        with self.lock:
            yield
        if self._due:
            self.push()

    # Sending

    def push(self) -> None:
        """Give what waits in the queue to lines, or leave it to the lock's holder; never waits."""
        self._due = True  # first: the holder looks at it after the release
        if self.lock._is_owned():  # a finalizer
            return
        try:
            self._scheduled = False
            while self._due and self.queue and self.lock.acquire(False):
                self._due = False  # first: what changes meanwhile is seen, or sets it again
                waits = not self._distribute()
                self.lock.release()
                if waits:
                    self._look_after()
        except BaseException:
            self._mend()
            raise

    def _mend(self) -> None:
        """Send what an interrupted `push` has queued; the rest is left to the keeper."""
        try:
            for line in self.lines:
                line.flush()
            self._look_after()
        finally:
            if self.lock._is_owned():
                self.lock.release()

    def _distribute(self) -> bool:
        """Return False if some groups are left, since no line has room."""
        now, queue, used = monotonic(), self.queue, list[Line]()
        if self.closed:
            self.fail_all(PoolClosed(f"multiplexer {self.name!r} was closed"))
        self._expire(now - max(self.limits.timeout, LOOK))
        while queue and (line := self._choose(now)) is not None:
            line.send(queue, PACKED if line.load < PACKED else line.load, now)
            if line not in used:
                used.append(line)
        for line in used:
            line.flush()
        while 0 < self.limits.max_waiting < len(queue):
            text = f"multiplexer {self.name!r}: {self.limits.max_waiting} statements wait already"
            self._fail(first(queue, reversed), self._because_of_server(TooManyRequests(text)))
        return not queue

    def _choose(self, now: float) -> Line | None:
        """Return the first line with little to do, else the one with least, if one has room."""
        best: Line | None = None
        for line in self.lines:
            if line.has_room(now):
                if line.load < PACKED:
                    return line
                if best is None or line.load < best.load:
                    best = line
        self._grow(now)
        return best

    def _fail(self, group: Group, error: Exception) -> None:
        """End a group of the queue."""
        group.end(error)
        self.failures.note("request", error)
        try:
            self.unpark((group,))
        finally:
            self.queue.pop(group, None)
            self.failed += 1

    def fail_all(self, error: Exception) -> None:
        """Let all groups of the queue raise an error."""
        while self.queue:
            self._fail(first(self.queue), error)

    # Lines

    def _grow(self, now: float) -> None:
        """Open one more line, unless another one is being opened and has not taken long yet."""
        if len(self.lines) + len(self._opening) >= self.limits.max_size or self.closed:
            return
        if self._opening and now - self._opened_at < self.slow:
            return
        token = object()
        lost = partial(self._opening.discard, token)
        try:
            self._opening.add(token)
            self._opened_at = now
            self.backend.spawn(Job(partial(self._serve, lost), lost))
        except BaseException:
            lost()
            raise

    def _serve(self, opened: Callable[[], object], begin: Callable[[], bool]) -> None:
        """Borrow a connection and serve it until it has nothing to do, or is lost.

        `opened` notes that there is a connection, or never will be.
        """
        if not begin():
            return
        conn, line, healthy = None, None, False
        try:
            conn = self._pool.getconn()
            self._last_error = None
            self.tasks.add(self._current())
            line = Line(self, conn, self._statements_of(conn))
            self.lines.append(line)
            opened()
            self.cursor = line.origin.cursor
            self._look_after()
            line.serve()
            healthy = True
        except Exception as error:
            if conn is None:
                self._last_error = error.__cause__ or error
            else:
                self._last_error = error
                self.failures.note("connection", error)
                log.info("multiplexer %r: a connection was lost: %s", self.name, one_line(error))
        finally:
            opened()
            self.tasks.discard(self._current())
            if line is not None:
                self._drop(line)
            if conn is not None:
                self._pool.putconn(conn, close=not healthy)
            self.push()

    def _drop(self, line: Line) -> None:
        with self.lock:
            if line in self.lines:
                self.lines.remove(line)
            if self.cursor is line.origin.cursor:
                self.cursor = self.lines[0].origin.cursor if self.lines else None
        self.push()  # before the connection's return, which may wait
        if not self.lines:
            self._ring()  # perhaps nothing is left to look after

    def _statements_of(self, conn: Any) -> Statements:
        """Return what is prepared on a connection, also by an earlier line."""
        found = self._statements.get(conn)
        if found is None:
            found = self._statements[conn] = Statements(self.limits.prepared_max)
        return found

    # Time

    def _look_after(self) -> None:
        """Have a task end waits and idle lines in time, while there are any."""
        if self._alarm is None:
            try:
                self._alarm = self.backend.event()
                self.backend.spawn(Job(self._keep, self._kept))
            except BaseException:
                self._alarm = None
                raise
        elif self.queue and not self._looks_often:
            self._ring()

    def _ring(self) -> None:
        alarm = self._alarm  # another OS thread may be about to end the task
        if alarm is not None:
            alarm.set()

    def _keep(self, begin: Callable[[], bool]) -> None:
        if not begin():
            return
        try:
            while self.queue or self.lines:
                alarm = self._alarm = self.backend.event()
                self._looks_often = True  # at once, and soon again if groups are left
                with self.looking():
                    self._expire(monotonic() - self.limits.timeout)
                for line in list(self.lines):
                    line.stop_if_idle(monotonic(), LINGER)
                self.push()
                self._looks_often = False  # first: one that is added now sets the alarm
                self._looks_often = bool(self.queue)
                alarm.wait(min(LOOK, self.limits.timeout) if self._looks_often else LINGER)
        finally:
            self._kept()

    def _kept(self) -> None:
        self._alarm = None
        if (
            self.queue or self.lines
        ):  # an OS thread has added to it meanwhile, or the task was killed
            self._look_after()

    def _expire(self, limit: float) -> None:
        while self.queue and (group := first(self.queue)).asked <= limit:
            self._fail(group, self._timed_out())

    def _timed_out(self) -> PoolTimeout:
        fact = f"multiplexer {self.name!r}: not sent in {self.limits.timeout:.1f} s ({self})"
        return self._because_of_server(PoolTimeout(fact), "raise max_size")

    def _overdue(self, group: Group) -> DeadlineExceeded:
        text = "the deadline of the task has passed"
        if group.line is not None:
            return DeadlineExceeded(text)
        return self._because_of_server(DeadlineExceeded(f"{text}; nothing was sent ({self})"))

    def _because_of_server(self, error: _Error, remedy: str = "") -> _Error:
        """Return an error with the last one of the server, or else with a remedy."""
        cause = self._pool._pool.last_error or self._last_error
        if cause is not None:
            remedy = f"no connection: {one_line(cause)}"
        told = type(error)("; ".join(filter(None, (str(error), remedy))))
        told.__cause__ = cause
        return told

    # The end

    def close(self) -> None:
        """Refuse the groups that wait, and end the lines; from any thread."""
        self.closed = True
        for line in list(self.lines):
            line.stop()
        self._ring()  # for `push`, in the tasks' own thread

    def forked(self) -> None:
        """Begin again, in a forked child."""
        waiting, lines = self.queue, self.lines
        self.begin()
        for line in lines:
            line.open = False
        self.queue = waiting
        self.fail_all(OperationalError("the statement is the parent process's"))

    def __str__(self) -> str:
        return f"{len(self.lines)} connections, {len(self.queue)} waiting"
