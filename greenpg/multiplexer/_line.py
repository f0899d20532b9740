"""One connection of the multiplexer, and the groups under way on it."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

from psycopg2 import OperationalError, ProgrammingError
from psycopg2 import extensions as ext

from greenpg._green_classes import green_class
from greenpg._protocol.groups import Groups
from greenpg._protocol.libpq import PGRES_FATAL_ERROR
from greenpg._protocol.results import error_of
from greenpg._psycopg2.operation import collect_notices, pgconn_of
from greenpg._psycopg2.psycopg2_c import c_cursor, transaction_status
from greenpg._session.backoff import one_line
from greenpg._session.input_wait import InputWait, wait_while_held
from greenpg._session.job import Job
from greenpg.backend import READ, WRITE
from greenpg.threads import is_connected

from ._group import first
from ._scan import TAGS

if TYPE_CHECKING:
    from greenpg._protocol.prepared import Statements
    from greenpg._session.time_slice import TimeSlice
    from greenpg.backend import Backend

    from ._group import Group

SERVES: Final = 60.0  # seconds after which the pool may look at the connection
COUNTS: Final = 10_000  # answers after which psycopg2 has to collect notices
IDLE: Final = ext.TRANSACTION_STATUS_IDLE
FRESH: Final = 0.01  # seconds after an answer, while the connection is taken for unbroken
AGAIN: Final = 0.25  # seconds until a cancel request is repeated: it may have overtaken its query


class Owner(Protocol):
    """The multiplexer, as its lines see it."""

    lock: Any
    slow: float
    max_in_flight: int
    closed: bool
    failed: int  # groups without an answer
    answered: int  # the others
    answer_time: float  # from the calls to the answers, together
    slow_answers: int  # of groups that ran for `slow` seconds

    @property
    def backend(self) -> Backend:
        """The backend."""

    unpark: Callable[[Sequence[Any]], object]

    def push(self) -> None:
        """Give what waits in the queue to lines."""


class Origin:
    """What results come from: the connection's typecasters and encoding."""

    def __init__(self, cursor: Any) -> None:
        self.cursor = cursor

    def await_result(self, result: Any) -> None:
        """Return: a result is made once its answer is there."""

    def pause(self, time_slice: TimeSlice) -> None:
        """Let other tasks run if the time slice of a fetch is over."""
        time_slice.pause_if_over()

    def note_error(self, error: BaseException) -> None:
        """Do nothing: a fetch is no operation of the connection."""


class Line:
    """A borrowed connection in pipeline mode; `serve` runs in the line's own task."""

    def __init__(self, owner: Owner, conn: Any, statements: Statements) -> None:
        self.conn = conn
        self.statements = statements
        self.origin = Origin(green_class(c_cursor)(conn))
        self.pid: int = conn.info.backend_pid
        self.load = 0.0
        self.open = False
        self._owner = owner
        self._state = conn._greenpg_state
        pgconn, self._fd = pgconn_of(conn)
        self._groups = Groups(pgconn)
        self._sent = self._groups.sent
        self._input = InputWait(conn, wait_while_held)
        self._flushed = self._watched = True  # nothing is left to send; as the wait began
        self._wanted = 0  # groups whose tasks wait
        self._cancelling = False
        self._done: Any = None  # the event that a cancelling task waits for
        self._failure: Exception | None = None
        self._alone: Group | None = None  # was sent when nothing else was under way
        self._round_trip = 0.0  # the shortest seen, 0 before the first
        self._answered = monotonic()
        self._until = self._answered + SERVES
        self._count = 0

    @property
    def in_flight(self) -> int:
        """The number of groups that are under way."""
        return len(self._sent)

    def oldest(self) -> Group | None:
        """Return the group that the server is at, if one is under way."""
        found: Group | None = None
        with suppress(IndexError):  # perhaps an OS thread has just received its answer
            found = self._sent[0]
        return found

    # What `push` does, with the owner's lock

    def has_room(self, now: float) -> bool:
        """Return True if the line takes one more group."""
        sent, slow = self._sent, self._owner.slow
        groups = self._groups
        if not self.open or self._cancelling or self.load >= slow or groups.rest:
            return False
        if groups.is_full():
            return False
        if not sent:
            return True
        return len(sent) < self._owner.max_in_flight and now - self.began(sent[0]) < slow

    def began(self, group: Group) -> float:
        """Return when the server has begun with the oldest group, as far as can be known."""
        return max(self._answered, group.sent + self._round_trip)

    def send(self, queue: MutableMapping[Group, None], packed: float, now: float) -> None:
        """Take groups from the queue while the load is below `packed`, at least one."""
        groups, sent, load = self._groups, self._sent, self.load
        find, room = self.statements.find, self._owner.max_in_flight - len(sent)
        if not sent:
            load = 0.0
            if now - self._answered > FRESH and not is_connected(self._fd):
                # a statement sent now would perhaps have run
                self.fail(OperationalError("the server has closed the connection"))
                return
        alone, before = not sent, room
        group: Any = None
        try:
            while queue and room and groups.rest is None and not groups.is_full():
                group = first(queue)
                if group.deadline <= now:
                    del queue[group]  # its task is about to raise
                    continue
                if alone:
                    self._alone, alone = group, False
                room -= 1
                group.line, group.sent = self, now
                group.expected = expected = group.pace.seconds
                load += expected
                form = group.form
                if form is None:
                    groups.send(group)
                else:
                    prepared = find(form)
                    if prepared is None:
                        prepared, commands = self.statements.prepare(form)
                        groups.prepare(group, commands)
                    prepared.used, group.prepared = now, prepared
                    groups.send_prepared(group, prepared.name)
                del queue[group]
                if load >= packed:
                    break
        except OperationalError as error:  # no Sync was queued: nothing of it can have run
            sent.remove(group)
            group.line = None
            self.fail(error)
        except BaseException as error:  # libpq may have queued a part of it
            if group in sent:
                queue.pop(group, None)
            self.fail(OperationalError(f"sending was interrupted: {type(error).__name__}"))
            raise
        finally:
            self.load = load
            self._wanted += before - room

    def flush(self) -> None:
        """Send what is queued; what the socket does not take is left to the line's task."""
        flushed = self._groups.flush()
        if not flushed and self._flushed:
            self._flushed = False
            self._input.wake()
        self._flushed = flushed

    def fail(self, error: Exception) -> None:
        """Make the line's task end the line."""
        self.open = False
        self._failure = self._failure or error
        self._input.wake()

    def stop(self) -> None:
        """Take no more groups, and end once none is under way."""
        self.open = False
        self._input.wake()

    def stop_if_idle(self, now: float, seconds: float) -> None:
        """Stop if nothing has been under way for so long."""
        if not (self._sent or self._cancelling) and now - self._answered >= seconds:
            self.stop()

    def forget(self, group: Group) -> None:
        """Drop a group's answer; cancel what runs if nobody waits for anything here."""
        self._wanted -= 1
        if not self._wanted and self._sent and not self._cancelling and self._failure is None:
            backend = self._owner.backend
            self._done = backend.event()
            self._cancelling = True
            try:
                backend.spawn(Job(self._cancel, self._cancelled))
            except BaseException:
                self._cancelling = False
                raise

    def _cancel(self, begin: Callable[[], bool]) -> None:
        if not begin():
            return
        end = monotonic() + self._state.cancel_timeout
        try:
            while self._sent and not self.conn.closed:
                if monotonic() >= end:
                    self.fail(OperationalError("a cancelled statement did not end"))
                    return
                self.conn.cancel()
                self._done.wait(AGAIN)
        except Exception as error:
            self.fail(error)
        finally:
            self._cancelled()

    def _cancelled(self) -> None:
        self._cancelling = False
        self._input.wake()
        self._owner.push()

    # What the line's task does

    def serve(self) -> None:
        """Serve until nothing is left to do; raises what has broken the connection."""
        state, groups = self._state, self._groups
        state.enter()
        try:
            state.note_blocked()
            groups.enter()
            self.open = True
            if self._owner.closed:  # after the store, as `close` looks at what is open
                self.open = False
            self._owner.push()
            while self._serve_once():
                pass
            groups.leave()
            collect_notices(self.conn)
        except BaseException as error:
            try:
                self._lose(error)
            except BaseException:
                self._lose(error)
                raise
            raise
        finally:
            self.open = False
            state.in_driver = False
            state.leave(self.conn)

    def _serve_once(self) -> bool:
        """Wait, send and receive once; return False if the line has ended."""
        if self._has_ended() and self._retires():
            return False
        self._watched = self._flushed
        events = READ if self._watched else READ | WRITE
        ready = self._input.wait(None, self._has_work, events)
        if self._failure is not None:
            raise self._failure
        if ready:
            self._receive()
        elif self._has_ended() and self._retires():
            return False
        if not self._flushed:
            with self._owner.lock:
                self._groups.send_on()
                self._flushed = self._groups.flush()
        self._owner.push()
        return True

    def _has_work(self) -> bool:
        return self._failure is not None or self._has_ended() or self._flushed is not self._watched

    def _has_ended(self) -> bool:
        return not (self.open or self._sent or self._cancelling) and self._failure is None

    def _retires(self) -> bool:
        with self._owner.lock:  # else another thread might send meanwhile
            if self._sent or self._cancelling:
                return False
            self.open = False
            return True

    def _receive(self) -> None:
        ended: list[Group] = self._groups.receive()
        if ended:
            with self._owner.lock:
                self._settle(ended, self._measure(ended[0], len(ended)))
            if self._done is not None and not self._sent:
                self._done.set()
        if self._groups.broken is not None:
            raise self._groups.broken

    def _measure(self, first: Group, count: int) -> float:
        """Return the seconds that each of the groups took which have ended by now."""
        now = monotonic()
        if first is self._alone:
            self._alone = None
            trip = now - first.sent
            if not 0 < self._round_trip <= trip:
                self._round_trip = trip
        share = max(now - self.began(first), 0.0) / count
        self._answered = now
        self._count += count
        if self._count >= COUNTS or now >= self._until:
            self.open = False
        return share

    def _settle(self, ended: list[Group], share: float) -> None:
        """End the groups; raises what breaks the connection, with which the rest is lost."""
        offender, error = self._offence(ended[0])
        settled, load, wanted = 0, self.load, self._wanted
        answered, asked = 0, 0.0
        try:
            for group in ended:
                if group is offender:
                    break
                group.pace.seconds = share
                if group.statements:  # a Sync alone is nobody's
                    answered += 1
                    asked += group.asked
                load -= group.expected
                group.ended = True
                if group.abandoned:
                    group.free()
                else:
                    wanted -= 1
                settled += 1
        finally:
            self.load, self._wanted = load, wanted
            self._count_on(answered, asked, share)
            self._owner.unpark(ended[:settled])
        if error is not None:
            self.open = False
            raise error  # the others of `ended` are lost with the connection
        ended.clear()

    def _count_on(self, answered: int, asked: float, share: float) -> None:
        """Count answers; `asked` is the sum of the instants of their calls."""
        owner = self._owner
        owner.answered += answered
        owner.answer_time += answered * self._answered - asked
        if share >= owner.slow:
            owner.slow_answers += answered

    def _offence(self, first: Group) -> tuple[Group | None, OperationalError | None]:
        """Return the group that has changed the session, by the server's own word, and the fact."""
        commands = self._groups.commands
        if commands:
            told = next((told for told in commands if told[1] in TAGS), None)
            commands.clear()
            if told is not None:
                group, tag = told
                fact = f"{tag.decode()} has changed the session, which other statements share"
                group.end(ProgrammingError(f"{fact}; the connection is closed"))
                return group, OperationalError(fact)
        if not self._sent and transaction_status(self.conn) != IDLE:
            return first, OperationalError("a statement has left a transaction open")
        return None, None

    def _lose(self, error: BaseException) -> None:
        """Close the connection; the groups under way have perhaps run. Calls may be repeated."""
        with self._owner.lock:
            self.open = False
            lost = [*self._groups.ended, *self._sent]
            for group in lost:
                if not group.ended:  # neither settled, nor the one whose tag has told
                    self._end_lost(group, error)
        self._owner.unpark(lost)
        self._groups.ended.clear()
        self._sent.clear()
        self._state.shut(self.conn)

    def _end_lost(self, group: Group, error: BaseException) -> None:
        reason = _server_error(group, self.origin.cursor) or error
        failure = OperationalError(
            f"the connection was lost, the statement may have run: {one_line(reason)}"
        )
        failure.__cause__ = reason
        group.end(failure)
        self._owner.failed += not group.abandoned


def _server_error(group: Group, cursor: Any) -> Exception | None:
    """Return the server's error that came in place of the group's end."""
    for result, status in group.answers:
        if status == PGRES_FATAL_ERROR:
            return error_of(result, ext.encodings[cursor.connection.encoding])
    return None
