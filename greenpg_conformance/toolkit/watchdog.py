"""Ends a process whose test hangs, with the stacks of all its threads and greenlets."""

from __future__ import annotations

import faulthandler
import gc
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

from greenpg.threads import pristine

__all__ = ["Watchdog", "stacks"]

SECOND: Final = 1.0
GRACE: Final = 2.0
_thread = pristine("_thread")


class Watchdog:
    """An OS thread of its own, out of reach of monkey-patching; it also ends an orphan.

    A process that hangs without giving up the GIL is ended by faulthandler a little later.
    """

    def __init__(self, report: Callable[[str], object]) -> None:
        self._report = report
        self._parent = os.getppid()
        self._deadline: float | None = None
        self._changed = _thread.allocate_lock()
        self._changed.acquire()
        _thread.start_new_thread(self._watch, ())

    def arm(self, seconds: float) -> None:
        """End the process unless `disarm` comes within this time."""
        self._deadline = time.monotonic() + seconds
        faulthandler.dump_traceback_later(seconds + GRACE, exit=True)

    def disarm(self) -> None:
        """Let the process live on."""
        self._deadline = None
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while os.getppid() == self._parent:
            self._changed.acquire(True, SECOND / 2)
            deadline = self._deadline
            if deadline is not None and time.monotonic() > deadline:
                gc.unfreeze()  # the worker has set the greenlets of its baseline aside
                self._report(stacks())
                break
        os._exit(1)


def stacks() -> str:
    """Return the stacks of all threads and of all greenlets that wait."""
    frames: dict[str, Any] = {f"thread {n}": f for n, f in sys._current_frames().items()}
    kind: Any = getattr(sys.modules.get("greenlet"), "greenlet", None)
    for thing in gc.get_objects() if kind else ():
        if isinstance(thing, kind) and not thing.dead and thing.gr_frame is not None:
            frames[f"greenlet {thing!r}"] = thing.gr_frame
    same: dict[str, list[str]] = {}
    for who, frame in frames.items():
        same.setdefault("".join(traceback.format_stack(frame)), []).append(who)
    return "\n".join(f"{', '.join(who)}:\n{stack}" for stack, who in same.items())
