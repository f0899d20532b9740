"""Corrects measured times for the machine: waits for a core, and moments when it stood still."""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from greenpg._helper_process import Child

__all__ = [
    "CoreWaits", "Patience", "Stopwatch", "clock", "clock_of_this_thread", "clock_watch",
    "stood_still",
]  # fmt: skip

_TASKS: Final = "/proc/self/task"
_SCHEDULER: Final = f"{_TASKS}/{{}}/schedstat"
_TEXT: Final = 80  # bytes, more than it has

# Letting the interpreter go for each call would cost a turn of every other thread that is busy.
_libc: Final = ctypes.PyDLL(None)

_clock_watch: Child | None = None


class CoreWaits:
    """How long the OS threads of this process were ready to run but had no core.

    More than one counts, since one that holds the interpreter without a core holds up the others:
    those that `threading` knows, or `threads()`. Nothing counts where the system does not tell.
    """

    def __init__(self, threads: Callable[[], Iterable[int]] | None = None) -> None:
        self._threads = threads or _python_threads
        self._known = self._waits()

    def _waits(self) -> dict[int, float]:
        return {thread: _waited(thread) for thread in self._threads()}

    def since(self) -> float:
        """Return the seconds since the last call, the first one since this was made."""
        before, self._known = self._known, self._waits()
        grown = (waited - before.get(thread, 0.0) for thread, waited in self._known.items())
        return sum(seconds for seconds in grown if seconds > 0)  # one that has just ended counts 0


class Patience:
    """Seconds after which a test gives up; those that the machine gave to others are added.

    It is for what must happen some time, where the number of seconds promises nothing.
    """

    def __init__(self, seconds: float) -> None:
        self._waits = CoreWaits(_all_threads)  # tasks that are OS threads bypass `threading`
        self._looked = time.monotonic()
        self._end = self._looked + seconds

    def left(self) -> float:
        """Return the seconds that are left; 0 if this is over."""
        now = time.monotonic()
        if now >= self._end:  # not before: each look costs a little for each thread
            self._end += min(self._waits.since(), now - self._looked)
            self._looked = now
        return max(self._end - now, 0.0)


def clock() -> float:
    """Return the seconds that this thread has waited or run; waiting for a core does not count."""
    return time.monotonic() - _waited(threading.get_native_id())


def clock_of_this_thread() -> Callable[[], float]:
    """Return `clock` for one thread, faster; it keeps a descriptor open for good."""
    path = _SCHEDULER.format(threading.get_native_id())
    if not os.path.exists(path):
        return time.monotonic
    descriptor, text = os.open(path, os.O_RDONLY), ctypes.create_string_buffer(_TEXT)

    def clock() -> float:
        moment = time.monotonic()
        _libc.pread(descriptor, text, _TEXT - 1, ctypes.c_long(0))
        return moment - _seconds(text.value)

    return clock


def clock_watch() -> Child:
    """Return the process that `stood_still` asks, started at the first call; it ends with this one.

    It can tell of nothing that was before its start.
    """
    global _clock_watch
    if _clock_watch is None:
        _clock_watch = Child(f"{__package__}.clock_watch")
        atexit.register(_clock_watch.close)
    return _clock_watch


def stood_still(began: float, ended: float) -> float:
    """Return how long a core stood still between two readings of time.monotonic(), in seconds."""
    return float(clock_watch().ask("stood_still", began=began, ended=ended)["seconds"])


class Stopwatch:
    """Measures from its making on; what `clock` leaves out and standstills do not count."""

    def __init__(self) -> None:
        clock_watch()
        self._began, self._ready = time.monotonic(), clock()

    def seconds(self) -> float:
        """Return the seconds so far; never more than have passed."""
        ended, ready = time.monotonic(), clock()
        return ready - self._ready - stood_still(self._began, ended)

    def lasted(self, seconds: float, precision: float) -> bool:
        """Return True if it has taken so long; a timer goes on in a standstill."""
        elapsed = time.monotonic() - self._began
        return self.seconds() - precision < seconds < elapsed + precision


def _python_threads() -> set[int]:
    others = (getattr(thread, "native_id", None) for thread in threading.enumerate())
    return {thread for thread in (threading.get_native_id(), *others) if thread}


def _all_threads() -> list[int]:
    """Return all threads of this process; slow, as it lets the interpreter go for each of them."""
    try:
        return [int(name) for name in os.listdir(_TASKS)]
    except OSError:  # another system, or no descriptor is left
        return []


def _waited(thread: int) -> float:
    """Return how long an OS thread has waited for a core in its life; 0 if unknown."""
    descriptor = _libc.open(_SCHEDULER.format(thread).encode(), 0)
    if descriptor < 0:
        return 0.0
    text = ctypes.create_string_buffer(_TEXT)
    _libc.read(descriptor, text, len(text) - 1)
    _libc.close(descriptor)
    return _seconds(text.value)


def _seconds(text: bytes) -> float:
    """Return the second figure of a schedstat, in seconds."""
    figures = text.split()
    return int(figures[1]) / 1e9 if figures else 0.0
