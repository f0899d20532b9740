"""One connection's watcher, kept between waits."""

from __future__ import annotations

import os
import sys
from posix import close  # gevent.monkey's os.close() leaves the descriptor to the loop
from typing import Any

from gevent import Greenlet, get_hub, getcurrent
from gevent._hub_local import get_hub_if_exists

from greenpg.backend import READ

__all__ = ["LibuvWaiter", "Waiter"]

_switch = Greenlet.switch


class Waiter:
    """Keeps one io watcher on a duplicate of the socket; it is started for each wait.

    libpq may close the socket inside `poll()`, and the next owner of its number must not
    meet our watcher; the number of a duplicate is ours until `close`. What the loop calls is
    the task's own switch, compiled code: Ctrl-C in a callback of ours would stop the watcher
    for good. The waiter itself is what is switched in, so that a wake-up is known by it.
    """

    __slots__ = ("_early", "_fd", "_hub", "_io", "_task")

    def __init__(self) -> None:
        self._hub: Any = None
        self._io: Any = None
        self._fd = -1
        self._task: Any = None
        self._early = False

    def wait(self, fd: int, events: int, timeout: float | None) -> int:
        task = getcurrent()
        hub = task.parent  # of most tasks, and found in a third of the time get_hub() takes
        if hub is not self._hub or not hub:  # a destroyed hub is false, as every dead greenlet
            hub = get_hub()
            if hub is not self._hub:
                self._watch(hub, fd)
        if events != READ or timeout is not None:
            return self._wait_specially(hub, events, timeout)
        io = self._io
        self._early = False
        self._task = task
        try:
            if type(task) is Greenlet:  # for which CPython need not find and bind its switch
                io.start(_switch, task, self)
            else:
                io.start(task.switch, self)
            while not self._early and (got := hub.switch()) is not self:
                _pass_on(got)
            return READ
        finally:
            self._task = None
            io.stop()

    def _wait_specially(self, hub: Any, events: int, timeout: float | None) -> int:
        io, timer = self._io, None
        self._early = False
        self._task = task = getcurrent()
        try:
            if timeout is not None:
                timer = hub.loop.timer(max(timeout, 0))
                # the loop's time stood still while we computed
                timer.start(task.switch, self, update=True)
            io.events = events
            io.start(task.switch, self, pass_events=True)
            while not self._early:
                got = hub.switch()
                if got is self:
                    return 0
                if type(got) is tuple and got[-1] is self:
                    return got[0] & events or events  # an error makes all ready
                _pass_on(got)
            return events
        finally:
            self._task = None
            io.stop()
            io.events = READ
            if timer is not None:
                timer.close()

    def came_early(self) -> None:
        """Note a wake-up that another wait of the same task has taken.

        A finalizer may wait between a wait's start and its switch. Left to itself the loop
        would call again and again.
        """
        self._early = True
        self._io.stop()

    def _watch(self, hub: Any, fd: int) -> None:
        if self._fd >= 0:
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

    __slots__ = ("_counted", "_ready")

    def __init__(self) -> None:
        super().__init__()
        self._ready = False
        self._counted: Any = None

    def wait(self, fd: int, events: int, timeout: float | None) -> int:
        hub = get_hub()
        if hub is not self._hub:
            self._watch(hub, fd)
        io = self._io
        self._ready = False
        self._task = getcurrent()
        try:
            self._counted.ref = True
            if events != READ or timeout is not None:
                io.stop()
                return self._wait_specially(hub, events, timeout)
            if not io.active:
                io.start(self._readable, io, pass_events=True)
            while not self._ready:  # a finalizer's query may take the wake-up meant for us
                hub.switch()
            return READ
        finally:
            self._task = None
            if self._io is io:  # not closed meanwhile
                self._counted.ref = False

    def _watch(self, hub: Any, fd: int) -> None:
        super()._watch(hub, fd)
        # the ref of what loop.io() returns does nothing: the handle behind it counts
        self._counted = getattr(self._io, "_watcher_ref", self._io)
        self._counted.ref = False

    def _readable(self, events: int, io: Any) -> None:
        task = self._task
        if events < 0:
            io.stop()  # as libuv has done already: the next wait must start it anew
        left_behind = io is not self._io  # in the hub of a thread it has moved from
        if left_behind or task is None or self._ready:  # nobody asked, or it is busy elsewhere
            io.stop()
        else:
            self._ready = True
            task.switch()


def _pass_on(got: Any) -> None:
    waiter = got[-1] if type(got) is tuple and got else got
    if isinstance(waiter, Waiter):
        waiter.came_early()


def _dispose(io: Any, fd: int) -> None:
    try:  # noqa: SIM105  suppress() is three calls in Python
        io.close()
    except ValueError:  # the loop was destroyed, and the watcher with it
        pass
    close(fd)


def _runs(hub: Any) -> bool:
    """Tell whether the hub of another thread will ever run a callback."""
    return hub.loop is not None and hub.thread_ident in sys._current_frames()
