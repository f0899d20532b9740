"""The connection's lock under OS threads that the interpreter switches as often as it can."""

from __future__ import annotations

import random
import sys
from time import sleep
from types import FrameType
from typing import Any

import pytest

from greenpg import DeadlineExceeded
from greenpg._psycopg2.state import State
from greenpg.threads import backend
from tests.unit.session.simtasks import enter, leave

THREADS = 8
ROUNDS = 1500


@pytest.fixture(autouse=True)
def restless():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Guarded:
    """A counter that only the lock's holder may change."""

    def __init__(self) -> None:
        self.state: Any = State(backend)
        self.count = 0
        self.inside: list[Any] = []
        self.met: list[list[Any]] = []

    def touch(self) -> None:
        me = backend.current()
        self.inside.append(me)
        if len(self.inside) > 1:
            self.met.append(list(self.inside))
        seen = self.count
        for _ in range(20):
            pass
        self.count = seen + 1
        self.inside.remove(me)


def operate(guarded: Guarded, dice: random.Random) -> int:
    guarded.state.enter()
    guarded.touch()
    leave(guarded.state)
    return 1


def hold(guarded: Guarded, dice: random.Random) -> int:
    timeout = dice.choice([None, 0, 0.0001, 0.001])
    try:
        guarded.state.acquire(backend.current(), timeout)
    except DeadlineExceeded:
        return 0
    guarded.touch()
    guarded.state.depth -= 1
    guarded.state.let_go()
    return 1


def work(guarded: Guarded, seed: int, done: list[int]) -> None:
    dice = random.Random(seed)
    done.extend(dice.choice([operate, hold])(guarded, dice) for _ in range(ROUNDS))


@pytest.mark.parametrize("seed", range(3))
def test_lock_is_exclusive_and_never_lost_among_threads(seed):
    guarded = Guarded()
    done: list[int] = []

    threads = [backend.spawn(work, guarded, seed * 100 + n, done) for n in range(THREADS)]
    ended = [thread.join(20) for thread in threads]

    assert ended == [True] * THREADS
    assert guarded.met == []
    assert guarded.count == sum(done)
    assert len(done) == THREADS * ROUNDS
    assert guarded.state.holder is None
    assert not guarded.state.queue


def trace(frame: FrameType, event: str, arg: object) -> Any:
    """Let another thread run before each line of the called code."""
    sleep(0)
    return trace


def enter_when_free(guarded: Guarded, done: list[int], rounds: int, traced: bool) -> None:
    while len(done) < rounds:
        if guarded.state.holder is None:
            sys.settrace(trace if traced else None)
            enter(guarded.state)
            guarded.touch()
            sys.settrace(None)
            leave(guarded.state)
            done.append(1)
        else:
            backend.pause()


@pytest.mark.parametrize(("rounds", "traced"), [(40 * ROUNDS, False), (200, True)])
def test_short_way_in_is_exclusive_too(rounds, traced):
    guarded = Guarded()
    guarded.state.last = backend.current  # so that each is taken for the task that entered last
    done: list[int] = []

    threads = [backend.spawn(enter_when_free, guarded, done, rounds, traced) for _ in range(4)]
    ended = [thread.join(20) for thread in threads]

    assert ended == [True] * 4
    assert guarded.met == []
    assert guarded.count == len(done)
    assert guarded.state.holder is None
