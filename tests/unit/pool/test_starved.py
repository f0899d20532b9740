"""A pool whose tasks cannot be started, or are killed before they begin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from greenpg.pool.core import BROKEN, DIRTY
from tests.unit.pool.test_pool import Timeout, World
from tests.unit.pool.test_pool import world as world


class Starving:
    """Lets a simulation's `spawn` fail, or kills what it spawns before it begins."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self._spawn = world.sim.spawn
        self._chosen: Callable[[int], bool] = lambda _: False
        self._kills = False
        self.spawned = self.failed = 0
        monkeypatch.setattr(world.sim, "spawn", self._spawned)

    def fail(self, chosen: Callable[[int], bool], *, kills: bool) -> None:
        """From now on, count spawns from 0 and choose which of them fail."""
        self.spawned, self._chosen, self._kills = 0, chosen, kills

    def _spawned(self, fn: Any, *args: Any) -> Any:
        self.spawned += 1
        if not self._chosen(self.spawned - 1):
            return self._spawn(fn, *args)
        self.failed += 1
        if not self._kills:
            raise RuntimeError("can't start new thread")
        return None  # as of a greenlet that is killed before it begins: `fn` is dropped


@pytest.fixture
def starving(world, monkeypatch):
    return Starving(world, monkeypatch)


def failures(*, clean: bool) -> Callable[[World], None]:
    def fail(world: World) -> None:
        with world.lease() as conn:
            conn.condition = DIRTY if clean else BROKEN
            raise ZeroDivisionError

    def use(world: World) -> None:
        with pytest.raises(ZeroDivisionError):
            fail(world)

    return use


@pytest.mark.parametrize("kills", [False, True], ids=["fails", "killed"])
@pytest.mark.parametrize("clean", [False, True], ids=["close", "clean"])
@pytest.mark.parametrize("which", range(7))
def test_one_task_that_never_begins_costs_no_slot(world, starving, which, clean, kills):
    use = failures(clean=clean)

    def work():
        starving.fail(lambda number: number == which, kills=kills)
        use(world)
        use(world)
        with world.lease() as conn:
            assert conn.condition < BROKEN

    world.run(work)

    assert starving.failed == (which < starving.spawned)
    assert len(world.server.closed) == len(world.server.made)
    assert not world.pool.performer.state.slots


@pytest.mark.parametrize("clean", [False, True], ids=["close", "clean"])
def test_the_pool_recovers_once_tasks_can_be_started_again(world, starving, clean):
    def work():
        failures(clean=clean)(world)
        starving.fail(lambda _: True, kills=False)
        failures(clean=clean)(world) if world.pool.performer.state.idle else None
        with pytest.raises(Timeout), world.lease(0.5), world.lease(0.5):
            pass
        starving.fail(lambda _: False, kills=False)
        with world.lease():
            pass

    world.run(work)

    assert not world.pool.performer.state.slots


def test_an_expired_waiter_is_told_why_nothing_could_be_started(world, starving):
    def work():
        starving.fail(lambda _: True, kills=False)
        began = world.sim.now
        with pytest.raises(Timeout) as caught, world.lease(2.0):
            pass
        assert world.sim.now - began == pytest.approx(2.0, abs=0.11)
        assert "can't start new thread" in str(caught.value.__cause__)
        starving.fail(lambda _: False, kills=False)

    world.run(work)


def test_a_connection_that_cannot_be_put_into_its_slot_is_closed(world, monkeypatch):
    def refuse(_):
        raise OSError("Too many open files")

    def work():
        monkeypatch.setattr(world.server, "input_check", refuse)
        with pytest.raises(Timeout), world.lease(0.2):
            pass
        monkeypatch.undo()
        assert world.server.closed == world.server.made != []
        with world.lease():
            pass

    world.run(work)

    assert world.server.closed == world.server.made
