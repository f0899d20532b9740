"""One connection's watcher, kept between waits."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from posix import close  # gevent.monkey's os.close() leaves the descriptor to the loop
from typing import Any, Final

from gevent import get_hub, getcurrent
from gevent._hub_local import get_hub_if_exists
from gevent.hub import Waiter as Switcher

from greenpg.backend import READ

__all__ = ["LibuvWaiter", "Waiter"]

_TIMED_OUT: Final = 0


class Waiter:
    """Keeps one io watcher on a duplicate of the socket; it is started for each wait.

    libpq may close the socket inside `poll()`, and the next owner of its number must not
    meet our watcher; the number of a duplicate is ours until `close`. What the loop calls is
    compiled code: Ctrl-C in a callback of ours would stop the watcher for good.
    """

    __slots__ = ("_fd", "_hub", "_io", "_task")

    def __init__(self) -> None:
        self._hub: Any = None
        self._io: Any = None
        self._fd = -1
        self._task: Any = None

    def wait(self, fd: int, events: int, timeout: float | None) -> int:
        hub = get_hub()
        if hub is not self._hub:
            self._watch(hub, fd)
        self._task = getcurrent()
        try:
            if events != READ or timeout is not None:
                return self._wait_specially(hub, events, timeout)
            hub.wait(self._io)
            return READ
        finally:
            self._task = None

    def _wait_specially(self, hub: Any, events: int, timeout: float | None) -> int:
        io, switcher, timer = self._io, Switcher(hub), None
        try:
            if timeout is not None:
                timer = hub.loop.timer(max(timeout, 0))
                # the loop's time stood still while we computed
                timer.start(switcher.switch, _TIMED_OUT, update=True)
            io.events = events
            io.start(switcher.switch, pass_events=True)
            flags: int = switcher.get()
        finally:
            io.stop()
            io.events = READ
            if timer is not None:
                timer.close()
        if flags == _TIMED_OUT:
            return 0
        return flags & events or events  # an error makes all ready

    def _watch(self, hub: Any, fd: int) -> None:
        self.close()
        self._fd = os.dup(fd)
        self._io = hub.loop.io(self._fd, READ)
        self._hub = hub

    def interrupt(self, exc: BaseException) -> None:
        task, hub = self._task, self._hub
        if task is not None:
            hub.loop.run_callback_threadsafe(self._throw, task, exc)

    def _throw(self, task: Any, exc: BaseException) -> None:
        if self._task is task:
            task.throw(exc)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        io, hub, fd = self._io, self._hub, self._fd
        self._io = self._hub = None
        self._fd = -1
        if io is None:
            if fd >= 0:
                close(fd)
        elif hub is get_hub_if_exists() or not _runs(hub):
            _dispose(io, fd)
        else:
            hub.loop.run_callback_threadsafe(_dispose, io, fd)


class LibuvWaiter(Waiter):
    """Leaves the watcher started: to start and stop it costs three system calls on libuv.

    While nobody waits it does not keep the loop alive, and data that comes unasked stops it.
    """

    __slots__ = ("_ready",)

    def __init__(self) -> None:
        super().__init__()
        self._ready = False

    def wait(self, fd: int, events: int, timeout: float | None) -> int:
        hub = get_hub()
        if hub is not self._hub:
            self._watch(hub, fd)
        io = self._io
        self._ready = False
        self._task = getcurrent()
        try:
            if events != READ or timeout is not None:
                io.stop()
                return self._wait_specially(hub, events, timeout)
            if not io.active:
                io.start(self._readable)
            io.ref = True
            while not self._ready:  # a finalizer's query may take the wake-up meant for us
                hub.switch()
            return READ
        finally:
            self._task = None
            io.ref = False

    def _readable(self) -> None:
        task = self._task
        if task is None or self._ready:  # nobody asked, or the task is busy elsewhere
            self._io.stop()
        else:
            self._ready = True
            task.switch()


def _dispose(io: Any, fd: int) -> None:
    with suppress(ValueError):  # the loop was destroyed, and the watcher with it
        io.close()
    close(fd)


def _runs(hub: Any) -> bool:
    """Tell whether the hub of another thread will ever run a callback."""
    return hub.loop is not None and hub.thread_ident in sys._current_frames()
