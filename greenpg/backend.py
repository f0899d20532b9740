"""The backend interface: what the driver requires of a green-thread library.

In greenpg's sources, the hub is the greenlet or callback context that runs the event loop; nothing
may wait there. Only the backends that have the capability "hub" have one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Final, Protocol, TypeAlias

from ._fork_hooks import Order, in_child
from .errors import BackendError

__all__ = [
    "READ", "WRITE", "Address", "Backend", "Event", "Parked", "Task", "Waiter", "after_fork",
    "as_backend", "choose", "chosen", "current", "has_ended", "is_stranded", "load", "parking",
    "soon",
]  # fmt: skip

READ: Final = 1
WRITE: Final = 2
GROUP: Final = "greenpg.backends"

Address: TypeAlias = tuple[Any, ...]  # one row of getaddrinfo


class Waiter(Protocol):
    """Waits for one connection's socket; may keep its watcher in the hub between waits."""

    def wait(self, fd: int, events: int, timeout: float | None) -> int:
        """Return the ready subset of READ|WRITE, or 0 once `timeout` seconds have passed.

        Between two calls of `close` the descriptor is always the same. Hang-up and error count
        as ready. However the wait ends, it leaves behind no timer, no late switch into the
        task and nothing that can wake the next owner of the descriptor.
        """

    def interrupt(self, exc: BaseException) -> None:
        """Raise `exc` in the task that waits here, if there is one; callable from any thread."""

    def fileno(self) -> int:
        """Return the descriptor of the duplicate socket that the waiter keeps, or -1 if none.

        In a forked child greenpg replaces that descriptor, so that it no longer leads to the
        parent's session.
        """

    def close(self) -> None:
        """Remove everything from the hub; callable from any thread, any number of times."""


class Event(Protocol):
    """A flag that tasks wait for; a `set` before the wait is not lost."""

    def set(self) -> None:
        """Wake all waiting tasks, from any thread; they run later, not inside this call."""

    def is_set(self) -> bool:
        """Return True if `set` was called."""

    def wait(self, timeout: float | None = None) -> bool:
        """Return True once set, or False after `timeout` seconds."""


class Parked(Protocol):
    """What a task waits for in `park`: whoever sets `ended` calls `unpark` next."""

    ended: bool
    waiter: Any  # the backend's own, while a task waits; else None


class Task(Protocol):
    """A spawned task.

    Its attribute `stranded`, if it has one, is true once it will never run again, since its hub
    was destroyed.
    """

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end; return False after `timeout` seconds. The task's errors stay there."""

    def kill(self) -> None:
        """Raise the library's exit in the task at its current or next wait, without waiting."""


class Backend(Protocol):
    """What a green library must provide, and nothing more.

    An attribute `soon`, if there is one, is a faster `spawn` for functions that wait for nothing:
    it may call them in the hub, or at once where tasks are OS threads, and returns nothing.

    Attributes `park` and `unpark`, if there are any, are a faster Event. `park(what, timeout=None)`
    suspends the task until the Parked has ended, or the timeout has passed. `unpark(those)` makes
    the tasks that wait for these run soon, not inside the call; it is called in the OS thread of
    the tasks. While a task is parked, others wait for sockets or timers: it need not hold the
    hub's loop.

    Capabilities are "kill", "hub" (there is a hub, where nothing may wait) and "lazy_spawn"
    (`spawn` never runs the function before it returns).
    """

    @property
    def name(self) -> str:
        """Return the name by which users choose the backend."""

    @property
    def exits(self) -> tuple[type[BaseException], ...]:
        """Return the exceptions that end a task; they take precedence over a timeout."""

    @property
    def capabilities(self) -> frozenset[str]:
        """Return the names of the optional features that this library has."""

    def waiter(self) -> Waiter:
        """Make the waiter of one connection."""

    def can_wait(self) -> bool:
        """Return True if the caller may wait; False in the hub, and while the interpreter ends."""

    def sleep(self, seconds: float) -> None:
        """Suspend this task for `seconds`."""

    def pause(self) -> None:
        """Let ready tasks, due timers and ready sockets run once."""

    def spawn(self, fn: Callable[..., object], *args: object) -> Task:
        """Start a task; on a green backend it does not run before this call returns."""

    def current(self) -> Hashable:
        """Return a value that identifies the running task; it is equal only to itself.

        Its attribute `dead`, if it has one, is true once the task has ended.
        """

    def event(self) -> Event:
        """Make an event; locks and pool queues are built on events."""

    def in_thread(self, fn: Callable[..., Any], *args: object) -> Any:
        """Run blocking code in an OS thread and return its result, or raise its error.

        If the waiting task is interrupted, the code in the thread runs on to its end.
        """

    def resolve(self, host: str, port: int) -> Sequence[Address]:
        """Return getaddrinfo's rows for a stream socket; raise its OSError."""


def soon(backend: Backend) -> Callable[[Callable[[], object]], object]:
    """Return what calls a function that does not wait, once other tasks had their turn."""
    found: Callable[[Callable[[], object]], object] = getattr(backend, "soon", backend.spawn)
    return found


def parking(backend: Backend) -> tuple[Callable[..., None], Callable[[Sequence[Parked]], object]]:
    """Return `park` and `unpark` of a backend, or what does the same with its events."""
    found = getattr(backend, "park", None), getattr(backend, "unpark", None)
    if found[0] is not None and found[1] is not None:
        return found[0], found[1]

    def park(what: Parked, timeout: float | None = None) -> None:
        what.waiter = event = backend.event()
        try:
            if not what.ended:  # an OS thread may have ended it meanwhile
                event.wait(timeout)
        finally:
            what.waiter = None

    return park, _set_all


def _set_all(those: Sequence[Parked]) -> None:
    for what in those:
        event = what.waiter
        if event is not None:
            event.set()


def has_ended(task: Hashable) -> bool:
    """Return True if a task, as `Backend.current` identified it, is known to have ended."""
    return bool(getattr(task, "dead", False))


def is_stranded(task: Task | None) -> bool:
    """Return True if a spawned task will never run again, though it has not ended."""
    return bool(getattr(task, "stranded", False))


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

    Raises BackendError if there is none, or if its library cannot be imported.
    """
    if name not in _loaded:
        from importlib import metadata  # late: importing greenpg must not load socket

        found = {point.name: point for point in metadata.entry_points(group=GROUP)}
        if name not in found:
            raise BackendError(f"unknown backend {name!r}; installed backends: {_known(found)}")
        try:
            backend = found[name].load()
        except (ImportError, AttributeError) as err:
            raise BackendError(f"backend {name!r} cannot be loaded: {err}") from err
        _loaded[name] = _checked(backend)
    return _loaded[name]


def as_backend(which: str | Backend) -> Backend:
    """Return the backend for a name or a backend object; raises BackendError."""
    if isinstance(which, str):
        return load(which)
    if not any(hasattr(which, name) for name in _MEMBERS):
        from importlib import metadata  # late, as in `load`

        known = _known(point.name for point in metadata.entry_points(group=GROUP))
        raise BackendError(f"{which!r} is not a backend; give a name ({known}) or a Backend")
    return _checked(which)


def _checked(backend: Any) -> Backend:
    if isinstance(backend, type):
        raise BackendError(f"backend {backend.__name__} is a class; pass an instance of it")
    missing = [name for name in _MEMBERS if not hasattr(backend, name)]
    if missing:
        name = getattr(backend, "name", None) or type(backend).__name__
        raise BackendError(f"backend {name!r} lacks {', '.join(missing)}; see greenpg.backend")
    checked: Backend = backend
    return checked


def _known(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def choose(which: str | Backend | None) -> Backend | None:
    """Make `which` the default backend of new connections; None undoes the choice."""
    global _chosen
    _chosen = None if which is None else as_backend(which)
    return _chosen


def chosen() -> Backend | None:
    """Return the backend chosen by `choose` or GREENPG_BACKEND, or None."""
    if _chosen is None and os.environ.get("GREENPG_BACKEND"):
        choose(os.environ["GREENPG_BACKEND"])
    return _chosen


def current() -> Backend:
    """Return the default backend: the chosen one, or else `threads`."""
    return chosen() or load("threads")
