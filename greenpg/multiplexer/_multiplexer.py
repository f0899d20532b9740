"""The public class: the queue of groups, and which line gets them."""

from __future__ import annotations

import itertools
import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from math import inf
from time import monotonic
from typing import Any, ClassVar, Final

from psycopg2 import OperationalError, ProgrammingError
from psycopg2 import extensions as ext

from greenpg._connecting.connect import default_backend
from greenpg._fork_hooks import Order, in_child
from greenpg._protocol.libpq import libpq
from greenpg._protocol.pipelining import PIPELINES
from greenpg._psycopg2.psycopg2_c import c_cursor
from greenpg._session.backoff import one_line
from greenpg._session.job import Job
from greenpg._session.lock import IN_HUB
from greenpg._session.time_slice import TimeSlice
from greenpg.backend import Backend, as_backend, soon
from greenpg.errors import (
    DeadlineExceeded,
    PipelineAborted,
    PoolClosed,
    PoolTimeout,
    TooManyRequests,
)
from greenpg.pipeline import PipelineResult
from greenpg.pool import ConnectionPool
from greenpg.threads import pristine

from ._group import Group
from ._line import Line
from ._scan import refusal
from ._texts import Texts

PACKED: Final = 0.01  # seconds of work that are sent on one line before another one is used
LOOK: Final = 0.05  # seconds between two looks at groups that wait
LINGER: Final = 1.0  # seconds without work until a connection goes back to the pool
REENTERED: Final = "the multiplexer is inside another operation (called by a finalizer or a signal)"
OTHER_THREAD: Final = "the multiplexer belongs to another OS thread, which was the first to use it"
log = logging.getLogger("greenpg.multiplexer")
_thread = pristine("_thread")
_numbers = itertools.count(1)
_all: Final[weakref.WeakSet[Multiplexer]] = weakref.WeakSet()


class Multiplexer:
    """Executes statements of any number of tasks on few connections, in pipeline mode.

    Each call is one transaction. Statements that touch the session, such as BEGIN, SET or LISTEN,
    are refused. `options` are those of the ConnectionPool that makes the connections. With a
    green library a multiplexer belongs to the OS thread that uses it first.
    """

    default_backend: ClassVar[Backend | None] = None

    def __init__(
        self,
        conninfo: str | Callable[[], str] = "",
        *,
        backend: str | Backend | None = None,
        min_size: int = 1,
        max_size: int = 4,
        slow: float = 0.05,
        max_in_flight: int = 256,
        max_waiting: int = 0,
        timeout: float = 30.0,
        configure: Callable[[Any], object] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        """Make a multiplexer; it connects when it is first used.

        A statement that has run for `slow` seconds gets no other one behind it while connections
        are left. After `timeout` seconds a statement that could not be sent raises PoolTimeout;
        if `max_waiting` statements wait already, it raises TooManyRequests.
        """
        libpq.need(*PIPELINES)
        if max_in_flight < 1 or not slow > 0:
            raise ValueError("max_in_flight must be at least 1, and slow more than 0")
        chosen = self.default_backend if backend is None else as_backend(backend)
        self._find_backend = default_backend if chosen is None else lambda: chosen
        self.slow, self.max_in_flight = slow, max_in_flight
        self._max_size, self._max_waiting, self._timeout = max_size, max_waiting, timeout
        self._user_configure = configure
        self._encoding: str | None = None
        self.name = name or f"multiplexer-{next(_numbers)}"
        self._pool = ConnectionPool(
            conninfo, backend=chosen, min_size=min_size, max_size=max_size, name=self.name,
            configure=self._configure, timeout=timeout, **options,
        )  # fmt: skip
        self._texts = Texts(slow)
        self._closed = False
        self._backend: Backend | None = None
        self._counts = dict.fromkeys(("num", "queued", "errors"), 0)
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        """Set what a forked child does not share with its parent."""
        self.lock = _thread.RLock()  # for its `_is_owned`; never held across a wait or a switch
        self._queue: OrderedDict[Group, None] = OrderedDict()
        self._lines: list[Line] = []
        self._mogrifier: Any = None  # a cursor of an open line
        self._opening = 0
        self._opened_at = -inf
        self._scheduled = False
        self._alarm: Any = None  # the event of the task that looks after queue and lines
        self._looks_often = False
        self._tasks: set[Hashable] = set()  # of lines
        self._deadlines: dict[Hashable, float] = {}
        self._thread = 0
        self._last_error: BaseException | None = None

    def _configure(self, conn: Any) -> None:
        """Make the sessions alike: a statement is written for one, and may go to another."""
        if self._user_configure is not None:
            self._user_configure(conn)
        conn.autocommit = True
        if conn.info.parameter_status("standard_conforming_strings") != "on":
            with conn.cursor() as cur:
                cur.execute("set standard_conforming_strings = on")
        if self._encoding is None:
            self._encoding = conn.encoding
        elif conn.encoding != self._encoding:
            conn.set_client_encoding(self._encoding)

    @property
    def backend(self) -> Backend:
        """The backend, which is looked up at first use."""
        if self._backend is None:
            self._backend = self._find_backend()
            self._soon = soon(self._backend)
            self._event, self._current = self._backend.event, self._backend.current
            self._can_wait = self._backend.can_wait
            self._has_hub = "hub" in self._backend.capabilities
        return self._backend

    # What tasks call

    def execute(self, query: Any, vars: Any = None) -> PipelineResult:
        """Execute one statement and return its result; errors are those of a cursor.

        An interrupt ends the wait at once; the statement may still run, unless nobody waits for
        anything else on its connection: then it is cancelled.
        """
        sql, pace = self._written(query, vars)
        group = Group([sql], pace, self._event(), monotonic())
        self._run(group)
        if len(group.answers) > 1:
            return self._results(group)[0]
        result = PipelineResult(group.line.origin)
        answer, status = group.answers.pop()
        result.adopt(answer, status)
        if result.error is not None:
            libpq.PQclear(answer)
            raise result.error
        if result._rows is None:
            libpq.PQclear(answer)
        return result

    def executemany(self, query: Any, rows: Iterable[Any]) -> list[PipelineResult]:
        """Execute a statement for all rows, as one transaction; return a result for each row.

        If one fails, its error is raised and none has any effect.
        """
        statements, pace, time_slice = list[bytes](), None, TimeSlice(self.backend)
        for row in rows:
            sql, pace = self._written(query, row)
            statements.append(sql)
            time_slice.pause_if_over()
        if pace is None:
            return []
        group = Group(
            statements, self._texts.pace(f"executemany {query}"), self._event(), monotonic()
        )
        self._run(group)
        return self._results(group)

    def _results(self, group: Group) -> list[PipelineResult]:
        results, answers = list[PipelineResult](), group.answers
        answers.reverse()
        try:
            while answers:
                result = PipelineResult(group.line.origin)
                result.adopt(*answers[-1])
                answer = answers.pop()[0]
                if result._rows is None:
                    libpq.PQclear(answer)
                if result.error is not None and not isinstance(result.error, PipelineAborted):
                    raise result.error
                results.append(result)
        finally:
            group.free()
        return results

    @contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """Bound the running task's statements: DeadlineExceeded after that many seconds."""
        task, instant = self.backend.current(), monotonic() + seconds
        outer = self._deadlines.get(task)
        self._deadlines[task] = instant if outer is None else min(instant, outer)
        try:
            yield
        finally:
            if outer is None:
                self._deadlines.pop(task, None)
            else:
                self._deadlines[task] = outer

    def _written(self, query: Any, vars: Any) -> tuple[bytes, Any]:
        """Return a statement as it is sent, and its pace; ProgrammingError if it is refused."""
        self._admit()
        if not isinstance(query, str):
            sql = self._mogrified(query, vars)
            text = sql.decode(ext.encodings[self._mogrifier.connection.encoding], "replace")
            self._refuse(refusal(text))
            return sql, self._texts.pace(text)
        known = self._texts[query]
        if known.refusal is not None:
            self._refuse(known.refusal)
        if vars is None:
            if known.sql is None:
                known.sql = self._mogrified(query, None)
            return known.sql, known.pace
        sql = self._mogrified(query, vars)
        if known.is_open:
            encoding = ext.encodings[self._mogrifier.connection.encoding]
            self._refuse(refusal(sql.decode(encoding, "replace")))
        return sql, known.pace

    def _mogrified(self, query: Any, vars: Any) -> bytes:
        while self._mogrifier is None:
            self._run(Group([], self._texts.pace(""), self._event(), monotonic()))  # a Sync alone
        sql: bytes = c_cursor.mogrify(self._mogrifier, query, vars)
        return sql

    def _refuse(self, why: str | None) -> None:
        if why is not None:
            remedy = "execute it on a connection of a ConnectionPool"
            raise ProgrammingError(f"multiplexer {self.name!r}: {why}; {remedy}")

    def _admit(self) -> None:
        """Raise unless this task may ask now."""
        if self._backend is None:
            self.backend  # noqa: B018  finds it
        if self._has_hub and self._thread != (me := _thread.get_ident()):
            if self._thread:
                raise ProgrammingError(OTHER_THREAD)
            self._thread = me
        if not self._can_wait():
            raise ProgrammingError(IN_HUB)
        if self.lock._is_owned() or (self._tasks and self._current() in self._tasks):
            raise ProgrammingError(REENTERED)
        if self._closed:
            raise PoolClosed(f"multiplexer {self.name!r} is closed")

    def _run(self, group: Group) -> None:
        """Queue a group and wait for its end; raises its error."""
        deadline = self._deadlines.get(self._current()) if self._deadlines else None
        self._counts["num"] += 1
        try:
            self._queue[group] = None
            if not self._scheduled:
                self._scheduled = self._has_hub
                self._soon(self.push)
            if deadline is None:
                group.event.wait()
            elif not group.event.wait(max(deadline - monotonic(), 0)):
                raise DeadlineExceeded("the deadline of the task has passed")
        except BaseException:
            self._abandon(group)
            raise
        if group.error is not None:
            raise group.error

    def _abandon(self, group: Group) -> None:
        with self.lock:
            group.abandoned = True
            self._queue.pop(group, None)
            if group.ended:
                group.free()
            elif group.line is not None:
                group.line.forget(group)

    # Sending

    def push(self) -> None:
        """Give what waits in the queue to lines; never waits."""
        self._scheduled = False
        while self._queue and self.lock.acquire(False):
            try:
                waits = not self._distribute()
            finally:
                self.lock.release()
            if waits:
                self._look_after()
                return

    def _distribute(self) -> bool:
        """Return False if some groups are left, since no line has room."""
        now, queue, used = monotonic(), self._queue, set[Line]()
        while queue and (line := self._choose(now)) is not None:
            line.send(queue, PACKED if line.load < PACKED else line.load, now)
            used.add(line)
        for line in used:
            line.flush()
        while 0 < self._max_waiting < len(queue):
            text = f"multiplexer {self.name!r}: {self._max_waiting} statements wait already"
            self._fail(queue.popitem()[0], TooManyRequests(text))
        return not queue

    def _choose(self, now: float) -> Line | None:
        """Return the first line with little to do, else the one with least, if one has room."""
        best: Line | None = None
        for line in self._lines:
            if line.has_room(now):
                if line.load < PACKED:
                    return line
                if best is None or line.load < best.load:
                    best = line
        self._grow(now)
        return best

    def _fail(self, group: Group, error: Exception) -> None:
        self._counts["errors"] += 1
        group.end(error)

    # Lines

    def _grow(self, now: float) -> None:
        """Open one more line, unless another one is being opened and has not taken long yet."""
        if len(self._lines) + self._opening >= self._max_size or self._closed:
            return
        if self._opening and now - self._opened_at < self.slow:
            return
        self._opening += 1
        self._opened_at = now
        try:
            self.backend.spawn(Job(self._serve, self._opened))
        except BaseException:
            self._opening -= 1
            raise

    def _opened(self) -> None:
        """Note that a line's task has a connection, or never will."""
        self._opening -= 1

    def _serve(self, begin: Callable[[], bool]) -> None:
        """Borrow a connection and serve it until it has nothing to do, or is lost."""
        if not begin():
            return
        pool, me = self._pool, self._current()
        try:
            conn = pool.getconn()
        except Exception as error:
            self._last_error = error.__cause__ or error
            return
        finally:
            self._opened()
        line: Line | None = None
        healthy = False
        self._tasks.add(me)
        try:
            line = Line(self, conn)
            self._lines.append(line)
            self._mogrifier = line.origin.cursor
            self._look_after()
            line.serve()
            healthy = True
        except Exception as error:
            self._last_error = error
            log.info("multiplexer %r: a connection was lost: %s", self.name, one_line(error))
        finally:
            self._tasks.discard(me)
            if line is not None:
                self._drop(line)
            pool.putconn(conn, close=not healthy)
            self.push()

    def _drop(self, line: Line) -> None:
        if line in self._lines:
            self._lines.remove(line)
        if self._mogrifier is line.origin.cursor:
            self._mogrifier = self._lines[0].origin.cursor if self._lines else None

    # Time

    def _look_after(self) -> None:
        """Have a task end waits and idle lines in time, while there are any."""
        if self._alarm is None:
            self._alarm = self.backend.event()
            try:
                self.backend.spawn(Job(self._keep, self._kept))
            except BaseException:
                self._alarm = None
                raise
        elif self._queue and not self._looks_often:
            self._alarm.set()

    def _keep(self, begin: Callable[[], bool]) -> None:
        if not begin():
            return
        try:
            while self._queue or self._lines:
                alarm = self._alarm = self.backend.event()
                self._looks_often = bool(self._queue)
                self._expire()
                for line in list(self._lines):
                    line.stop_if_idle(monotonic(), LINGER)
                self.push()
                alarm.wait(min(LOOK, self._timeout) if self._queue else LINGER)
        finally:
            self._kept()

    def _kept(self) -> None:
        self._alarm = None
        if self._queue:  # an OS thread has added to it meanwhile, or the task was killed
            self._look_after()

    def _expire(self) -> None:
        limit = monotonic() - self._timeout
        with self.lock:
            late = list(itertools.takewhile(lambda group: group.asked <= limit, self._queue))
            for group in late:
                del self._queue[group]
        for group in late:
            self._fail(group, self._timed_out())

    def _timed_out(self) -> PoolTimeout:
        counts = f"{len(self._lines)} connections, {len(self._queue)} waiting"
        fact = f"multiplexer {self.name!r}: not sent in {self._timeout:.1f} s ({counts})"
        remedy = "raise max_size"
        if self._last_error is not None and not self._lines:
            remedy = f"no connection: {one_line(self._last_error)}"
        error = PoolTimeout(f"{fact}; {remedy}")
        error.__cause__ = self._last_error
        return error

    # The multiplexer as a whole

    def close(self, timeout: float = 5.0) -> None:
        """Refuse new statements; after `timeout` seconds cancel those that run, and disconnect."""
        self._closed = True
        with self.lock:
            waiting = list(self._queue)
            self._queue.clear()
        for group in waiting:
            self._fail(group, PoolClosed(f"multiplexer {self.name!r} was closed"))
        if self._alarm is not None:
            self._alarm.set()
        for line in list(self._lines):
            line.stop()
        self._pool.close(timeout)

    def __enter__(self) -> Any:
        """Open the multiplexer, to be closed at the end of the block."""
        self._pool.open()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the multiplexer."""
        self.close()

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self._closed

    def get_stats(self) -> dict[str, int]:
        """Return the pool's statistics, with those of statements as its requests."""
        stats = self._pool.get_stats()
        own = {f"requests_{key}": value for key, value in self._counts.items() if value}
        others = {key: value for key, value in stats.items() if not key.startswith("requests_")}
        return {**others, **own, "requests_waiting": len(self._queue)}

    def __repr__(self) -> str:
        counts = f"{len(self._lines)} connections, {len(self._queue)} waiting"
        return f"<{type(self).__name__} {self.name!r}: {counts}, at most {self._max_size}>"

    def _forked(self) -> None:
        waiting, lines = list(self._queue), list(self._lines)
        self._begin()
        for group in waiting:
            self._fail(group, OperationalError("the statement is the parent process's"))
        for line in lines:
            line.open = False


def _after_fork() -> None:
    for multiplexer in list(_all):
        multiplexer._forked()


in_child(Order.POOLS, _after_fork)
