"""A subscriber's side of the listener: a bounded queue, and what fills it."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias

from psycopg2 import InterfaceError, ProgrammingError

from greenpg._notifications import checked
from greenpg._session.lock import IN_HUB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from psycopg2.extensions import Notify

    from greenpg.backend import Backend, Event

SUBSCRIBE_TIMEOUT: Final = 30.0


@dataclass(frozen=True, slots=True)
class Missed:
    """Stands among the notifications where some are missing.

    `count` is how many were dropped since the queue was full; None where the connection was
    lost and nobody knows.
    """

    count: int | None


Item: TypeAlias = "Notify | Missed"


class Inbox:
    """One task puts, any number take; a full one drops its oldest item, and counts.

    What is dropped is known from totals that the putting task alone changes, so that OS
    threads need no lock.
    """

    def __init__(self, backend: Backend, limit: int) -> None:
        self._backend = backend
        self._limit = max(limit, 1)
        self._items: deque[Item] = deque()
        self._sleepers: deque[Event] = deque()
        self._total = self._told = 0  # items dropped
        self._losses = self._told_losses = 0  # markers among them
        self.channels: set[str] = set()
        self.confirmed = False  # the server has begun to listen for it
        self.over: Exception | None = None

    def put(self, item: Item) -> None:
        """Append an item, in place of the oldest one if there is no room."""
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
        """Let nobody wait any more: `over` is why. What is there can still be taken."""
        if self.over is None:
            self.over = reason
        self._wake()

    def reason(self) -> Exception:
        """Return an exception like `over`, which may be raised for several tasks."""
        return again(self.over or InterfaceError())

    def _wake(self) -> None:
        while self._sleepers:
            with suppress(IndexError):  # another OS thread was faster
                self._sleepers.popleft().set()

    def take(self) -> Item | None:
        """Return the next item, or None if there is none at the moment."""
        if self._total != self._told:
            return self._marker()
        try:
            return self._items.popleft() if self._items else None
        except IndexError:  # another OS thread was faster
            return None

    def _marker(self) -> Missed:
        total, losses = self._total, self._losses
        count = total - self._told if losses == self._told_losses else None
        self._told, self._told_losses = total, losses
        return Missed(count)

    def get(self, timeout: float | None = None) -> Item | None:
        """Return the next item; None after `timeout` seconds, or at once when it is over."""
        end = None if timeout is None else monotonic() + timeout
        while (item := self.take()) is None and self.over is None:
            left = None if end is None else end - monotonic()
            if left is not None and left <= 0:
                break
            self._wait(left)
        return item

    def _wait(self, timeout: float | None) -> None:
        if not self._backend.can_wait():
            raise ProgrammingError(IN_HUB)
        event = self._backend.event()
        self._sleepers.append(event)
        try:
            if not self._items and self.over is None:  # it might come before the event did
                event.wait(timeout)
        finally:
            with suppress(ValueError):  # `_wake` has taken it
                self._sleepers.remove(event)


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What a subscriber wants otherwise; `drop` None means all. `done` once it is in force."""

    inbox: Inbox
    add: Iterable[str] = ()
    drop: Iterable[str] | None = ()
    done: Event | None = None

    def settle(self) -> None:
        """Wake the task that waits for it, if one does."""
        if self.done is not None:
            self.done.set()


def again(reason: Exception) -> Exception:
    """Return an exception like one that is raised elsewhere too."""
    return type(reason)(*reason.args)


class Subscription:
    """One subscriber's notifications in order, made by `Listener.subscribe`.

    Iterate, or `get`; a `Missed` stands where some are missing. Dropping it closes it.
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
        del self  # else a kill's traceback would keep the subscription open
        item = inbox.get()
        if item is None:
            raise StopIteration if isinstance(inbox.over, InterfaceError) else inbox.reason()
        return item

    def get(self, timeout: float | None = None) -> Item | None:
        """Wait for the next item; None after `timeout` seconds.

        Raises InterfaceError once closed, OperationalError if the listener's task has ended.
        """
        item = self._inbox.get(timeout)
        if item is None and self._inbox.over is not None:
            raise self._inbox.reason()
        return item

    def add(self, *channels: str, timeout: float = SUBSCRIBE_TIMEOUT) -> None:
        """Subscribe to more channels; on return the server listens to them.

        OperationalError after `timeout` seconds, with the last connection error as its cause.
        """
        if self._inbox.over is not None:
            raise self._inbox.reason()
        names = checked(channels)
        try:
            self._add(self._inbox, names, timeout)
        except BaseException:
            self.drop(*names)
            raise

    def drop(self, *channels: str) -> None:
        """Unsubscribe from channels; what has arrived of them stays."""
        self._change(Change(self._inbox, drop=channels))

    def close(self) -> None:
        """Unsubscribe from all channels; any number of times, from any task."""
        if self._inbox.over is None:
            self._inbox.finish(InterfaceError("the subscription is closed"))
            self._change(Change(self._inbox, drop=None))

    @property
    def channels(self) -> frozenset[str]:
        """The channels it is subscribed to."""
        return frozenset(self._inbox.channels)

    def __enter__(self) -> Subscription:
        """Return the subscription, to be closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    __del__ = close
