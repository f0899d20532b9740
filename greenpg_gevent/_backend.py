"""gevent behind greenpg's seam, on libev and libuv."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from posix import close  # gevent.monkey's os.close() leaves the descriptor to the loop
from typing import Any, Final

import gevent
from gevent import GreenletExit, get_hub, getcurrent, spawn
from gevent._hub_local import get_hub_if_exists

from greenpg.backend import READ, Address


class Waiter:
    """Keeps one io watcher on a duplicate of the socket; it is started for each wait.

    libpq may close the socket inside `poll()`, and the next owner of its number must not
    meet our watcher; the number of a duplicate is ours until `close`.
    """

    __slots__ = ("_error", "_events", "_fd", "_hub", "_io", "_ready", "_source", "_task")

    def __init__(self) -> None:
        self._hub: Any = None
        self._io: Any = None
        self._fd = self._source = -1
        self._events = READ
        self._ready = 0
        self._task: Any = None
        self._error: BaseException | None = None

    def wait(self, fd: int, events: int, timeout: float | None) -> int:
        hub = get_hub()
        if hub is not self._hub or fd != self._source:
            self._watch(hub, fd)
        io = self._io
        if events != self._events:
            io.events = self._events = events
        self._ready = 0
        self._task = task = getcurrent()
        timer = None
        try:
            if timeout is not None:
                timer = _timer(hub, timeout, self._expired, task)
            if events == READ:
                io.start(self._readable, task)
            else:
                io.start(self._fired, task, pass_events=True)
            while not self._ready:  # a finalizer's query may take the wake-up meant for us
                hub.switch()
        finally:
            self._task = None
            io.stop()
            if timer is not None:
                timer.close()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._ready & events

    def _watch(self, hub: Any, fd: int) -> None:
        self.close()
        self._fd = os.dup(fd)
        self._io = hub.loop.io(self._fd, READ)
        self._hub, self._source, self._events = hub, fd, READ

    def _readable(self, task: Any) -> None:
        # A second call finds the task busy elsewhere, and the loop would call without end. To
        # stop at the first would lose the wake-up if Ctrl-C comes before the switch.
        if self._ready:
            self._io.stop()
        else:
            self._ready = READ
            task.switch()

    def _fired(self, flags: int, task: Any) -> None:
        if self._ready:
            self._io.stop()
        else:
            self._ready = flags & self._events or self._events  # an error makes all ready
            task.switch()

    def _expired(self, task: Any) -> None:
        if self._task is task:
            self._ready = _TIMED_OUT
            task.switch()

    def interrupt(self, exc: BaseException) -> None:
        task, hub = self._task, self._hub
        if task is not None:
            hub.loop.run_callback_threadsafe(self._throw, task, exc)

    def _throw(self, task: Any, exc: BaseException) -> None:
        if self._task is task:
            self._error = exc
            self._ready = _TIMED_OUT
            task.switch()

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        io, hub, fd = self._io, self._hub, self._fd
        self._io = self._hub = None
        self._fd = self._source = -1
        if io is None:
            if fd >= 0:
                close(fd)
        elif hub is get_hub_if_exists() or not _runs(hub):
            _dispose(io, fd)
        else:
            hub.loop.run_callback_threadsafe(_dispose, io, fd)


_TIMED_OUT: Final = 4


def _dispose(io: Any, fd: int) -> None:
    with suppress(ValueError):  # the loop was destroyed, and the watcher with it
        io.close()
    close(fd)


def _runs(hub: Any) -> bool:
    """Tell whether the hub of another thread will ever run a callback."""
    return hub.loop is not None and hub.thread_ident in sys._current_frames()


def _timer(hub: Any, seconds: float, callback: Callable[..., None], *args: object) -> Any:
    timer = hub.loop.timer(max(seconds, 0))
    timer.start(callback, *args, update=True)  # the loop's time stood still while we computed
    return timer


class Event:
    """A flag; each waiter holds an async watcher, by which other threads wake its loop."""

    __slots__ = ("_flag", "_turns")

    def __init__(self) -> None:
        self._flag = False
        self._turns: list[_Turn] = []

    def set(self) -> None:
        self._flag = True
        turns, self._turns = self._turns, []
        for turn in turns:
            turn.wake()

    def is_set(self) -> bool:
        return self._flag

    def wait(self, timeout: float | None = None) -> bool:
        if self._flag:
            return True
        turn = _Turn()
        self._turns.append(turn)
        try:
            if not self._flag:  # another thread may have set it before it could see our turn
                turn.wait(timeout)
        finally:
            turn.close()
            if turn in self._turns:
                self._turns.remove(turn)
        return self._flag


class _Turn:
    """One task's wait for an event."""

    __slots__ = ("_async", "_hub", "_over", "_task")

    def __init__(self) -> None:
        self._hub = get_hub()
        self._task: Any = getcurrent()
        self._over = False
        self._async = self._hub.loop.async_()
        self._async.start(self._switch)

    def wait(self, timeout: float | None) -> None:
        timer = None if timeout is None else _timer(self._hub, timeout, self._switch)
        try:
            while not self._over:
                self._hub.switch()
        finally:
            if timer is not None:
                timer.close()

    def wake(self) -> None:
        if self._hub is get_hub_if_exists():
            self._hub.loop.run_callback(self._switch)
        else:
            self._async.send()

    def _switch(self) -> None:
        if self._task is not None:
            self._over = True
            self._task.switch()

    def close(self) -> None:
        self._task = None
        self._async.close()


class Task:
    """A greenlet behind the seam."""

    __slots__ = ("_greenlet",)

    def __init__(self, greenlet: gevent.Greenlet) -> None:
        self._greenlet = greenlet

    def join(self, timeout: float | None = None) -> bool:
        self._greenlet.join(timeout)
        return bool(self._greenlet.ready())

    def kill(self) -> None:
        self._greenlet.kill(block=False)


class Gevent:
    """Greenlets and gevent's hub."""

    name: Final = "gevent"
    exits: Final[tuple[type[BaseException], ...]] = (GreenletExit,)
    capabilities: Final = frozenset({"kill", "hub", "lazy_spawn"})

    current = staticmethod(getcurrent)
    sleep = staticmethod(gevent.sleep)
    waiter = Waiter
    event = Event

    def can_wait(self) -> bool:
        return getcurrent() is not get_hub()

    def pause(self) -> None:
        gevent.sleep(1e-6)  # sleep(0) would not let timers and sockets run

    def spawn(self, fn: Callable[..., object], *args: object) -> Task:
        return Task(spawn(fn, *args))

    def in_thread(self, fn: Callable[..., Any], *args: object) -> Any:
        return get_hub().threadpool.spawn(fn, *args).get()

    def resolve(self, host: str, port: int) -> Sequence[Address]:
        import _socket  # late: importing greenpg_gevent must not load it before a monkey-patch

        rows: Sequence[Address] = get_hub().resolver.getaddrinfo(host, port, 0, _socket.SOCK_STREAM)
        return rows


backend: Final = Gevent()
