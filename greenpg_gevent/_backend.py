"""gevent behind greenpg's seam, on libev and libuv."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import gevent
from gevent import GreenletExit, get_hub, getcurrent, spawn
from gevent._hub_local import get_hub_if_exists

from ._watch import LibuvWaiter, Waiter

if TYPE_CHECKING:
    from greenpg.backend import Address


_Turn: TypeAlias = list[Any]  # one wait for an event: the hub, the task until it ends, its end


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
        while self._turns:
            turn = self._turns.pop(0)
            hub = turn[0]
            if hub is get_hub_if_exists():
                hub.loop.run_callback(_resume, turn)
            else:
                hub.loop.run_callback_threadsafe(_resume, turn)

    def is_set(self) -> bool:
        return self._flag

    def wait(self, timeout: float | None = None) -> bool:
        if self._flag:
            return True
        hub = get_hub()
        turn = [hub, getcurrent(), False]
        watcher = None
        try:
            if timeout is None:
                watcher = hub.loop.async_()  # a loop that waits for another thread must run on
                watcher.start(_resume, turn)
            else:
                watcher = _timer(hub, timeout, _resume, turn)
            self._turns.append(turn)
            # another thread may have set it before it could see our turn
            while not (turn[2] or self._flag):
                hub.switch()
        finally:
            turn[1] = None
            if watcher is not None:
                watcher.close()
            if not self._flag:
                self._leave(turn)
        return self._flag

    def _leave(self, turn: _Turn) -> None:
        with suppress(ValueError):  # another thread has set it this moment
            self._turns.remove(turn)


def _resume(turn: _Turn) -> None:
    task = turn[1]
    if task is not None:
        turn[2] = True
        task.switch()


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
        return _waiter_class(get_hub().loop.__class__)()

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


@cache
def _waiter_class(loop: Any) -> type[Waiter]:
    return LibuvWaiter if "libuv" in loop.__module__ else Waiter


backend: Final = Gevent()
