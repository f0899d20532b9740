"""greenpg's backend for gevent, on libev and libuv."""

from __future__ import annotations

import pickle  # noqa: F401  gevent imports it when a call in a thread fails (gevent/_tblib.py)
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import gevent
from gevent import GreenletExit, get_hub, getcurrent, spawn
from gevent._hub_local import get_hub_if_exists

from greenpg.threads import delay, this_thread

from ._watch import LibuvWaiter, Waiter, call_in, made

if TYPE_CHECKING:
    from greenpg.backend import Address, Backend, Parked


# one wait for an event: its hub, task (None once it has ended), whether it was woken, and thread
EventWait: TypeAlias = list[Any]


class Event:
    """A flag that tasks wait for; `set` from another thread wakes the waiting task's loop."""

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
            hub = entry[0]
            if hub is get_hub_if_exists():
                hub.loop.run_callback(_resume, entry)
            else:
                call_in(hub, entry[3], _resume, entry)
            self._leave(entry)  # last: where memory or stack ends, the next call tries again

    def is_set(self) -> bool:
        return self._flag

    def wait(self, timeout: float | None = None) -> bool:
        if self._flag:
            return True
        hub = get_hub()
        entry = [hub, getcurrent(), False, this_thread()]
        watcher = None
        try:
            if timeout is None:
                [watcher] = made(hub.loop.async_)  # a ref'd watcher: the loop must run on
                watcher.start(_resume, entry)
            else:
                [watcher] = made(hub.loop.timer, delay(timeout))
                watcher.start(_resume, entry, update=True)
            self._waits.append(entry)
            # another thread may have set the flag before the append
            while not (entry[2] or self._flag):
                hub.switch()
        finally:
            entry[1] = None
            if watcher is not None:
                watcher.close()
            if not self._flag:
                self._leave(entry)
        return self._flag

    def _leave(self, entry: EventWait) -> None:
        with suppress(ValueError):  # another thread has just set the flag
            self._waits.remove(entry)


def _resume(entry: EventWait) -> None:
    task = entry[1]
    if task is not None:
        entry[2] = True
        task.switch()


def _resume_parked(those: Sequence[Parked]) -> None:
    rest = iter(those)
    try:
        for what in rest:
            if what.waiter is not None:
                what.waiter.switch()
    except BaseException:  # of a greenlet whose parent is the hub
        get_hub().loop.run_callback(_resume_parked, tuple(rest))
        raise


def _park_for(seconds: float, hub: Any, what: Parked) -> None:
    over: list[bool] = []
    [timer] = made(hub.loop.timer, delay(seconds))
    try:
        # update: the loop's own time is that of its last iteration (libev manual, ev_now_update)
        timer.start(_expire, what, over, update=True)
        while not (what.ended or over):
            hub.switch()
    finally:
        timer.close()


def _expire(what: Parked, over: list[bool]) -> None:
    over.append(True)
    _resume_parked((what,))


class Task:
    """A spawned greenlet; unlike gevent's, other threads can wait for it and kill it."""

    __slots__ = ("_done", "_greenlet", "_hub", "_thread")

    def __init__(self, greenlet: gevent.Greenlet) -> None:
        self._done = Event()
        self._hub: Any = get_hub()
        self._thread = this_thread()
        self._greenlet = greenlet
        greenlet.rawlink(self._finished)

    def _finished(self, greenlet: gevent.Greenlet) -> None:
        self._done.set()

    @property
    def stranded(self) -> bool:
        return not self._greenlet.dead and (self._hub.loop is None or self._thread.dead)

    def join(self, timeout: float | None = None) -> bool:
        return not self.stranded and self._done.wait(timeout)

    def kill(self) -> None:
        if self._hub is get_hub_if_exists():
            self._greenlet.kill(block=False)
        else:
            call_in(self._hub, self._thread, self._greenlet.kill, GreenletExit, False)


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
        try:
            return getcurrent() is not get_hub_if_exists()
        except RuntimeError:  # the interpreter ends (greenlet, PyModule.cpp, mod_getcurrent)
            return False

    def pause(self) -> None:
        gevent.sleep(1e-6)  # sleep(0) may run before timers and sockets (gevent.sleep)

    def spawn(self, fn: Callable[..., object], *args: object) -> Task:
        return Task(spawn(fn, *args))

    def soon(self, fn: Callable[[], object]) -> None:
        get_hub().loop.run_callback(fn)

    def park(self, what: Parked, timeout: float | None = None) -> None:
        what.waiter = getcurrent()
        try:
            hub = get_hub()
            if timeout is None:
                while not what.ended:
                    hub.switch()
            else:
                _park_for(timeout, hub, what)
        finally:
            what.waiter = None

    def unpark(self, those: Sequence[Parked]) -> None:
        get_hub().loop.run_callback(_resume_parked, those)

    def in_thread(self, fn: Callable[..., Any], *args: object) -> Any:
        return get_hub().threadpool.spawn(fn, *args).get()

    def resolve(self, host: str, port: int) -> Sequence[Address]:
        import _socket  # late: importing greenpg_gevent must not load it before a monkey-patch

        return list(get_hub().resolver.getaddrinfo(host, port, 0, _socket.SOCK_STREAM))


@cache
def _waiter_class(loop: Any) -> type[Waiter]:
    return LibuvWaiter if "libuv" in loop.__module__ else Waiter


backend: Final[Backend] = Gevent()
