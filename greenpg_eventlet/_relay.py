"""Woken tasks of a hub, which run one after another without a visit to the hub for each."""

from __future__ import annotations

from collections import deque
from typing import Any, Final, TypeAlias

from eventlet.hubs import get_hub
from greenlet import getcurrent

from greenpg.backend import after_fork
from greenpg.threads import pristine

from ._waker import waker

__all__ = ["Relay", "Turn", "relay", "resume"]

Turn: TypeAlias = list[Any]  # one wait: its relay, the task until it ends, whether it was woken
HOPS: Final = 64  # after so many the hub runs: sockets and timers wait
_mine = pristine("_thread")._local()


class Relay:
    """The woken tasks of one hub, oldest first.

    A task that begins to wait switches to the first of them. One that has run is known by its
    empty turn, and dropped later: so Ctrl-C between two lines loses nobody's wake-up. One that
    was told and waits for something else, as a finalizer does, holds up nobody.
    """

    __slots__ = ("_hops", "_ready", "_timer", "hub")

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self._ready: deque[Turn] = deque()
        self._timer: Any = None
        self._hops = 0

    def put(self, turn: Turn) -> None:
        """Have a task run soon; called in the hub's thread."""
        self._ready.append(turn)
        if self._timer is None or self._timer.called:
            self._schedule()

    def switch(self) -> None:
        """Leave this task, for the first that was woken or else for the hub."""
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
                    turn = ready[0]
                    resume(turn)
                    if ready and ready[0] is turn:
                        ready.popleft()
                while ready and ready[0][1] is None:
                    ready.popleft()
        finally:
            if ready and self._timer.called:
                self._schedule()


def resume(turn: Turn) -> None:
    """Switch to a task if it still waits."""
    task = turn[1]
    if task is not None:
        turn[2] = True
        task.switch()


def relay() -> Relay:
    """Return the relay of this thread's hub, of which other threads can make use too."""
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
