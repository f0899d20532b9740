"""Many tasks' notifications over one connection, which is made again when lost."""

from __future__ import annotations

import itertools
import logging
import os
from collections import deque
from contextlib import closing, suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal

from greenpg._checks import check_count, check_seconds, check_texts
from greenpg._drivers import PSYCOPG2, driver_named
from greenpg._fork_hooks import Order, in_child
from greenpg._instances import Instances
from greenpg._session.backoff import backoff, one_line
from greenpg._session.failures import Failures
from greenpg._session.job import Job
from greenpg._session.lock import IN_HUB, Once
from greenpg._session.time_slice import TimeSlice
from greenpg.backend import as_backend, current, is_stranded

from ._connection import LOOK, ListenerConnection
from ._subscription import SUBSCRIBE_TIMEOUT, Change, Inbox, Missed, Subscription, again

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenpg._session.failures import Failure
    from greenpg.backend import Backend, Task

    from ._connection import Driver

log = logging.getLogger("greenpg")

CONNECT_TIMEOUT: Final = 10  # seconds, unless the connection string sets it
FIRST_LOOK: Final = 0.05  # seconds
_numbers = itertools.count(1)


class Listener:
    """Many tasks' subscriptions to many channels over one connection of its own.

    A task of the backend serves them from the first subscription until `close()`. It connects
    again when the connection is lost, and puts a `Missed(None)` into each queue. After
    `heartbeat` seconds of silence it queries the server; without an answer within `patience`
    seconds the connection counts as lost. A full queue (`max_queue` items) drops the oldest item
    and yields `Missed(count)`. A forked child must subscribe again. `driver` is "psycopg2" or
    "psycopg" (psycopg 3); notifications and errors are the driver's.
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        driver: str = PSYCOPG2,
        backend: str | Backend | None = None,
        heartbeat: float = 30.0,
        patience: float = 5.0,
        max_queue: int = 10_000,
        name: str | None = None,
        **options: Any,
    ) -> None:
        check_seconds("heartbeat", heartbeat, above=0)
        check_seconds("patience", patience, above=0)
        check_count("max_queue", max_queue, 1)
        check_texts(name=name)
        self._driver: Driver = driver_named(driver, __package__)
        self._errors = self._driver.errors
        self._dsn = _bounded(self._driver, self._driver.make_conninfo(dsn or "", **options))
        self.name = name or f"listener-{next(_numbers)}"
        self._given = None if backend is None else as_backend(backend)
        self._backend: Backend
        self._heartbeat = heartbeat
        self._patience = patience
        self._max_queue = max_queue
        self._closed = False
        self._reason: Exception = self._errors.interface("the listener is closed")
        self._connects = self._failed = self._delivered = 0
        self._last_failures = Failures()
        self._forget()
        _listeners.add(self)

    def _forget(self) -> None:
        """Reset to the initial state: no subscribers and no task."""
        self._token = Once()
        self._task: Task | None = None
        self._connection: ListenerConnection | None = None
        self._changes: deque[Change] = deque()
        self._unconfirmed: list[Change] = []
        self._inboxes: set[Inbox] = set()
        self._subscribers: dict[str, set[Inbox]] = {}
        self._error: Exception | None = None
        self._lost = False
        self._failures = 0

    def subscribe(
        self, *channels: str, max_queue: int | None = None, timeout: float = SUBSCRIBE_TIMEOUT
    ) -> Subscription:
        """Return a subscription to the channels (case-sensitive) once the server listens.

        Raises OperationalError after `timeout` seconds, as `Subscription.add` does.
        """
        check_count("max_queue", max_queue, 1, none=True)
        check_seconds("timeout", timeout)
        self._start()
        limit = self._max_queue if max_queue is None else max_queue
        inbox = Inbox(self._backend, limit, self._errors)
        subscription = Subscription(inbox, self._add, self._change)
        try:
            subscription.add(*channels, timeout=timeout)
        except BaseException:
            subscription.close()
            raise
        return subscription

    def close(self, timeout: float = 5.0) -> None:
        """End all subscriptions, the task and the connection; may be called again.

        Waits up to `timeout` seconds for the end of the task, except in the hub.
        """
        check_seconds("timeout", timeout)
        self._closed = True
        task, self._task = self._task, None
        if task is not None:
            self._stop.set()
            self._wake()
            if self._backend.can_wait():
                self._join(task, timeout)

    def get_stats(self) -> dict[str, int]:
        """Return current numbers, and counters since the start.

        `connected` is 1 or 0, `failures` counts connections that were lost or not made.
        """
        return {
            "connected": int(self._connection is not None),
            "subscriptions": len(self._inboxes),
            "channels": len(self._subscribers),
            "notifications": self._delivered,
            "connects": self._connects,
            "failures": self._failed,
        }

    @property
    def state(self) -> Literal["unused", "connecting", "connected", "closed"]:
        """What it does; unused is one without a subscription so far."""
        if self._closed:
            return "closed"
        if self._connection is not None:
            return "connected"
        return "unused" if self._token.value() is None else "connecting"

    def subscribers(self) -> dict[str, int]:
        """Return the number of subscriptions to each channel."""
        return {name: len(inboxes) for name, inboxes in list(self._subscribers.items())}

    def failures(self) -> list[Failure]:
        """Return the last failure of each kind, the latest first; see `Failure`."""
        return self._last_failures.last()

    def __enter__(self) -> Listener:
        """Return the listener, to be closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What subscribers do

    def _add(self, inbox: Inbox, names: list[str], timeout: float) -> None:
        if not self._backend.can_wait():
            raise self._errors.programming(IN_HUB)
        done = self._backend.event()
        self._change(Change(inbox, add=names, done=done))
        end, pause = monotonic() + timeout, FIRST_LOOK
        while not done.wait(min(pause, end - monotonic())):
            if monotonic() >= end:
                raise self._errors.operational(
                    f"listener: {', '.join(map(repr, names))} not listened to in {timeout:g} s; "
                    "see the cause, or raise timeout"
                ) from self._error
            if not self._closed:
                self._start()  # another thread's subscriber may have failed to
            self._wake()  # an OS thread that is about to sleep misses the first one
            pause = min(2 * pause, LOOK)
        if inbox.over is not None:
            raise again(inbox.over) from self._error

    def _change(self, change: Change) -> None:
        self._changes.append(change)
        if self._closed:
            self._refuse_changes()
        else:
            self._wake()

    def _wake(self) -> None:
        connection = self._connection
        if connection is not None:
            connection.wake()

    def _refuse_changes(self) -> None:
        while self._changes:
            with suppress(IndexError):
                change = self._changes.popleft()
                change.inbox.finish(self._reason)
                change.settle()

    def _start(self) -> None:
        if self._closed:
            raise again(self._reason)
        if self._token.value() is not None and not is_stranded(self._task):
            return
        # before the token: another OS thread that finds the token continues at once
        self._backend = current() if self._given is None else self._given
        self._stop = self._backend.event()
        if is_stranded(self._task):
            self._end(self._errors.operational("the listener's hub was destroyed"))
            raise again(self._reason)
        found, token = self._token, object()
        job = Job(partial(self._run, token), partial(self._killed, token))
        if found.settle(token) is not token:
            return
        try:
            self._task = self._backend.spawn(job)
        except BaseException:
            if job.cancel() and self._token is found:
                self._token = Once()  # the next subscriber tries again
            raise

    def _join(self, task: Task, timeout: float) -> None:
        end = monotonic() + timeout
        if not task.join(min(LOOK, timeout)):
            task.kill()  # it is connecting, or waiting for the server
            task.join(max(end - monotonic(), 0))
        if self._token.value() is not None:  # an OS thread ends once its token is not current
            self._end(self._reason)

    # What the listener's task does

    def _run(self, token: object, begin: Callable[[], bool]) -> None:
        if not begin():
            return
        ended = False
        try:
            while self._serves(token):
                self._serve_once(token)
            ended = True
        finally:
            if not ended:
                self._killed(token)
            elif self._token.value() is token:
                self._end(self._errors.interface("the listener is closed"))

    def _killed(self, token: object) -> None:
        if self._token.value() is token:
            killed = self._errors.operational("the listener's task was killed")
            self._end(self._reason if self._closed else killed)

    def _serves(self, token: object) -> bool:
        """Return True if the task should continue; in a forked child its copy ends."""
        return not self._closed and self._token.value() is token

    def _serve_once(self, token: object) -> None:
        what = "connect"
        try:
            connection = ListenerConnection(self._driver, self._dsn, self._backend, self._patience)
            self._connects += 1
            what = "connection"
            with closing(connection):
                self._serve(connection, token)
        except Exception as err:
            if self._serves(token):
                log.warning("listener: no connection, trying again: %s", one_line(err))
                self._error, self._lost = err, True
                self._failed += 1
                self._last_failures.note(what, err)
        if self._serves(token):
            self._stop.wait(backoff(self._failures))
            self._failures += 1

    def _serve(self, connection: ListenerConnection, token: object) -> None:
        self._connection = connection
        try:
            while self._serves(token):
                self._keep_in_step(connection)
                connection.gather()
                self._deliver(connection)
                connection.sleep(self._heartbeat, lambda: self._changes or self._closed)
        finally:
            if self._connection is connection:
                self._connection = None

    def _keep_in_step(self, connection: ListenerConnection) -> None:
        """Make the server listen to all subscribed channels, then wake the tasks that wait."""
        while self._changes:
            change = self._changes[0]
            self._adopt(change)  # if that fails, it is adopted anew on the next connection
            self._unconfirmed.append(change)
            self._changes.popleft()
        connection.listen_to(set(self._subscribers))
        self._failures = 0
        if self._lost:
            self._lost = False
            for inbox in self._inboxes:
                if inbox.confirmed and inbox.channels:
                    inbox.put(Missed(None))
        while self._unconfirmed:
            change = self._unconfirmed.pop()
            change.inbox.confirmed = True
            change.settle()

    def _adopt(self, change: Change) -> None:
        inbox = change.inbox
        (self._inboxes.add if inbox.over is None else self._inboxes.discard)(inbox)
        for name in tuple(inbox.channels) if change.drop is None else change.drop:
            inboxes = self._subscribers.get(name, set())
            inboxes.discard(inbox)
            inbox.channels.discard(name)
            if not inboxes:
                self._subscribers.pop(name, None)
        if inbox.over is None:
            for name in change.add:
                self._subscribers.setdefault(name, set()).add(inbox)
                inbox.channels.add(name)

    def _deliver(self, connection: ListenerConnection) -> None:
        notes, subscribers = connection.notes, self._subscribers
        time_slice = TimeSlice(self._backend)
        while notes:
            note = notes.popleft()
            self._delivered += 1
            for inbox in subscribers.get(note.channel, ()):
                inbox.put(note)
            time_slice.pause_if_over()

    def _end(self, reason: Exception) -> None:
        """Close the listener: end all waits of subscribers with `reason`."""
        self._reason, self._closed = reason, True
        self._changes.extend(self._unconfirmed)
        self._refuse_changes()
        for inbox in list(self._inboxes):  # an OS thread that serves may add one
            inbox.finish(reason)
        self._forget()


def _bounded(driver: Driver, dsn: str) -> str:
    if "connect_timeout" in driver.conninfo.parse(dsn) or "PGCONNECT_TIMEOUT" in os.environ:
        return dsn
    return driver.make_conninfo(dsn, connect_timeout=CONNECT_TIMEOUT)


_listeners: Final[Instances[Listener]] = Instances()


def all_listeners() -> list[Listener]:
    """Return the listeners of this process that are not closed, by their names."""
    found = (one for one in _listeners.all() if one.state != "closed")
    return sorted(found, key=lambda one: one.name)


def _after_fork() -> None:
    for listener in _listeners.all():  # whose connection and task are the parent's
        for inbox in listener._inboxes:
            inbox.finish(
                inbox.errors.operational("the listener's connection is the parent process's")
            )
        listener._forget()


in_child(Order.LISTENERS, _after_fork)
