"""Finds what a piece of code left behind: descriptors, threads, green tasks, server sessions."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeAlias

import psycopg2

from .machine import Patience
from .observer import Observer

__all__ = ["Leaked", "Probe", "Sessions", "descriptors", "no_leaks", "tasks", "threads"]

Found: TypeAlias = Mapping[Hashable, str]
Probe: TypeAlias = Callable[[], Found]

DESCRIPTORS: Final = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"


class Leaked(AssertionError):
    """Something is left that was not there before."""


@contextmanager
def no_leaks(
    *probes: Probe, settle: float = 5.0, sleep: Callable[[float], object] = time.sleep
) -> Iterator[None]:
    """Raise Leaked if a probe finds more after the block than before it, for `settle` seconds.

    In a green process `sleep` is the backend's, so that the hub can clean up meanwhile.
    """
    before = [set(probe()) for probe in probes]
    yield
    patience = Patience(settle)
    while left := _left(probes, before):
        gc.collect()
        if not patience.left():
            raise Leaked(f"left behind after {settle:g} s: " + "; ".join(left))
        sleep(0.01)


def descriptors() -> dict[Hashable, str]:
    """Open file descriptors of this process, copies made by dup included."""
    found: dict[Hashable, str] = {}
    for fd in map(int, os.listdir(DESCRIPTORS)):
        with suppress(OSError):
            target = _target(fd)
            found[fd, target] = f"descriptor {fd} ({target})"
    return found


def threads() -> dict[Hashable, str]:
    """OS threads made through `threading`, whether monkey-patched or not."""
    running = (t for t in threading.enumerate() if not isinstance(t, threading._DummyThread))
    return {id(thread): f"thread {thread.name}" for thread in running}


def tasks() -> dict[Hashable, str]:
    """Greenlets of this OS thread that have not ended, of any green library.

    Those of other threads are left out: a library's thread pool keeps a worker in each.
    """
    library = sys.modules.get("greenlet")
    if library is None:
        return {}
    main = _main_of(library.getcurrent())
    found = (thing for thing in gc.get_objects() if issubclass(type(thing), library.greenlet))
    ours = (task for task in found if task is not main and _main_of(task) is main)
    return {weakref.ref(task): f"task {task!r}" for task in ours if not task.dead}


class Sessions:
    """Server sessions under one application name, asked over a connection of its own.

    The connection is psycopg2's own and waits plainly, whatever is patched in this process.
    """

    def __init__(self, dsn: str, application_name: str) -> None:
        self._dsn = dsn
        self._name = application_name
        self._observer = Observer(dsn)

    def __call__(self) -> dict[Hashable, str]:
        """Return the sessions that exist now."""
        try:
            return self._observer.sessions(self._name)
        except psycopg2.OperationalError:  # the test restarted the server
            self.close()
            self._observer = Observer(self._dsn)
            return self._observer.sessions(self._name)

    def close(self) -> None:
        """Close the connection."""
        self._observer.close()


def _main_of(task: Any) -> Any:
    while task.parent is not None:
        task = task.parent
    return task


def _target(fd: int) -> str:
    if DESCRIPTORS.startswith("/proc"):
        return os.readlink(f"{DESCRIPTORS}/{fd}")
    status = os.fstat(fd)
    return f"mode {status.st_mode:o}, inode {status.st_dev}:{status.st_ino}"


def _left(probes: tuple[Probe, ...], before: list[set[Hashable]]) -> list[str]:
    found = [(probe(), known) for probe, known in zip(probes, before, strict=True)]
    return [text for now, known in found for key, text in now.items() if key not in known]
