"""A subscriber's side of the listener: a bounded queue, and changes of its channels."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias

from greenpg._checks import check_seconds
from greenpg._notifications import checked, checked_type
from greenpg._session.lock import IN_HUB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import psycopg
    from psycopg2.extensions import Notify

    from greenpg._session.errors import ErrorClasses
    from greenpg.backend import Backend, Event

SUBSCRIBE_TIMEOUT: Final = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Missed:
    """Marks the place where notifications are missing.

    `count` is the number of items dropped from a full queue, None if it is unknown because the
    connection was lost.
    """

    count: int | None


Item: TypeAlias = "Notify | psycopg.Notify | Missed"


class Inbox:
    """A queue with one writer and many readers; if full it drops and counts the oldest item.

    Only the writer changes the totals of dropped items, so OS threads need no lock
    (tests/unit/notify/test_inbox.py).
    """

    def __init__(self, backend: Backend, limit: int, errors: ErrorClasses) -> None:
        self._backend = backend
        self.errors = errors
        self._limit = max(limit, 1)
        self._items: deque[Item] = deque()
        self._sleepers: deque[Event] = deque()
        self._total = self._reported = 0  # items dropped
        self._losses = self._reported_losses = 0  # markers among them
        self.channels: set[str] = set()
        self.confirmed = False  # the server listens to its channels
        self.over: Exception | None = None

    def put(self, item: Item) -> None:
        """Append an item; if the queue is full, drop the oldest one."""
        if len(self._items) >= self._limit:
            self._drop_oldest()
        self._items.append(item)
        if self._sleepers:
            self._wake()

    def _drop_oldest(self) -> None:
        with suppress(IndexError):  # another OS thread has taken it
            if isinstance(self._items[0], Missed):
                self._losses += 1
            self._total += 1
            self._items.popleft()

    def finish(self, reason: Exception) -> None:
        """End all waits with `reason`; queued items can still be taken."""
        if self.over is None:
            self.over = reason
        self._wake()

    def reason(self) -> Exception:
        """Return a new exception like `over`: several tasks may raise it."""
        return again(self.over or self.errors.interface())

    def _wake(self) -> None:
        while self._sleepers:
            with suppress(IndexError):  # another OS thread was faster
                self._sleepers.popleft().set()

    def take(self) -> Item | None:
        """Return the next item, None if the queue is empty."""
        if self._total != self._reported:
            return self._marker()
        try:
            return self._items.popleft() if self._items else None
        except IndexError:  # another OS thread was faster
            return None

    def _marker(self) -> Missed:
        total, losses = self._total, self._losses
        count = total - self._reported if losses == self._reported_losses else None
        self._reported, self._reported_losses = total, losses
        return Missed(count)

    def get(self, timeout: float | None = None) -> Item | None:
        """Return the next item; None after `timeout` seconds, or at once after `finish`."""
        end = None if timeout is None else monotonic() + timeout
        while (item := self.take()) is None and self.over is None:
            left = None if end is None else end - monotonic()
            if left is not None and left <= 0:
                break
            self._wait(left)
        return item

    def _wait(self, timeout: float | None) -> None:
        if not self._backend.can_wait():
            raise self.errors.programming(IN_HUB)
        event = self._backend.event()
        self._sleepers.append(event)
        try:
            if not self._items and self.over is None:  # an item may precede the event
                event.wait(timeout)
        finally:
            with suppress(ValueError):  # `_wake` has taken it
                self._sleepers.remove(event)


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """A change of an inbox's channels; `drop` None means all. `done` is set once it is in force."""

    inbox: Inbox
    add: Iterable[str] = ()
    drop: Iterable[str] | None = ()
    done: Event | None = None

    def settle(self) -> None:
        """Wake the task that waits for the change, if there is one."""
        if self.done is not None:
            self.done.set()


def again(reason: Exception) -> Exception:
    """Return a new exception of the same class and text."""
    return type(reason)(*reason.args)


class Subscription:
    """One subscriber's notifications in order, made by `Listener.subscribe`.

    Iterate, or call `get`; a `Missed` replaces missing items. Garbage collection closes it.
    """

    def __init__(
        self,
        inbox: Inbox,
        add: Callable[[Inbox, list[str], float], None],
        change: Callable[[Change], None],
    ) -> None:
        self._inbox = inbox
        self._add = add
        self._change = change

    def __iter__(self) -> Subscription:
        """Return itself: each item is delivered once."""
        return self

    def __next__(self) -> Item:
        """Wait for the next item; the iteration ends when the subscription is closed."""
        inbox = self._inbox
        del self  # else the traceback of a kill would keep the subscription open
        item = inbox.get()
        if item is None:
            closed = isinstance(inbox.over, inbox.errors.interface)
            raise StopIteration if closed else inbox.reason()
        return item

    def get(self, timeout: float | None = None) -> Item | None:
        """Wait for the next item; None after `timeout` seconds.

        Raises InterfaceError once closed, OperationalError if the listener's task has ended.
        """
        check_seconds("timeout", timeout, none=True)
        item = self._inbox.get(timeout)
        if item is None and self._inbox.over is not None:
            raise self._inbox.reason()
        return item

    def add(self, *channels: str, timeout: float = SUBSCRIBE_TIMEOUT) -> None:
        """Subscribe to more channels; on return the server listens to them.

        OperationalError after `timeout` seconds, with the last connection error as its cause.
        Any error leaves the subscription with the channels that it had before.
        """
        check_seconds("timeout", timeout)
        if self._inbox.over is not None:
            raise self._inbox.reason()
        names = checked(channels, self._inbox.errors.programming)
        before = self.channels
        try:
            self._add(self._inbox, names, timeout)
        except BaseException:
            self.drop(*(name for name in names if name not in before))
            raise

    def drop(self, *channels: str) -> None:
        """Unsubscribe from channels; items that have arrived stay in the queue."""
        self._change(Change(self._inbox, drop=checked_type(channels)))

    def close(self) -> None:
        """Unsubscribe from all channels; may be called again, and from any task."""
        if self._inbox.over is None:
            self._inbox.finish(self._inbox.errors.interface("the subscription is closed"))
            self._change(Change(self._inbox, drop=None))

    @property
    def channels(self) -> frozenset[str]:
        """The subscribed channels."""
        return frozenset(self._inbox.channels)

    def __enter__(self) -> Subscription:
        """Return the subscription, to be closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    __del__ = close
