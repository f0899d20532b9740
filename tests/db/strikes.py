"""Strikes: what a signal handler raises, wherever CPython checks for signals in a package."""

from __future__ import annotations

import dis
import os
import sys
from types import FrameType
from typing import Any

import greenpg
from greenpg.backend import current

PACKAGES = tuple(os.path.dirname(greenpg.__file__) + end for end in ("/", "_gevent/", "_eventlet/"))
LOOKS = ("CALL", "RESUME", "JUMP_BACKWARD")  # CPython checks for signals after these (ceval.c)


class CtrlC(KeyboardInterrupt):
    pass


class Alarm(Exception):
    """What a program's own signal handler may raise."""


class Strike:
    """Raises its error at the nth place in the packages' code where a signal may land.

    With `again` it raises once more, `again` places later. The entries of functions whose name
    is `sparing` are left out.
    """

    error: type[BaseException] = CtrlC
    packages: tuple[str, ...] = PACKAGES

    def __init__(self, nth: int, again: int | None = None, sparing: str = "") -> None:
        self.place = ""
        self._left: int | None = nth
        self._again = again
        self._sparing = sparing
        self._last: dict[FrameType, str] = {}

    def enter(self, frame: FrameType, event: str, arg: object) -> Any:
        if self._left is None or not frame.f_code.co_filename.startswith(self.packages):
            return None
        if in_finalizer(frame):  # where CPython ignores exceptions
            return None
        self._last[frame] = "" if frame.f_code.co_name == self._sparing else "RESUME"
        frame.f_trace = self._step
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "return" and frame.f_back is not None:
            self._last[frame.f_back] = ""  # no check after a call of Python code
        if event != "opcode" or self._left is None:
            return self._step
        before = self._last.get(frame, "")
        self._last[frame] = now = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        if not current().can_wait():
            return self._step  # the green library handles signals in the hub
        if before.startswith(LOOKS) and now not in ("CALL", "PRECALL", "KW_NAMES"):
            self._left -= 1
            if self._left < 0:
                self._strike(frame)
        return self._step

    def forget(self) -> None:
        self._last.clear()

    def _strike(self, frame: FrameType) -> None:
        name = os.path.basename(frame.f_code.co_filename)
        self.place += f"{name}:{frame.f_lineno} {frame.f_code.co_name}; "
        self._left, self._again = self._again, None
        raise self.error(self.place)


def in_finalizer(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


def struck(operation, conn, strike):
    """Run the operation under fire; return True if Ctrl-C propagated. Keeps none of its frames."""
    sys._getframe().f_trace_opcodes = True  # Python 3.12 requires one before it traces any
    sys.settrace(strike.enter)
    try:
        operation(conn)
    except strike.error:
        return True
    finally:
        sys.settrace(None)
        strike.forget()
    return False
