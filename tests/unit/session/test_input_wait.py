"""The wait for data from the server, and wake-ups from other OS threads."""

from __future__ import annotations

from socket import socketpair
from types import SimpleNamespace

import pytest

from greenpg._session import input_wait
from greenpg._session.input_wait import InputWait, _Wake, wait_while_held
from greenpg.backend import READ
from greenpg.threads import Threads

PATIENCE = 10.0


class Scene(Threads):
    """A connection's waiter and backend whose interrupt takes until the waiting thread pauses."""

    def __init__(self, monkeypatch):
        monkeypatch.setattr(input_wait, "wait_for_input", self.wait_for_input)
        self.interrupts = []
        self.waits, self.data, self.interrupting, self.paused = (self.event() for _ in range(4))
        self.conn = SimpleNamespace(
            closed=0, _greenpg_state=SimpleNamespace(backend=self, waiter=self)
        )

    def wait_for_input(self, conn, timeout, events=READ):
        self.waits.set()
        return self.data.wait(PATIENCE if timeout is None else timeout)

    def interrupt(self, exc):
        self.interrupting.set()
        self.paused.wait(PATIENCE)
        self.interrupts.append(exc)

    def pause(self):
        self.paused.set()
        super().pause()


@pytest.fixture
def scene(monkeypatch):
    return Scene(monkeypatch)


def test_wait_outlasts_an_interrupt_that_is_under_way(scene):
    waiting = InputWait(scene.conn)
    seen = []

    def wait():
        waiting.wait(None, lambda: False, READ)
        seen.extend(scene.interrupts)

    waiter = scene.spawn(wait)
    scene.waits.wait(PATIENCE)
    waker = scene.spawn(waiting.wake)
    scene.interrupting.wait(PATIENCE)

    scene.data.set()
    ended = waiter.join(PATIENCE)
    scene.paused.set()

    assert ended
    assert waker.join(PATIENCE)
    assert [type(exc) for exc in seen] == [_Wake]


def test_wake_up_is_repeated_where_one_can_be_missed(scene):
    scene.paused.set()
    waiting = InputWait(scene.conn)
    waiter = scene.spawn(waiting.wait, None, lambda: False, READ)
    scene.waits.wait(PATIENCE)

    waiting.wake()
    waiting.wake()
    scene.data.set()

    assert waiter.join(PATIENCE)
    assert len(scene.interrupts) == 2


def test_wake_up_just_before_the_wait_of_a_held_connection_ends_it():
    """It comes after the last look at the work."""
    backend, (ours, theirs) = Threads(), socketpair()
    waiter = backend.waiter()
    state = SimpleNamespace(
        backend=backend, waiter=waiter, wait=waiter.wait, fd=ours.fileno(), closing=False
    )
    waiting = InputWait(SimpleNamespace(closed=0, _greenpg_state=state), wait_while_held)

    def has_work():
        backend.spawn(waiting.wake).join()
        return False

    with ours, theirs:
        found = [waiting.wait(PATIENCE, has_work, READ), waiting.wait(0.0, lambda: False, READ)]
        assert found == [False, False]
        assert backend.spawn(waiting.wait, PATIENCE, has_work, READ).join(PATIENCE / 2)
    waiter.close()
