"""A pool in which a call of a borrower's task fails, as where the recursion limit is reached."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest
from greenlet import getcurrent

from greenpg.pool.core import DIRTY
from tests.unit.pool.test_pool import world as world

if TYPE_CHECKING:
    from tests.unit.pool.test_pool import World

POOL = "/greenpg/pool/"
CALLS = range(70)


class Failing:
    """Lets one of a task's calls of the pool's functions fail."""

    def __init__(self, which: int, error: type[Exception]) -> None:
        self.which, self.calls = which, 0
        self._error = error
        self._task = getcurrent()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if code.co_name == "__exit__":  # if it never begins, the connection is collected
            return
        if getcurrent() is self._task and event == "call" and POOL in code.co_filename:
            self.calls += 1
            if self.calls == self.which + 1:
                raise self._error(f"before {frame.f_code.co_name}")


@contextmanager
def failing(which: int, error: type[Exception]) -> Iterator[Failing]:
    fault = Failing(which, error)
    before = sys.gettrace()
    sys.settrace(fault)
    try:
        yield fault
    finally:
        sys.settrace(before)


def loan(world: World, *, dirty: bool = False, suspect: bool = False) -> None:
    if suspect and world.server.made:
        world.server.made[-1].input = True
    with world.lease(2.0) as conn:
        conn.condition = DIRTY if dirty else conn.condition


@pytest.mark.parametrize("error", [RecursionError, MemoryError])
@pytest.mark.parametrize("kind", ["first", "idle", "dirty", "suspect", "waiting"])
def test_a_call_that_fails_costs_no_slot(world, kind, error):
    failed = []

    def hold():
        with world.lease(5.0):
            world.sim.park(0.1)

    def work():
        for which in CALLS:
            if kind not in ("first", "waiting"):
                loan(world)
            if kind == "waiting":
                world.sim.spawn(hold)
                world.sim.park(0.01)
            try:
                with failing(which, error) as fault:
                    loan(world, dirty=kind == "dirty", suspect=kind == "suspect")
            except error as raised:
                failed.append(str(raised))
            world.sim.park(0.5)
            for conn in world.server.made:
                conn.input = False
            state = world.pool.performer.state
            for _ in range(2):
                loan(world)
            assert not state.lent, (which, failed[-1:])
            assert not state.waiters, (which, failed[-1:])
            if kind == "first":
                world.pool.performer.apply(state.drain)
                world.sim.park(0.5)
            if fault.calls <= which:
                return

    world.run(work)

    assert failed
    assert len(set(failed)) >= 5
    assert len(world.server.closed) == len(world.server.made)
    assert not world.pool.performer.state.slots
