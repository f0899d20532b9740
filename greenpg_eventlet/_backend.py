"""greenpg's backend for eventlet, on its epoll, poll, kqueue, select and asyncio hubs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import eventlet
from eventlet.hubs import _threadlocal, get_hub
from eventlet.support.greenlets import GreenletExit, getcurrent

from greenpg.backend import READ, WRITE, Address, Backend, Parked
from greenpg.threads import delay, duplicate

from ._relay import EventWait, relay, resume
from ._waker import call_in_hub, waker
from ._workers import run

_TIMED_OUT: Final = 4
_KINDS: Final = {READ: "read", WRITE: "write"}


class Waiter:
    """Keeps one read listener registered, on a duplicate of the socket.

    libpq may close the socket while it reads (fe-misc.c, pqDropConnection), and the listener must
    not stay on a descriptor number that then gets another owner; the number of a duplicate is
    reserved until `close` (conformance test next_owner_of_a_descriptor_is_left_alone).
    """

    __slots__ = (
        "_dup", "_error", "_fd", "_hub", "_listener", "_ready", "_source", "_task", "_writer",
    )  # fmt: skip

    def __init__(self) -> None:
        self._hub: Any = None
        self._listener: Any = None
        self._writer: Any = None
        self._dup: Any = None
        self._fd = self._source = -1
        self._ready = 0
        self._task: Any = None
        self._error: BaseException | None = None

    def wait(self, fd: int, events: int, timeout: float | None) -> int:
        hub = get_hub()
        if hub is not self._hub or fd != self._source:
            self._watch(hub, fd)
        self._ready = 0
        self._task = task = getcurrent()
        timer = None
        try:
            if events & READ and self._listener is None:
                self._listener = self._listen(READ, self._readable)
            if events & WRITE:
                self._writer = self._listen(WRITE, self._writable)
            if timeout is not None:
                timer = hub.schedule_call_global(delay(timeout), self._expired, task)
            while not self._ready & (events | _TIMED_OUT):
                hub.switch()
        finally:
            self._task = None
            if timer is not None:
                timer.cancel()
            if self._writer is not None:
                self._drop_writer()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._ready & events

    def _watch(self, hub: Any, fd: int) -> None:
        if self._hub is not None:
            self.close()
        waker(hub)
        self._dup = duplicate(fd)
        self._fd = self._dup.fileno()
        self._hub, self._source = hub, fd

    def _listen(self, event: int, callback: Callable[[int], None]) -> Any:
        kind = _KINDS[event]
        listener = self._hub.listeners[kind].get(self._fd)  # left by a wait that Ctrl-C ended
        if listener is None:
            listener = self._hub.add(kind, self._fd, callback, self._throw, self._forget)
        listener.greenlet = self._hub.greenlet  # FdListener would keep a finished task alive
        return listener

    def _readable(self, fd: int) -> None:
        if fd != self._fd:
            return  # another thread closed or moved this waiter; the hub drops the listener soon
        if self._task is None or self._ready & READ:
            self._drop_listener()  # unsolicited data: the hub would call this endlessly
        elif self._writer is None:  # the same as _wake() in this case, with one call less
            self._ready |= READ
            self._task.switch()
        else:
            self._wake(READ)

    def _writable(self, fd: int) -> None:
        if fd != self._fd:
            return
        if self._task is None or self._ready & WRITE:
            self._drop_writer()
        else:
            self._wake(WRITE)

    def _wake(self, flag: int) -> None:
        self._ready |= flag
        if self._task is None:
            return
        if self._writer is None:
            self._task.switch()
        else:  # the hub may be about to report the other direction too
            self._hub.schedule_call_global(0, self._resume, self._task)

    def _resume(self, task: Any) -> None:
        if self._task is task:
            task.switch()

    def _expired(self, task: Any) -> None:
        if self._task is task:
            self._wake(_TIMED_OUT)

    def _throw(self, *error: Any) -> None:
        if self._task is not None:
            self._task.throw(*error)

    def _forget(self) -> None:
        self._listener = self._writer = None
        if self._task is not None:
            self._hub.schedule_call_global(0, self._wake, READ)

    def _drop_listener(self) -> None:
        self._listener = None
        _remove(self._hub, READ, self._fd)

    def _drop_writer(self) -> None:
        self._writer = None
        _remove(self._hub, WRITE, self._fd)

    def interrupt(self, exc: BaseException) -> None:
        task, hub = self._task, self._hub
        if task is not None:
            call_in_hub(hub, hub.schedule_call_global, 0, self._interrupted, task, exc)

    def _interrupted(self, task: Any, exc: BaseException) -> None:
        if self._task is task:
            self._error = exc
            self._wake(_TIMED_OUT)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        hub = self._hub
        if hub is not None:
            call_in_hub(hub, _dispose, hub, self._dup)
        # last: where memory or stack ends, the next call tries again
        self._hub = self._listener = self._dup = None
        self._fd = self._source = -1


def _dispose(hub: Any, dup: Any) -> None:
    if not dup.closed:
        for event in _KINDS:
            _remove(hub, event, dup.fileno())
        dup.close()


def _remove(hub: Any, event: int, fd: int) -> None:
    """Remove what the hub has for the descriptor: Ctrl-C may come before the waiter keeps it."""
    listener = hub.listeners[_KINDS[event]].get(fd)
    if listener is not None:
        try:  # noqa: SIM105  suppress() costs three Python calls
            hub.remove(listener)
        except (KeyError, RuntimeError):  # the hub has dropped it, or is itself closed
            pass


class Event:
    """A flag that tasks wait for; eventlet's own cannot be set from another thread."""

    __slots__ = ("_flag", "_waits")

    def __init__(self) -> None:
        self._flag = False
        self._waits: list[EventWait] = []

    def set(self) -> None:
        self._flag = True
        while self._waits:
            try:
                entry = self._waits[0]
            except IndexError:  # another thread was faster
                return
            call_in_hub(entry[0].hub, entry[0].put, entry)
            self._leave(entry)  # last: where memory or stack ends, the next call tries again

    def is_set(self) -> bool:
        return self._flag

    def wait(self, timeout: float | None = None) -> bool:
        if self._flag:
            return True
        mine = relay()
        entry: EventWait = [mine, getcurrent(), False]
        timer = None
        try:
            if timeout is not None:
                timer = mine.hub.schedule_call_global(delay(timeout), resume, entry)
            self._waits.append(entry)
            # another thread may have set the flag before the append
            while not (entry[2] or self._flag):
                mine.switch()
        finally:
            entry[1] = None
            if timer is not None:
                timer.cancel()
            if not self._flag:
                self._leave(entry)
        return self._flag

    def _leave(self, entry: EventWait) -> None:
        with suppress(ValueError):  # another thread has just set the flag
            self._waits.remove(entry)


def _expire(entry: EventWait, over: list[bool]) -> None:
    over.append(True)
    resume(entry)


class Task:
    """A spawned green thread."""

    __slots__ = ("_done", "_hub", "_thread")

    def __init__(self, fn: Callable[..., object], args: tuple[object, ...]) -> None:
        self._done = Event()
        self._hub = get_hub()
        waker(self._hub)  # another thread may kill the task
        self._thread = eventlet.spawn(fn, *args)
        self._thread.link(self._finished)

    def _finished(self, thread: Any) -> None:
        self._done.set()

    def join(self, timeout: float | None = None) -> bool:
        return self._done.wait(timeout)

    def kill(self) -> None:
        if not self._thread.dead:
            call_in_hub(self._hub, self._hub.schedule_call_global, 0, self._kill)

    def _kill(self) -> None:
        if not self._thread.dead:
            self._thread.throw(GreenletExit)
        if self._thread.dead:  # a task that had not begun runs no links
            self._done.set()


class Eventlet:
    """Green threads and eventlet's hub."""

    name: Final = "eventlet"
    exits: Final[tuple[type[BaseException], ...]] = (GreenletExit,)
    capabilities: Final = frozenset({"kill", "hub", "lazy_spawn"})

    current = staticmethod(getcurrent)
    sleep = staticmethod(eventlet.sleep)
    waiter = Waiter
    event = Event

    def can_wait(self) -> bool:
        hub = getattr(_threadlocal, "hub", None)  # get_hub() would make a hub
        try:
            return hub is None or getcurrent() is not hub.greenlet
        except RuntimeError:  # the interpreter ends (greenlet, PyModule.cpp, mod_getcurrent)
            return False

    def pause(self) -> None:
        eventlet.sleep(0)

    def spawn(self, fn: Callable[..., object], *args: object) -> Task:
        return Task(fn, args)

    def soon(self, fn: Callable[[], object]) -> None:
        get_hub().schedule_call_global(0, fn)

    def park(self, what: Parked, timeout: float | None = None) -> None:
        over: list[bool] = []
        mine, timer = relay(), None
        entry: EventWait = [mine, getcurrent(), False]
        what.waiter = entry
        try:
            if timeout is not None:
                timer = mine.hub.schedule_call_global(delay(timeout), _expire, entry, over)
            while not (what.ended or over):
                mine.switch()
        finally:
            entry[1] = what.waiter = None
            if timer is not None:
                timer.cancel()

    def unpark(self, those: Sequence[Parked]) -> None:
        for what in those:
            if what.waiter is not None:
                what.waiter[0].put(what.waiter)

    def in_thread(self, fn: Callable[..., Any], *args: object) -> Any:
        return run(Event(), fn, args)

    def resolve(self, host: str, port: int) -> Sequence[Address]:
        import _socket  # late: importing greenpg_eventlet must not load it before a monkey-patch

        rows: Sequence[Address] = self.in_thread(
            _socket.getaddrinfo, host, port, 0, _socket.SOCK_STREAM
        )
        return rows


backend: Final[Backend] = Eventlet()
