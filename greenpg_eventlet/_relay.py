"""A queue of a hub's woken tasks, which run one after another without a switch to the hub."""

from __future__ import annotations

from collections import deque
from typing import Any, Final, TypeAlias

from eventlet.hubs import get_hub
from greenlet import getcurrent

from greenpg.backend import after_fork
from greenpg.threads import pristine

from ._waker import waker

# one wait for an event: its relay, its task (None once it has ended), whether it was woken
EventWait: TypeAlias = list[Any]
HOPS: Final = 64  # switches between tasks, after which the hub must serve sockets and timers
_mine = pristine("_thread")._local()


class Relay:
    """The woken tasks of one hub, oldest first.

    A task that begins to wait switches to the first of them. A task that has run leaves an
    `EventWait` without a task, which is dropped later: Ctrl-C between two lines therefore loses no
    wake-up. A woken task that waits for something else, as in a finalizer, does not block the
    others.
    """

    __slots__ = ("_hops", "_ready", "_timer", "hub")

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self._ready: deque[EventWait] = deque()
        self._timer: Any = None
        self._hops = 0

    def put(self, entry: EventWait) -> None:
        """Schedule a task to run soon; called in the hub's thread."""
        self._ready.append(entry)
        if self._timer is None or self._timer.called:
            self._schedule()

    def switch(self) -> None:
        """Switch to the task that was woken first, or else to the hub."""
        ready = self._ready
        me = getcurrent()
        while ready and (ready[0][1] is None or (ready[0][2] and ready[0][1] is me)):
            ready.popleft()
        if ready and self._hops < HOPS:
            self._hops += 1
            resume(ready[0])
        else:
            self.hub.switch()

    def _schedule(self) -> None:
        self._timer = self.hub.schedule_call_global(0, self._run)

    def _run(self) -> None:
        self._hops = 0
        ready = self._ready
        try:
            for _ in range(len(ready)):
                if ready:
                    entry = ready[0]
                    resume(entry)
                    if ready and ready[0] is entry:
                        ready.popleft()
                while ready and ready[0][1] is None:
                    ready.popleft()
        finally:
            if ready and self._timer.called:
                self._schedule()


def resume(entry: EventWait) -> None:
    """Switch to a wait's task, if it still waits."""
    task = entry[1]
    if task is not None:
        entry[2] = True
        task.switch()


def relay() -> Relay:
    """Return the relay of this thread's hub; other threads can wake its tasks."""
    hub = get_hub()
    found: Relay | None = getattr(_mine, "relay", None)
    if found is None or found.hub is not hub:
        waker(hub)
        found = _mine.relay = Relay(hub)
    return found


def _forget() -> None:
    """Make a new one in a forked child: it wants a waker of its own."""
    _mine.__dict__.clear()


after_fork(_forget)
