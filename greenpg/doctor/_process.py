"""Rows about a process: what is patched, which backend was chosen, who waits."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import partial
from typing import Final

from psycopg2 import extensions as ext

from greenpg._connecting.connect import is_hooked
from greenpg._connecting.monkey_patches import PATCHABLE, library, owners
from greenpg._psycopg2.wait_callback import wait_callback
from greenpg.backend import Backend, chosen, load
from greenpg.errors import BackendError

from ._drivers import Drivers, drivers
from .rows import Row

SECTION: Final = "program"


def here() -> list[Row]:
    """Return the rows of this process: monkey-patching, backend, wait callback, connections.

    Nothing is connected or changed, so that a running program may call it.
    """
    patching = _monkey_patching(owners())
    try:
        backend = chosen()
    except BackendError as err:  # of the name in GREENPG_BACKEND
        return [patching, Row(SECTION, "backend", "bad", str(err), "mend GREENPG_BACKEND")]
    rows = [patching, _backend(backend, library()), _callback(backend), _connect(backend)]
    if "psycopg" in sys.modules:
        rows.append(_connect3(backend))
    green = Drivers(is_hooked(), _makes_green3())
    named = library() or (backend.name if backend else "...")
    return [*rows, *drivers(green, partial(_line, named))]


def is_testable() -> bool:
    """Return True if there are tasks to block, of one library: two event loops would hang."""
    patched_by, backend = library(), chosen()
    if patched_by is None or backend is None:
        return patched_by is not None or backend is not None
    return backend.name == patched_by or "hub" not in backend.capabilities


def ticking_backend() -> Backend:
    """Return the backend whose tasks a connection of this program would block."""
    patched_by = library()
    if patched_by is not None:
        with suppress(BackendError):  # a library without a plug-in
            return load(patched_by)
    return chosen() or load("threads")


def _monkey_patching(patched: dict[str, str]) -> Row:
    title = "monkey-patching"
    libraries = sorted(set(patched.values()))
    if not libraries:
        return Row(SECTION, title, "fact", "none")
    if len(libraries) > 1:
        told = ", ".join(f"{name} by {owner}" for name, owner in patched.items())
        return Row(SECTION, title, "bad", told, "let one library patch the process")
    left = [name for name in PATCHABLE if name not in patched]
    fact = f"by {libraries[0]}: {', '.join(patched)}"
    if not left:
        return Row(SECTION, title, "good", fact)
    remedy = "patch everything, before any other import"
    return Row(SECTION, title, "note", f"{fact}, but not {', '.join(left)}", remedy)


def _backend(backend: Backend | None, patched_by: str | None) -> Row:
    if backend is None:
        return _no_backend(patched_by)
    if patched_by is not None and backend.name != patched_by:
        fact = f"{backend.name}, but {patched_by} has patched this process: queries block its tasks"
        return Row(SECTION, "backend", "bad", fact, f"greenpg.use({patched_by!r})")
    is_green = "hub" in backend.capabilities
    return Row(SECTION, "backend", "good" if is_green else "fact", backend.name)


def _no_backend(patched_by: str | None) -> Row:
    fact = "none was chosen: queries block their thread"
    remedy = f"{_patch()}() of the library's plug-in, or greenpg.use(...), or GREENPG_BACKEND"
    if patched_by is not None:
        fact = f"none was chosen, though {patched_by} has patched this process"
        remedy = _line(patched_by)
    return Row(SECTION, "backend", "bad", fact, remedy)


def _callback(backend: Backend | None) -> Row:
    title = "wait callback"
    callback = ext.get_wait_callback()
    if callback is wait_callback:
        return Row(SECTION, title, "good", "greenpg's")
    if callback is None:
        blocks = "none: psycopg2 blocks while it waits"
        brought = "none yet: the first greenpg connection brings it"
        return Row(SECTION, title, "fact", blocks if backend is None else brought)
    name = getattr(callback, "__qualname__", type(callback).__name__)
    fact = f"{callback.__module__}.{name}"
    if backend is None or (_makes_green3() and not is_hooked()):  # not used, or ours comes later
        return Row(SECTION, title, "fact", fact)
    fact += ", in greenpg's place: a kill or timeout costs the connection"
    remedy = "remove the call that set it, such as psycogreen's patch_psycopg"
    return Row(SECTION, title, "bad", fact, remedy)


def _connect(backend: Backend | None) -> Row:
    title = "psycopg2.connect"
    if is_hooked():
        return Row(SECTION, title, "good", "makes greenpg connections")
    fact = "makes plain connections"
    if backend is None or _makes_green3():
        return Row(SECTION, title, "fact", fact)
    fact += ": tasks may not share one, and an interrupt closes it"
    return Row(SECTION, title, "note", fact, "greenpg.connect, or patch_psycopg() at the start")


def _connect3(backend: Backend | None) -> Row:
    """Say how psycopg 3 waits, in a program that has imported it."""
    title = "psycopg.connect"
    if _makes_green3():
        return Row(SECTION, title, "good", "makes greenpg connections")
    fact = "makes plain connections"
    green = library() or (backend.name if backend and "hub" in backend.capabilities else None)
    if green is None:
        return Row(SECTION, title, "fact", fact)
    if _waits_green3():
        fact += ": tasks may not share one, and an interrupt leaves it unusable, its query running"
        return Row(SECTION, title, "note", fact, _line(green))
    fact += f", which block all tasks: psycopg does not wait through {green}"
    explicit = "greenpg.psycopg3" in sys.modules  # whose connections may be the only ones
    return Row(SECTION, title, "note" if explicit else "bad", fact, _line(green))


def _makes_green3() -> bool:
    green = sys.modules.get("greenpg.psycopg3")
    return green is not None and green.is_patched()


def _waits_green3() -> bool:
    """Return True if psycopg waits by Python's module `select`, and a library has patched that.

    psycopg chooses when it is imported: by gevent's patch, of which alone it knows, or in C.
    """
    wait = getattr(sys.modules.get("psycopg.waiting"), "wait", None)
    return getattr(wait, "__module__", "") == "psycopg.waiting" and "select" in owners()


def _patch() -> str:
    return "patch_psycopg3" if "psycopg" in sys.modules else "patch_psycopg"


def _line(library: str, patch: str = "") -> str:
    name = patch or _patch()
    return f"from greenpg_{library} import {name}; {name}()"
