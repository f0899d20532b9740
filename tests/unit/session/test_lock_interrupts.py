"""Ctrl-C anywhere in the lock's code never leaves the lock held forever."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple

import pytest

from greenpg._psycopg2 import state as _state
from greenpg._psycopg2.state import State
from greenpg._session import lock as _lock
from greenpg._session import session as _session
from greenpg.threads import backend
from tests.unit.session import simtasks
from tests.unit.session.simtasks import leave

PATIENCE = 2.0
CODE = {module.__file__ for module in (_state, _lock, _session, simtasks)}
# `leave` stands for code in the midst of a method
SPARED = (leave.__code__,)
LOOKS_FOR_SIGNALS = ("CALL", "RESUME", "JUMP_BACKWARD")  # after these CPython does (ceval.c)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(_lock, "_LOOK", 0.02)


class CtrlC:
    """Raises KeyboardInterrupt at the nth place in the lock's code where a signal may land."""

    def __init__(self, nth: int) -> None:
        self.place = ""
        self._left = nth
        self._last: dict[FrameType, str] = {}

    def __enter__(self) -> CtrlC:
        sys._getframe().f_trace_opcodes = True  # Python 3.12 requires one before it traces any
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _enter(self, frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_filename not in CODE:
            return None
        if frame.f_code not in SPARED:
            self._last[frame] = "RESUME"
        frame.f_trace = self._step  # Python 3.13 requires it before the next line
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, frame: FrameType, event: str, arg: object) -> Any:
        if event != "opcode":
            return self._step
        before = self._last.get(frame, "")
        self._last[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        if before.startswith(LOOKS_FOR_SIGNALS):
            self._left -= 1
            if self._left < 0:
                self.place = f"{frame.f_code.co_name}, line {frame.f_lineno}"
                raise KeyboardInterrupt
        return self._step


def use(state: State) -> None:
    """One operation, as the connection's and the cursor's methods are written."""
    state.enter()
    leave(state)


def block(state: State) -> None:
    state.acquire(state.current())
    try:
        use(state)
    finally:
        state.depth -= 1
        state.let_go()


class Scene(NamedTuple):
    """A lock, the interrupted operation, and other tasks that acquire the lock."""

    state: State
    act: Callable[[State], None]
    others: list[Any]


def alone() -> Scene:
    return Scene(State(backend), use, [])


def alone_in_a_block() -> Scene:
    return Scene(State(backend), block, [])


def leaving_to_one_who_waits() -> Scene:
    state = State(backend)
    state.enter()
    other = backend.spawn(use, state)
    while not state.queue:
        backend.sleep(0.001)
    return Scene(state, leave, [other])


def waiting_for_one_who_leaves() -> Scene:
    state = State(backend)
    holds = backend.event()

    def hold() -> None:
        state.enter()
        holds.set()
        while not state.queue:
            backend.sleep(0.001)
        leave(state)

    other = backend.spawn(hold)
    holds.wait(PATIENCE)
    return Scene(state, use, [other])


def stuck_places(scene: Callable[[], Scene]) -> Iterator[str]:
    """Interrupt at one place after the other; return those after which the lock stays held."""
    interrupted = True
    nth = 0
    while interrupted:
        state, act, others = scene()
        ctrl_c = CtrlC(nth)
        try:
            with ctrl_c:
                act(state)
            interrupted = False
        except KeyboardInterrupt:
            nth += 1
        others.append(backend.spawn(use, state))
        if not all(task.join(PATIENCE) for task in others):
            yield ctrl_c.place
            for waiting in [*state.queue, state.granted]:
                if waiting is not None:
                    waiting.event.set()
    assert nth > 3, "the tracing is out of order"


@pytest.mark.parametrize(
    "scene", [alone, alone_in_a_block, leaving_to_one_who_waits, waiting_for_one_who_leaves]
)
def test_interrupt_at_any_place_keeps_nobody_out(scene):
    assert list(stuck_places(scene)) == []
