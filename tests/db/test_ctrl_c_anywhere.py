"""Ctrl-C wherever the interpreter looks for signals, from an operation's first call to its last."""

from __future__ import annotations

import dis
import os
import sys
from types import FrameType
from typing import Any

import pytest

import greenpg
from greenpg.backend import current

PACKAGES = tuple(os.path.dirname(greenpg.__file__) + end for end in ("/", "_gevent/", "_eventlet/"))
LOOKS = ("CALL", "RESUME", "JUMP_BACKWARD")  # after these the interpreter looks for signals
STEP = 3  # places in one test: all of them take long


class CtrlC(KeyboardInterrupt):
    pass


class Strike:
    """Raises CtrlC at the nth place in greenpg's code where a signal may land."""

    def __init__(self, nth: int) -> None:
        self.place = ""
        self._left = nth
        self._last: dict[FrameType, str] = {}

    def enter(self, frame: FrameType, event: str, arg: object) -> Any:
        if self.place or not frame.f_code.co_filename.startswith(PACKAGES):
            return None
        if in_finalizer(frame):  # where Python swallows it
            return None
        # at the entry of an __exit__ Ctrl-C forestalls the end of any with statement of Python
        self._last[frame] = "" if frame.f_code.co_name == "__exit__" else "RESUME"
        frame.f_trace = self._step
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "return" and frame.f_back is not None:
            self._last[frame.f_back] = ""  # it does not look after a call of Python code
        if event != "opcode" or self.place:
            return self._step
        before = self._last.get(frame, "")
        self._last[frame] = now = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        if not current().can_wait():
            return self._step  # in the hub it is the library's affair
        if before.startswith(LOOKS) and now not in ("CALL", "PRECALL", "KW_NAMES"):
            self._left -= 1
            if self._left < 0:
                name = os.path.basename(frame.f_code.co_filename)
                self.place = f"{name}:{frame.f_lineno} {frame.f_code.co_name}"
                raise CtrlC(self.place)
        return self._step


def in_finalizer(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


def execute(conn):
    conn.cursor().execute("select pg_sleep(0.01)")


def commit(conn):
    conn.commit()


def block(conn):
    with conn.exclusive():
        conn.cursor().execute("select 1")


def pipeline(conn):
    with conn.pipeline() as pipe:
        pipe.execute("select 1")


def answer(conn):
    """Use the connection as another task, if it lives."""
    if conn.closed:
        return 42
    conn.rollback()
    cur = conn.cursor()
    cur.execute("select 42")
    found = cur.fetchone()[0]
    conn.rollback()
    return found


@pytest.mark.parametrize("nth", range(STEP))
@pytest.mark.parametrize("operation", [execute, commit, block, pipeline])
def test_lock_is_free_and_the_connection_right_or_closed(connect, spawn, operation, nth):
    while True:
        conn = connect()
        conn.cursor().execute("select 1")
        strike, outcome = Strike(nth), None

        sys._getframe().f_trace_opcodes = True  # Python 3.12 wants one before it traces any
        sys.settrace(strike.enter)
        try:
            operation(conn)
        except CtrlC as exc:
            outcome = exc
        finally:
            sys.settrace(None)

        if not strike.place:
            break
        assert outcome is not None, strike.place
        assert spawn(answer, conn).result() == 42, strike.place
        assert answer(conn) == 42, strike.place
        conn.close()
        nth += STEP
    assert nth > STEP
