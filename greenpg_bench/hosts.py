"""The loops that contenders run on, as data: what to import, which loop, how tasks are made."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Protocol

# Choices of the caller's shell that would silently put a contender on another loop.
LOOP_VARIABLES = (
    "GEVENT_LOOP", "GEVENT_RESOLVER", "EVENTLET_HUB", "GREENPG_BACKEND", "GREENPG_PATCH",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Host:
    """A loop: greenpg's backend for it, the environment that selects it, how its library is used.

    `patch` is a function as `module:name`, `result` the method of a task that waits for it.
    """

    backend: str
    modules: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    patch: str = ""
    result: str = ""


def _gevent(**env: str) -> Host:
    return Host("gevent", ("gevent",), env, "gevent.monkey:patch_all", "get")


def _eventlet(**env: str) -> Host:
    return Host("eventlet", ("eventlet",), env, "eventlet:monkey_patch", "wait")


HOSTS: Mapping[str, Host] = {
    "threads": Host("threads"),
    "gevent": _gevent(),
    "gevent-libuv": replace(_gevent(GEVENT_LOOP="libuv-cffi"), modules=("gevent", "cffi")),
    "eventlet": _eventlet(),
    "eventlet-asyncio": _eventlet(EVENTLET_HUB="asyncio"),
    "uvloop": Host("", ("uvloop",)),
    "epoll": Host(""),
}


class Queue(Protocol):
    """The library's plain first-in-first-out queue."""

    def get(self) -> object: ...
    def put(self, item: object, /) -> object: ...


class Crew(Protocol):
    """Tasks of one host: start some, then wait for all; an empty queue and a sleep for them."""

    def start(self, job: Callable[..., object], *args: object) -> None: ...
    def finish(self) -> None: ...
    @property
    def sleep(self) -> Callable[[float], None]: ...
    @property
    def queue(self) -> Callable[[], Queue]: ...


def patch(host: Host) -> None:
    """Monkey-patch this process for the host; to be called before anything else is imported."""
    module, _, name = host.patch.partition(":")
    getattr(import_module(module), name)()


def crew(host: Host, size: int) -> Crew:
    """Make a crew of up to `size` tasks of the host."""
    return GreenCrew(host) if host.patch else ThreadCrew(size)


class GreenCrew:
    """Green threads of a library that has `spawn`, `sleep` and `queue.Queue`."""

    def __init__(self, host: Host) -> None:
        library = import_module(host.modules[0])
        self._spawn: Callable[..., object] = library.spawn
        self.sleep: Callable[[float], None] = library.sleep
        self.queue: Callable[[], Queue] = import_module(f"{library.__name__}.queue").Queue
        self._result = host.result
        self._tasks: list[object] = []

    def start(self, job: Callable[..., object], *args: object) -> None:
        """Start a task; it first runs when the caller waits."""
        self._tasks.append(self._spawn(job, *args))

    def finish(self) -> None:
        """Wait for all tasks, raising the first error."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            getattr(task, self._result)()


class ThreadCrew:
    """Native threads."""

    def __init__(self, size: int) -> None:
        self._pool = ThreadPoolExecutor(size)
        self._futures: list[Future[object]] = []
        self.sleep: Callable[[float], None] = time.sleep
        self.queue: Callable[[], Queue] = queue.SimpleQueue

    def start(self, job: Callable[..., object], *args: object) -> None:
        """Start a thread's work at once."""
        self._futures.append(self._pool.submit(job, *args))

    def finish(self) -> None:
        """Wait for all threads, raising the first error."""
        futures, self._futures = self._futures, []
        for future in futures:
            future.result()
