"""The seam between the driver and a green-thread library."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, Protocol, TypeAlias

from ._fork_hooks import Order, in_child
from .errors import BackendError

__all__ = [
    "READ",
    "WRITE",
    "Address",
    "Backend",
    "Event",
    "Task",
    "Waiter",
    "after_fork",
    "as_backend",
    "choose",
    "chosen",
    "current",
    "load",
]

READ: Final = 1
WRITE: Final = 2
GROUP: Final = "greenpg.backends"

Address: TypeAlias = tuple[Any, ...]  # one row of getaddrinfo


class Waiter(Protocol):
    """Waits for one connection's socket; it may keep the hub's watcher between waits."""

    def wait(self, fd: int, events: int, timeout: float | None) -> int:
        """Return the ready subset of READ|WRITE, or 0 once `timeout` seconds have passed.

        Between two calls of `close` the descriptor is always the same. Hang-up and error count
        as ready. However it ends, no timer, no late switch into the
        task and nothing that can wake the next owner of the descriptor is left behind.
        """
        ...

    def interrupt(self, exc: BaseException) -> None:
        """Raise `exc` in the task that waits here, if one does; from any thread."""
        ...

    def fileno(self) -> int:
        """Return the duplicate of the socket that it keeps, or -1: a forked child cuts it off."""
        ...

    def close(self) -> None:
        """Leave nothing in the hub; from any thread, any number of times."""
        ...


class Event(Protocol):
    """A flag that tasks wait for; a set before the wait is not lost."""

    def set(self) -> None:
        """Wake all waiting tasks, from any thread; they run later, not inside this call."""
        ...

    def is_set(self) -> bool:
        """Tell whether `set` was called."""
        ...

    def wait(self, timeout: float | None = None) -> bool:
        """Return True once set, or False after `timeout` seconds."""
        ...


class Task(Protocol):
    """Something spawned."""

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end; False after `timeout` seconds. What the task raised stays there."""
        ...

    def kill(self) -> None:
        """Raise the library's exit in the task at its next or present wait; do not wait for it."""
        ...


class Backend(Protocol):
    """What a green library must give, and nothing more.

    Capabilities are "kill", "hub" (there is a place where nothing may wait) and "lazy_spawn"
    (`spawn` never runs the function before it returns).
    """

    @property
    def name(self) -> str:
        """Return the name under which users choose it."""
        ...

    @property
    def exits(self) -> tuple[type[BaseException], ...]:
        """Return the exceptions that end a task; they outrank a timeout."""
        ...

    @property
    def capabilities(self) -> frozenset[str]:
        """Return the names of what not every library can do."""
        ...

    def waiter(self) -> Waiter:
        """Make the waiter of one connection."""
        ...

    def can_wait(self) -> bool:
        """Tell whether the caller may wait: False inside the hub."""
        ...

    def sleep(self, seconds: float) -> None:
        """Suspend this task."""
        ...

    def pause(self) -> None:
        """Let ready tasks, due timers and ready sockets run once."""
        ...

    def spawn(self, fn: Callable[..., object], *args: object) -> Task:
        """Start a task; on a green backend it does not run before this returns."""
        ...

    def current(self) -> Hashable:
        """Return what identifies the running task; equal only to itself."""
        ...

    def event(self) -> Event:
        """Make an event; locks and pool queues are built on it."""
        ...

    def in_thread(self, fn: Callable[..., Any], *args: object) -> Any:
        """Run blocking code in an OS thread and return its result.

        When the waiting task is interrupted, the job runs on.
        """
        ...

    def resolve(self, host: str, port: int) -> Sequence[Address]:
        """Return getaddrinfo's rows for a stream socket; raises its OSError."""
        ...


def after_fork(hook: Callable[[], object]) -> None:
    """Call a backend's `hook` in each forked child, before greenpg cuts off its connections.

    Register a hook once for each process; hooks cannot be taken back (`os.register_at_fork`).
    """
    in_child(Order.BACKEND, hook)


_MEMBERS: Final = (
    "can_wait", "capabilities", "current", "event", "exits", "in_thread", "name", "pause",
    "resolve", "sleep", "spawn", "waiter",
)  # fmt: skip
_chosen: Backend | None = None
_loaded: dict[str, Backend] = {}


def load(name: str) -> Backend:
    """Return the backend registered under `name` in the entry points `greenpg.backends`.

    Raises BackendError if there is none, or if its library is not installed.
    """
    if name not in _loaded:
        from importlib import metadata  # late: importing greenpg must not load socket

        found = {point.name: point for point in metadata.entry_points(group=GROUP)}
        if name not in found:
            known = ", ".join(sorted(found)) or "none"
            raise BackendError(f"unknown backend {name!r}; installed backends: {known}")
        try:
            backend = found[name].load()
        except (ImportError, AttributeError) as err:
            raise BackendError(
                f"backend {name!r} cannot be loaded ({err}); pip install greenpg[{name}]"
            ) from err
        _loaded[name] = _checked(backend)
    return _loaded[name]


def as_backend(which: str | Backend) -> Backend:
    """Return the backend for a name or a backend object; raises BackendError."""
    return load(which) if isinstance(which, str) else _checked(which)


def _checked(backend: Any) -> Backend:
    if isinstance(backend, type):
        raise BackendError(f"backend {backend.__name__} is a class; give an instance of it")
    missing = [name for name in _MEMBERS if not hasattr(backend, name)]
    if missing:
        name = getattr(backend, "name", None) or type(backend).__name__
        raise BackendError(f"backend {name!r} lacks {', '.join(missing)}; see greenpg.backend")
    checked: Backend = backend
    return checked


def choose(which: str | Backend | None) -> Backend | None:
    """Make `which` the default of connections made from now on; None forgets the choice."""
    global _chosen
    _chosen = None if which is None else as_backend(which)
    return _chosen


def chosen() -> Backend | None:
    """Return the backend that was chosen, by `choose` or GREENPG_BACKEND, if any."""
    if _chosen is None and os.environ.get("GREENPG_BACKEND"):
        choose(os.environ["GREENPG_BACKEND"])
    return _chosen


def current() -> Backend:
    """Return the default backend: the chosen one, else `threads`."""
    return chosen() or load("threads")
