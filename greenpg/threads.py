"""The built-in backend: OS threads and poll(); the default, and a complete example of a backend."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from importlib.machinery import BuiltinImporter, PathFinder
from importlib.util import module_from_spec
from itertools import chain, islice, repeat
from math import inf
from posix import close, read, write  # a monkey-patch may have replaced those in os
from types import ModuleType
from typing import Any, Final

from .backend import READ, WRITE, Address

__all__ = [
    "ThisThread", "Threads", "backend", "delay", "duplicate", "is_connected", "pristine",
    "this_thread", "write_check",
]  # fmt: skip


def pristine(name: str) -> ModuleType:
    """Return a fresh copy of a C module, as it was before any monkey-patching."""
    spec = BuiltinImporter.find_spec(name) or PathFinder.find_spec(name)
    if spec is None or spec.loader is None:
        raise ImportError(f"module {name!r} is neither built in nor an extension module", name=name)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_thread = pristine("_thread")
_select = pristine("select")
_time = pristine("time")
_Closing: Final[Any] = getattr(_select, "epoll", None) or getattr(_select, "kqueue", None)
_BAD: Final = _select.POLLERR | _select.POLLHUP | _select.POLLNVAL
_LONGEST: Final = 2_000_000.0  # seconds; poll() takes an int of milliseconds
_LONGEST_DELAY: Final = 1e9  # seconds
_SHORT: Final = 0.01  # seconds; only a longer wait needs the pipe
_MASKS: Final = {
    READ: _select.POLLIN,
    WRITE: _select.POLLOUT,
    READ | WRITE: _select.POLLIN | _select.POLLOUT,
}


class ThisThread:
    """Identifies one OS thread; `dead` is true once that has ended.

    The thread's ident does not do: a later thread may have the same.
    """

    __slots__ = ("__weakref__", "dead", "ident")

    def __init__(self) -> None:
        self.ident: int = _thread.get_ident()
        self.dead = False

    def __repr__(self) -> str:
        return f"<OS thread {self.ident}{', ended' if self.dead else ''}>"


class _End:
    """Is freed with the thread's local storage."""

    __slots__ = ("_thread",)

    def __init__(self, thread: ThisThread) -> None:
        self._thread = thread

    def __del__(self) -> None:
        self._thread.dead = True


class _Local(_thread._local):  # type: ignore[misc,name-defined]  # of a module without stubs
    def __init__(self) -> None:
        self.thread = ThisThread()
        self._end = _End(self.thread)


# in C alone, which takes half as long as a Python function: each operation calls it
this_thread: Final[Callable[[], ThisThread]] = partial(getattr, _Local(), "thread")


def duplicate(fd: int) -> Any:
    """Return a duplicate of a descriptor, which is closed by its `close()`, or when it is freed.

    Both happen in C, since no memory or depth may be left for a Python function, and Ctrl-C may
    land in one. The type is that of an epoll or kqueue object: it closes any descriptor, and
    unlike a socket's or a file's it gives no ResourceWarning.
    """
    return next(map(_Closing.fromfd, map(os.dup, (fd,))))  # one call, for Ctrl-C


class Waiter:
    """Polls the socket and, in a long wait, also a pipe through which threads interrupt the wait.

    An interrupt during the first 10 ms takes effect when these are over, so that most connections
    never need a pipe. Python runs signal handlers only between bytecode instructions (library
    manual, "Execution of Python signal handlers"): the pipe is made and closed by single calls
    into C, so that Ctrl-C can leak neither of its ends.
    """

    __slots__ = ("_error", "_events", "_fd", "_pipe", "_piped", "_poll", "_waiting")

    def __init__(self) -> None:
        self._poll: Any = None
        self._pipe: list[int] = []
        self._fd = -1
        self._events = 0
        self._error: BaseException | None = None
        self._waiting = self._piped = False

    def wait(self, fd: int, events: int, timeout: float | None) -> int:
        if fd != self._fd or events != self._events:
            self._watch(fd, events)
        if not self._waiting:  # else it was expected
            self._error = None
        self._waiting = True
        try:
            if timeout is None or timeout > _SHORT:
                ready = self._poll.poll(_SHORT * 1000)
                if not ready and self._error is None:
                    ready = self._wait_on(
                        None if timeout is None or timeout > _LONGEST else timeout - _SHORT
                    )
            else:
                ready = self._poll.poll(max(timeout, 0) * 1000)
        finally:
            self._waiting = False
        if self._error is not None:
            raise self._error
        return _subset(ready[0][1], events) if ready else 0

    def _watch(self, fd: int, events: int) -> None:
        if self._poll is None:
            self._poll = _select.poll()
        elif self._fd not in (-1, fd):
            self._poll.unregister(self._fd)
        self._poll.register(fd, _MASKS[events])
        self._fd, self._events = fd, events

    def _wait_on(self, timeout: float | None) -> list[tuple[int, int]]:
        if not self._pipe:
            try:
                # pipe() and the store in one call into C: Ctrl-C cannot land between the two
                self._pipe.extend(chain.from_iterable(islice(iter(os.pipe, None), 1)))
            except OSError:  # no descriptor is left
                return self._wait_in_steps(timeout)
        end = self._pipe[0]
        poll = _select.poll()
        poll.register(end, _select.POLLIN)
        poll.register(self._fd, _MASKS[self._events])
        self._piped = True
        try:
            while self._error is None:  # if set by now, the other thread did not see _piped
                ready = dict(poll.poll(None if timeout is None else timeout * 1000))
                if end not in ready:
                    return list(ready.items())
                read(end, 1)  # perhaps written by an interrupt that came after the previous wait
        finally:
            self._piped = False
        return []

    def _wait_in_steps(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait without a pipe: an interrupt takes effect within 10 ms."""
        deadline = inf if timeout is None else _time.monotonic() + timeout
        while self._error is None and (left := deadline - _time.monotonic()) > 0:
            ready: list[tuple[int, int]] = self._poll.poll(min(_SHORT, left) * 1000)
            if ready:
                return ready
        return []

    def interrupt(self, exc: BaseException) -> None:
        if self._waiting and self._error is None:
            self._error = exc
            if self._piped:
                write(self._pipe[1], b"!")

    def expect(self, wait: bool) -> None:
        """Let an interrupt from now on end the next wait, or no longer."""
        self._error = None
        self._waiting = wait

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        self._poll, self._fd = None, -1
        _close_all(self._pipe)

    def __del__(self) -> None:
        """Close the pipe, in case Ctrl-C ended `close` or `__init__` at its entry.

        The garbage collector may call this before the finalizer that calls `close`.
        """
        _close_all(getattr(self, "_pipe", []))


def _close_all(fds: list[int]) -> None:
    """Close descriptors, each taken from the list and closed in one call into C."""
    try:  # noqa: SIM105  suppress() costs three Python calls, and needs a deeper stack
        any(map(close, map(fds.pop, repeat(-1, len(fds)))))
    except IndexError:  # another thread closes too
        pass


@lru_cache(maxsize=64)
def write_check(fd: int) -> Callable[[int], list[object]]:
    """Return a `poll` method for WRITE: called with 0, it returns a true value if `fd` is writable.

    The method refers to the descriptor by number only, so it also serves that number's next owner.
    """
    poll = _select.poll()
    poll.register(fd, _select.POLLOUT)
    check: Callable[[int], list[object]] = poll.poll
    return check


def delay(timeout: float) -> float:
    """Return the seconds of a timer, which no loop can have below 0, nor all without end."""
    return min(max(timeout, 0), _LONGEST_DELAY)


def is_connected(fd: int) -> bool:
    """Return True if a socket is connected; it is until both sides have hung up, or one resets."""
    if fd < 0:
        return False
    poll = _select.poll()
    poll.register(fd, 0)
    return not poll.poll(0)


def _subset(flags: int, events: int) -> int:
    if flags & _BAD:
        return events
    return (READ if flags & _select.POLLIN else 0) | (WRITE if flags & _select.POLLOUT else 0)


class Event:
    """A flag that threads wait for; each waiting thread blocks on a lock of its own."""

    __slots__ = ("_flag", "_locks")

    def __init__(self) -> None:
        self._flag = False
        self._locks: list[Any] = []

    def set(self) -> None:
        self._flag = True
        while self._locks:
            try:
                lock = self._locks.pop()
            except IndexError:
                return
            lock.release()

    def is_set(self) -> bool:
        return self._flag

    def wait(self, timeout: float | None = None) -> bool:
        if self._flag:
            return True
        lock = _thread.allocate_lock()
        lock.acquire()
        self._locks.append(lock)
        if not self._flag:  # a set() before this line may have missed our lock
            lock.acquire(True, -1 if timeout is None or timeout > _LONGEST else max(timeout, 0))
        with suppress(ValueError):  # set() has removed it
            self._locks.remove(lock)
        return self._flag


class Task:
    """A thread that runs one function."""

    __slots__ = ("_done", "_fn")

    def __init__(self, fn: Callable[..., object], args: tuple[object, ...]) -> None:
        self._done = Event()
        self._fn = fn
        _thread.start_new_thread(self._run, args)

    def _run(self, *args: object) -> None:
        try:
            self._fn(*args)
        except SystemExit:
            pass
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            self._done.set()

    def join(self, timeout: float | None = None) -> bool:
        return self._done.wait(timeout)

    def kill(self) -> None:
        """Do nothing: an OS thread cannot be killed, and `capabilities` lacks "kill"."""


class Threads:
    """Blocking waits in OS threads, even in a monkey-patched process."""

    name: Final = "threads"
    exits: Final[tuple[type[BaseException], ...]] = (KeyboardInterrupt, SystemExit)
    capabilities: Final[frozenset[str]] = frozenset()

    current = staticmethod(this_thread)
    sleep = staticmethod(_time.sleep)
    waiter = Waiter
    event = Event

    def can_wait(self) -> bool:
        return True

    def pause(self) -> None:
        _time.sleep(0)

    def spawn(self, fn: Callable[..., object], *args: object) -> Task:
        return Task(fn, args)

    def soon(self, fn: Callable[[], object]) -> None:
        fn()

    def in_thread(self, fn: Callable[..., Any], *args: object) -> Any:
        outcome: list[tuple[Any, BaseException | None]] = []

        def run() -> None:
            try:
                outcome.append((fn(*args), None))
            except BaseException as err:
                outcome.append((None, err))

        Task(run, ()).join()
        value, error = outcome[0]
        if error is not None:
            raise error
        return value

    def resolve(self, host: str, port: int) -> Sequence[Address]:
        import _socket  # late: importing greenpg must not load it before a monkey-patch

        return list(self.in_thread(_socket.getaddrinfo, host, port, 0, _socket.SOCK_STREAM))


backend: Final = Threads()
