"""Calls from other OS threads into a hub, for which eventlet has no public function."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from posix import read, write  # eventlet.monkey_patch() replaces os.read and os.write
from typing import Any, Final
from weakref import WeakKeyDictionary

from eventlet.hubs import _threadlocal

from greenpg.backend import after_fork
from greenpg.threads import this_thread

_wakers: Final[WeakKeyDictionary[Any, Waker]] = WeakKeyDictionary()


class Waker:
    """A hub's pipe: when it is readable, the hub runs the calls that other threads have queued."""

    __slots__ = ("_calls", "_pipe", "_thread")

    def __init__(self, hub: Any) -> None:
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[0], False)
        os.set_blocking(self._pipe[1], False)
        self._thread = this_thread()
        listener = hub.add("read", self._pipe[0], self._run, _ignore, None)
        listener.greenlet = hub.greenlet  # FdListener would keep a finished task alive

    def has_thread(self) -> bool:
        """Return True if the hub's thread is alive."""
        return not self._thread.dead

    def call(self, fn: Callable[..., object], *args: Any) -> None:
        """Run `fn` soon in the hub; if the pipe is full, the hub is already woken."""
        self._calls.append((fn, args))
        with suppress(BlockingIOError):
            write(self._pipe[1], b"!")

    def _run(self, fd: int) -> None:
        with suppress(BlockingIOError):
            read(fd, 4096)
        while self._calls:
            fn, args = self._calls.popleft()
            fn(*args)

    def abandon(self, dead_end: int) -> None:
        """Replace both ends by a descriptor that never wakes the hub."""
        for fd in self._pipe:
            os.dup2(dead_end, fd, inheritable=False)

    def __del__(self) -> None:
        for fd in getattr(self, "_pipe", ()):  # Ctrl-C may have come before it was made
            os.close(fd)


def _ignore(*error: Any) -> None:
    """Serve as the listener's throwback: the waker has no task to throw into."""


def waker(hub: Any) -> Waker:
    """Return the hub's waker; make it on first use, in the hub's own thread."""
    found = _wakers.get(hub)
    if found is None:
        found = _wakers[hub] = Waker(hub)
        if hasattr(hub, "loop"):
            # one for each hub, as eventlet's own is: it has to run after the last of those
            os.register_at_fork(after_in_child=_keep_running_loop)
    return found


def _keep_running_loop() -> None:
    """Let the forking thread's loop run on in the child.

    eventlet's asyncio hub has a hook that makes its loop the child's, and the last hub's hook
    wins: that of a thread which is not in the child. This one comes after it.
    """
    loop = getattr(getattr(_threadlocal, "hub", None), "loop", None)
    if loop is not None:
        import asyncio.events  # late: asyncio is the hub's to load

        asyncio.events._set_running_loop(loop)


def call_in_hub(hub: Any, fn: Callable[..., object], *args: Any) -> None:
    """Run `fn` now if this is the hub's thread or that thread has ended, else soon in the hub."""
    mine = getattr(_threadlocal, "hub", None)  # get_hub() would make a hub
    other = None if mine is hub else _wakers.get(hub)
    if other is None or not other.has_thread():
        fn(*args)
    else:
        other.call(fn, *args)


def _leave_parents_pipes() -> None:
    """Make the inherited pipes dead ends: a read here would steal the parent's wake-up."""
    end, closed = os.pipe()
    os.close(closed)
    for inherited in list(_wakers.values()):
        inherited.abandon(end)
    os.close(end)
    _parents.extend(_wakers.values())  # the hub still knows their descriptors
    _wakers.clear()


_parents: Final[list[Waker]] = []
after_fork(_leave_parents_pipes)
