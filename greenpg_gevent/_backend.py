"""gevent behind greenpg's seam, on libev and libuv."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import gevent
from gevent import GreenletExit, get_hub, getcurrent, spawn
from gevent._hub_local import get_hub_if_exists

from ._watch import LibuvWaiter, Waiter

if TYPE_CHECKING:
    from greenpg.backend import Address


def _timer(hub: Any, seconds: float, callback: Callable[..., None], *args: object) -> Any:
    timer = hub.loop.timer(max(seconds, 0))
    timer.start(callback, *args, update=True)  # the loop's time stood still while we computed
    return timer


class Event:
    """A flag; other threads wake a waiter's loop."""

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

    __slots__ = ("_hub", "_over", "_task")

    def __init__(self) -> None:
        self._hub = get_hub()
        self._task: Any = getcurrent()
        self._over = False

    def wait(self, timeout: float | None) -> None:
        watcher = self._forever() if timeout is None else _timer(self._hub, timeout, self._switch)
        try:
            while not self._over:
                self._hub.switch()
        finally:
            watcher.close()

    def _forever(self) -> Any:
        """Return what keeps a loop running that has nothing to wait for but another thread."""
        watcher = self._hub.loop.async_()
        watcher.start(self._switch)
        return watcher

    def wake(self) -> None:
        if self._hub is get_hub_if_exists():
            self._hub.loop.run_callback(self._switch)
        else:
            self._hub.loop.run_callback_threadsafe(self._switch)

    def _switch(self) -> None:
        if self._task is not None:
            self._over = True
            self._task.switch()

    def close(self) -> None:
        self._task = None


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
    event = Event

    def waiter(self) -> Waiter:
        return LibuvWaiter() if "libuv" in type(get_hub().loop).__module__ else Waiter()

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
