"""The waiter of one connection, which keeps its watcher between waits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import starmap
from typing import Any

from gevent import Greenlet, get_hub, getcurrent
from gevent._hub_local import get_hub_if_exists

from greenpg.backend import READ
from greenpg.threads import ThisThread, delay, duplicate, this_thread

_switch = Greenlet.switch


class Waiter:
    """Keeps one io watcher on a duplicate of the socket; starts it for each wait.

    libpq may close the socket while it reads (fe-misc.c, pqDropConnection), and the watcher must
    not stay on a descriptor number that then gets another owner; the number of a duplicate is
    reserved until `close` (conformance test next_owner_of_a_descriptor_is_left_alone). The loop
    calls the task's own `switch`, which is compiled code: Ctrl-C in a Python callback would stop
    the watcher for good. The waiter passes itself through `switch`, which identifies a wake-up as
    its own.
    """

    __slots__ = ("_dup", "_early", "_hub", "_io", "_task", "_thread")

    def __init__(self) -> None:
        self._hub: Any = None
        self._io: Any = None
        self._dup: Any = None
        self._thread = this_thread()
        self._task: Any = None
        self._early = False

    def wait(self, fd: int, events: int, timeout: float | None) -> int:
        task = getcurrent()
        # the parent of most tasks is the hub; get_hub() is slower: `greenpg bench -w select1`
        hub = task.parent
        if hub is not self._hub or not hub:  # a destroyed hub is falsy, as is every dead greenlet
            hub = get_hub()
            if hub is not self._hub:
                self._watch(hub, fd)
        if events != READ or timeout is not None:
            return self._wait_specially(hub, events, timeout)
        io = self._io
        self._early = False
        self._task = task
        try:
            if type(task) is Greenlet:  # saves the look-up of its bound switch
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
                [timer] = made(hub.loop.timer, delay(timeout))
                # update: the loop's own time is that of its last iteration
                timer.start(task.switch, self, update=True)
            io.events = events
            io.start(task.switch, self, pass_events=True)
            while not self._early:
                got = hub.switch()
                if got is self:
                    return 0
                if type(got) is tuple and got[-1] is self:
                    return got[0] & events or events  # an error makes all events ready
                _pass_on(got)
            return events
        finally:
            self._task = None
            try:
                io.stop()
                io.events = READ
            finally:
                if timer is not None:
                    timer.close()

    def came_early(self) -> None:
        """Note a wake-up that arrived in another wait of the same task, and stop the watcher.

        A finalizer may wait between the start of the watcher and the switch (conformance test
        finalizer_that_queries_between_arming_and_waiting). A watcher left started would make the
        loop call it endlessly.
        """
        self._early = True
        self._io.stop()

    def _watch(self, hub: Any, fd: int) -> None:
        self.close()
        self._dup = duplicate(fd)
        [self._io] = made(hub.loop.io, self._dup.fileno(), READ)
        self._hub, self._thread = hub, this_thread()

    def interrupt(self, exc: BaseException) -> None:
        task, hub = self._task, self._hub
        if task is not None:
            call_in(hub, self._thread, self._throw, task, exc)

    def _throw(self, task: Any, exc: BaseException) -> None:
        if self._task is task:
            task.throw(exc)

    def fileno(self) -> int:
        return -1 if self._dup is None else int(self._dup.fileno())

    def close(self) -> None:
        io, hub, dup = self._io, self._hub, self._dup
        here = hub is None or hub is get_hub_if_exists()
        if here or not call_in(hub, self._thread, _dispose, io, dup):
            _dispose(io, dup)
        # last: where memory or stack ends, the next call tries again
        self._io = self._hub = self._dup = None


class LibuvWaiter(Waiter):
    """Leaves the watcher started: on libuv, a start and a stop cost three system calls.

    Both go through uv__platform_invalidate_fd (libuv, src/unix/poll.c). Without a waiting task the
    watcher does not keep the loop alive, and unsolicited data stops it.
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
            while not self._ready:  # a finalizer's query may take this wait's wake-up
                hub.switch()
            return READ
        finally:
            self._task = None
            if self._io is io:  # not closed in the meantime
                self._counted.ref = False

    def _watch(self, hub: Any, fd: int) -> None:
        super()._watch(hub, fd)
        # only the ref of the handle behind loop.io()'s result counts (gevent/libuv/watcher.py)
        self._counted = getattr(self._io, "_watcher_ref", self._io)
        self._counted.ref = False

    def _readable(self, events: int, io: Any) -> None:
        task = self._task
        if events < 0:
            io.stop()  # as libuv has (src/unix/poll.c, uv__poll_io): the next wait must start it
        left_behind = io is not self._io  # in the hub of the thread that it has left
        if left_behind or task is None or self._ready:  # unsolicited, or the task is busy
            io.stop()
        else:
            self._ready = True
            task.switch()


def made(make: Callable[..., Any], *args: object) -> Iterable[Any]:
    """Make a watcher as it is unpacked into its variable: Ctrl-C cannot come between the two.

    A watcher that is lost before `close` is freed while libuv uses it (gevent/libuv/watcher.py,
    `_watcher_ffi_close`).
    """
    return starmap(make, (args,))


def _pass_on(got: Any) -> None:
    waiter = got[-1] if type(got) is tuple and got else got
    if isinstance(waiter, Waiter):
        waiter.came_early()


def _dispose(io: Any, dup: Any) -> None:
    try:
        if io is not None:
            io.close()
    except ValueError:  # the loop was destroyed together with the watcher
        pass
    if dup is not None:
        dup.close()


def call_in(hub: Any, thread: ThisThread, fn: Callable[..., object], *args: Any) -> bool:
    """Call `fn` soon in the hub of another thread; False if that hub never runs again."""
    loop = hub.loop  # None once it is destroyed
    if loop is None or thread.dead:
        return False
    try:
        loop.run_callback_threadsafe(fn, *args)
    except ValueError:  # its thread has destroyed it meanwhile
        return False
    return True
