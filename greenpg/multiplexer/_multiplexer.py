"""The public class: admits tasks, and makes results of what their statements return."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Final

from psycopg2 import Error, OperationalError, ProgrammingError
from psycopg2 import extensions as ext
from psycopg2.extensions import make_dsn, parse_dsn

from greenpg._checks import (
    check_conninfo_source,
    check_count,
    check_functions,
    check_seconds,
)
from greenpg._connecting.default_backend import default_backend
from greenpg._fork_hooks import Order, in_child
from greenpg._instances import Instances
from greenpg._protocol.libpq import PGRES_TUPLES_OK, libpq
from greenpg._protocol.pipelining import PIPELINES
from greenpg._protocol.results import Rows
from greenpg._session.lock import IN_HUB
from greenpg._session.time_slice import TimeSlice
from greenpg.backend import Backend, as_backend
from greenpg.errors import PipelineAborted, PoolClosed
from greenpg.pipeline import PipelineResult
from greenpg.pool import ConnectionPool
from greenpg.threads import pristine

from ._dispatcher import Dispatcher, Limits
from ._group import Group
from ._measures import LineReport, MultiplexerMeasures, lines, measures
from ._writer import Writer

if TYPE_CHECKING:
    from typing_extensions import Self

    from greenpg._session.failures import Failure

REENTERED: Final = "the multiplexer is inside another operation (called by a finalizer or a signal)"
OTHER_THREAD: Final = "the multiplexer belongs to another OS thread, which was the first to use it"
ONE_DRIVER: Final = "a multiplexer uses psycopg2; lend psycopg 3's connections by a ConnectionPool"
CONFORMING: Final = "standard_conforming_strings=on"
UNUSED, CLOSED = -1, -2  # no thread's ident
_thread = pristine("_thread")
_numbers = itertools.count(1)
_all: Final[Instances[Multiplexer]] = Instances()


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
        prepare_threshold: int | None = 5,
        prepared_max: int = 100,
        max_waiting: int = 0,
        timeout: float = 30.0,
        configure: Callable[[Any], object] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        """Make a multiplexer; it connects when it is first used.

        A statement that has run for `slow` seconds gets no other one behind it while connections
        are left. After `timeout` seconds a statement that could not be sent raises PoolTimeout;
        if `max_waiting` statements wait already, it raises TooManyRequests. A text that was used
        more than `prepare_threshold` times is prepared, unless that is None, and a connection
        keeps at most `prepared_max` of these.
        """
        libpq.need(*PIPELINES)
        if options.get("driver", "psycopg2") != "psycopg2":
            raise ValueError(f"driver={options['driver']!r}: {ONE_DRIVER}")
        limits = Limits(max_size, slow, max_in_flight, prepared_max, max_waiting, timeout)
        check_count("prepare_threshold", prepare_threshold, none=True)
        check_conninfo_source("conninfo", conninfo)
        check_functions(configure=configure)
        chosen = self.default_backend if backend is None else as_backend(backend)
        self._find_backend: Callable[[], Backend] = (
            default_backend if chosen is None else lambda: chosen
        )
        self._conninfo, self._user_configure = conninfo, configure
        self._session_settings = ""
        self._encoding: str | None = None
        self.name = name or f"multiplexer-{next(_numbers)}"
        self._pool = ConnectionPool(
            self._settings, backend=chosen, min_size=min_size, max_size=max_size, name=self.name,
            configure=self._configure, timeout=timeout, **options,
        )  # fmt: skip
        self._dispatcher = Dispatcher(self.name, limits, self._pool)
        self._run = self._dispatcher.run
        self._writer = Writer(self.name, slow, prepare_threshold, self._cursor)
        self._backend: Backend | None = None
        self._ident: Callable[[], int] = int  # any thread; with a hub, `get_ident`
        self._thread = UNUSED
        _all.add(self)

    def _configure(self, conn: Any) -> None:
        """Make the sessions alike: a statement is written for one, and may go to another."""
        if self._user_configure is not None:
            self._user_configure(conn)
        conn.autocommit = True
        if conn.info.parameter_status("standard_conforming_strings") != "on":
            with conn.cursor() as cur:
                cur.execute("set standard_conforming_strings = on")
        backslash = ext.QuotedString("\\")
        backslash.prepare(conn)
        if backslash.getquoted() != b"'\\'":  # psycopg2 looks at the setting as it connects
            self._session_settings = f" -c {CONFORMING}"
            raise OperationalError(
                f"connect with options='-c {CONFORMING}'; done next, if possible"
            )
        if self._encoding is None:
            self._encoding = conn.encoding
        elif conn.encoding != self._encoding:
            conn.set_client_encoding(self._encoding)

    def _settings(self) -> str:
        """Return the connection string, with the session settings that have proved necessary."""
        given = self._conninfo() if callable(self._conninfo) else self._conninfo
        if not self._session_settings:
            return given
        options = parse_dsn(given).get("options") or os.environ.get("PGOPTIONS", "")
        return make_dsn(given, options=f"{options}{self._session_settings}")

    @property
    def backend(self) -> Backend:
        """The backend, which is looked up at first use."""
        if self._backend is None:
            backend = self._find_backend()
            self._dispatcher.use(backend)
            self._current, self._can_wait = backend.current, backend.can_wait
            self._backend = backend
        return self._backend

    # What tasks call

    def execute(self, query: Any, vars: Any = None) -> PipelineResult:
        """Execute one statement and return its result; errors are those of a cursor.

        An interrupt ends the wait at once; the statement may still run, unless nobody waits for
        anything else on its connection: then it is cancelled.
        """
        self._admit()
        group = self._writer.one(query, vars)
        self._dispatcher.asked += 1
        self._run(group)
        answers = group.answers
        if len(answers) == 1 and answers[0][1] == PGRES_TUPLES_OK:
            origin = group.line.origin
            return PipelineResult(origin, Rows(answers.pop()[0], origin.cursor, group.prepared))
        return self._unless_stale(group, query, vars)

    def _unless_stale(self, group: Group, query: Any, vars: Any) -> PipelineResult:
        """Return the result, of another attempt if the prepared form does not work.

        Then the transaction has failed before the statement ran, so the caller sees nothing of
        it. The second attempt prepares it again, the third one does without.
        """
        for prepared in (True, False):
            if not group.must_be_repeated():
                break
            group.free()
            group = self._writer.one(query, vars, prepared)
            self._run(group)
        return self._results(group)[0]

    def executemany(self, query: Any, rows: Iterable[Any]) -> list[PipelineResult]:
        """Execute a statement for all rows, as one transaction; return a result for each row.

        If one fails, its error is raised and none has any effect.
        """
        self._admit()
        statements, pace, time_slice = list[bytes](), None, TimeSlice(self.backend)
        for row in rows:
            sql, pace = self._writer.statement(query, row)
            statements.append(sql)
            time_slice.pause_if_over()
        if pace is None:
            return []
        pace = self._writer.texts.pace(f"executemany {query}")
        group = Group(statements, pace)
        self._dispatcher.asked += 1
        self._run(group)
        return self._results(group)

    def _results(self, group: Group) -> list[PipelineResult]:
        results, answers = list[PipelineResult](), group.answers
        failure: Error | None = None
        time_slice = TimeSlice(self.backend)
        answers.reverse()
        try:
            while answers:
                result = PipelineResult(group.line.origin)
                result.adopt(*answers[-1])
                answer = answers.pop()[0]
                if result._rows is None:
                    libpq.PQclear(answer)
                if failure is None and not isinstance(result.error, PipelineAborted):
                    failure = result.error
                results.append(result)
                time_slice.pause_if_over()
        finally:
            group.free()
        if failure is not None:
            raise failure
        return results

    @contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """Bound the running task's statements: DeadlineExceeded after that many seconds."""
        check_seconds("seconds", seconds)
        task, instant = self.backend.current(), monotonic() + seconds
        deadlines = self._dispatcher.deadlines
        outer = deadlines.get(task)
        deadlines[task] = instant if outer is None else min(instant, outer)
        try:
            yield
        finally:
            if outer is None:
                deadlines.pop(task, None)
            else:
                deadlines[task] = outer

    def _admit(self) -> None:
        """Raise unless this task may ask now."""
        if self._ident() != self._thread:
            self._begin()
        dispatcher = self._dispatcher
        if not self._can_wait():
            raise ProgrammingError(IN_HUB)
        if dispatcher.lock._is_owned() or (
            dispatcher.tasks and self._current() in dispatcher.tasks
        ):
            raise ProgrammingError(REENTERED)

    def _begin(self) -> None:
        """Begin in this OS thread, unless the multiplexer is closed or another thread's."""
        if self._dispatcher.closed:
            raise PoolClosed(f"multiplexer {self.name!r} is closed")
        if self._thread != UNUSED:
            raise ProgrammingError(OTHER_THREAD)
        if "hub" in self.backend.capabilities:
            self._ident = _thread.get_ident
        self._thread = self._ident()

    def _cursor(self) -> Any:
        """Return a cursor of an open line; waits until there is one."""
        while (cur := self._dispatcher.cursor) is None or cur.connection.closed:
            self._run(Group((), self._writer.texts.pace("")))  # a Sync alone
        return cur

    # The multiplexer as a whole

    def close(self, timeout: float = 5.0) -> None:
        """Refuse new statements; after `timeout` seconds cancel those that run, and disconnect."""
        check_seconds("timeout", timeout)
        self._thread = CLOSED
        self._dispatcher.close()
        self._pool.close(timeout)

    def __enter__(self) -> Self:
        """Open the multiplexer, to be closed at the end of the block."""
        self._pool.open()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the multiplexer."""
        self.close()

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self._dispatcher.closed

    def get_stats(self) -> dict[str, int]:
        """Return the pool's statistics, with those of statements as its requests."""
        stats, dispatcher = self._pool.get_stats(), self._dispatcher
        others = {key: value for key, value in stats.items() if not key.startswith("requests_")}
        counts = {"num": dispatcher.asked, "errors": dispatcher.failed}
        own = {f"requests_{key}": value for key, value in counts.items() if value}
        return {**others, **own, "requests_waiting": len(dispatcher.queue)}

    def measures(self) -> MultiplexerMeasures:
        """Return numbers for monitoring: current ones, and counters since the start."""
        return measures(self._dispatcher, monotonic())

    @property
    def max_size(self) -> int:
        """The number of connections that it may have."""
        return self._dispatcher.limits.max_size

    def lines(self) -> list[LineReport]:
        """Return what each connection does, the longest-running statement first."""
        return lines(self._dispatcher, monotonic())

    def slowest(self, most: int = 10) -> list[tuple[str, float]]:
        """Return texts without literals that ran for at least `slow` seconds the last time.

        With each come these seconds; the longest is first.
        """
        return self._writer.texts.slowest(self._dispatcher.slow, most)

    def failures(self) -> list[Failure]:
        """Return the last failure of each kind, the latest first; see `Failure`."""
        found = [*self._dispatcher.failures.last(), *self._pool.failures()]
        return sorted(found, key=lambda one: -one.at)

    def __repr__(self) -> str:
        limit = self._dispatcher.limits.max_size
        return f"<{type(self).__name__} {self.name!r}: {self._dispatcher}, at most {limit}>"

    def _forked(self) -> None:
        self._thread = UNUSED
        if self._backend is not None:
            self._dispatcher.forked()


def all_multiplexers() -> list[Multiplexer]:
    """Return the multiplexers of this process that are not closed, by their names."""
    return sorted((one for one in _all.all() if not one.closed), key=lambda one: one.name)


def _after_fork() -> None:
    for multiplexer in _all.all():
        multiplexer._forked()


in_child(Order.POOLS, _after_fork)
