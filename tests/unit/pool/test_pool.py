"""The pool with a driver, a backend and a clock that are all simulated."""

from __future__ import annotations

import weakref
from itertools import pairwise
from math import inf
from typing import Any

import pytest

from greenpg.pool import _performer, _pool
from greenpg.pool._pool import Lease
from greenpg.pool.core import BROKEN, CLEAN, DIRTY, Condition, Limits, Pool, PoolErrors
from tests.unit.session.simtasks import Killed, Sim

CONNECT_SECONDS = 0.01
CLEAN_SECONDS = 0.2


class Refused(Exception):
    """The server refused the connection."""


class Misuse(Exception):
    """The driver's own class, as are those below."""


class Timeout(Exception):
    pass


class Closed(Exception):
    pass


class Conn:
    def __init__(self) -> None:
        self.condition: Condition = CLEAN
        self.input = False


class Connections:
    """Makes connections while `up`, and records calls and their times."""

    errors = PoolErrors(programming=Misuse, timeout=Timeout, closed=Closed, too_many=Timeout)

    def __init__(self, sim: Sim) -> None:
        self._sim = sim
        self.up = True
        self.attempts: list[float] = []
        self.made: list[Conn] = []
        self.cleaned: list[Conn] = []
        self.closed: list[Conn] = []

    def connect(self) -> Conn:
        self.attempts.append(self._sim.now)
        if not self.up:
            raise Refused
        self._sim.park(CONNECT_SECONDS)
        self.made.append(Conn())
        return self.made[-1]

    def input_check(self, conn: Conn) -> Any:
        found = weakref.ref(conn)
        return lambda _: getattr(found(), "input", False)

    def condition(self, conn: Conn) -> Condition:
        return conn.condition

    def session(self, conn: Conn) -> tuple[str, int | None]:
        return "idle", None

    def commit(self, conn: Conn) -> None:
        conn.condition = CLEAN

    def clean(self, conn: Conn) -> None:
        self._sim.park(CLEAN_SECONDS)
        conn.condition = CLEAN
        self.cleaned.append(conn)

    def check(self, conn: Conn) -> None:
        if conn.input:
            raise Refused

    def cancel(self, conn: Conn) -> None:
        pass

    def close(self, conn: Conn) -> None:
        self.closed.append(conn)


class World:
    """A pool, and tasks that use it."""

    def __init__(self) -> None:
        self.sim = Sim()
        self.server = Connections(self.sim)
        self.pool = self.make()

    def make(self, max_size: int = 1) -> Pool:
        limits = Limits(min_size=0, max_size=max_size, max_lifetime=inf, max_idle=inf)
        backend: Any = lambda: self.sim  # noqa: E731
        return Pool(self.server, backend, limits, name="sim", timeout=5.0)

    def lease(self, timeout: float | None = None) -> Lease[Any]:
        lease: Lease[Any] = Lease()
        lease.pool, lease.timeout, lease.slot = self.pool, timeout, None
        return lease

    def run(self, *tasks: Any) -> None:
        """Run tasks in the order given, then close the pool; no task is left waiting."""
        started = [self.sim.spawn(task) for task in tasks]

        def close() -> None:
            while not all(task.dead for task in started):
                self.sim.park(0.5)
            self.pool.close(1.0)

        self.sim.spawn(close)
        self.sim.run()


@pytest.fixture
def world(monkeypatch):
    made = World()
    monkeypatch.setattr(_pool, "monotonic", made.sim.clock)
    monkeypatch.setattr(_performer, "monotonic", made.sim.clock)
    return made


def test_connection_that_came_back_is_lent_again_and_closed_at_the_end(world):
    lent = []

    def borrow():
        for _ in range(3):
            with world.lease() as conn:
                lent.append(conn)

    world.run(borrow)

    assert lent == world.server.made * 3
    assert world.server.closed == world.server.made


def test_a_task_that_no_weak_reference_leads_to_is_named_as_a_holder(world):
    found = []
    world.sim.current = lambda: 42

    def borrow():
        with world.lease():
            found.extend(world.pool.holders())

    world.run(borrow)

    assert [holder.task for holder in found] == [42]


def test_success_commits_and_an_error_leaves_the_cleaning_to_a_task(world):
    took = []

    def borrow(error):
        with world.lease() as conn:
            conn.condition = DIRTY
            began = world.sim.now
            if error:
                raise error
        took.append(world.sim.now - began)

    def work():
        borrow(None)
        assert not world.server.cleaned
        with pytest.raises(LookupError):
            borrow(LookupError())
        assert world.server.cleaned == world.server.made

    world.run(work)

    assert took == [0]


def test_broken_connection_is_replaced_and_its_neighbours_are_checked(world):
    world.pool = world.make(max_size=2)

    def work():
        with world.lease() as first, world.lease() as second:
            pass
        second.input = True
        with world.lease() as conn:
            assert conn is first
            conn.condition = BROKEN
        with world.lease() as third:
            assert third not in (first, second)
        assert {*world.server.closed} == {first, second}

    world.run(work)


@pytest.mark.parametrize("served", [False, True])
def test_killed_waiter_leaves_no_hole(world, served):
    got = []

    def hold():
        with world.lease():
            world.sim.park(1.0)
            if not served:
                world.sim.kill(victim)
                world.sim.park(1.0)
        if served:  # it has the slot, and has not run since
            world.sim.kill(victim)

    def wait():
        with pytest.raises(Killed), world.lease():
            raise AssertionError("killed too late")

    def follow():
        with world.lease() as conn:
            got.append(conn)

    world.sim.spawn(hold)
    victim = world.sim.spawn(wait)
    world.run(follow)

    assert got == world.server.made


def test_waiter_gives_up_at_its_deadline_with_the_drivers_error(world):
    def hold():
        with world.lease():
            world.sim.park(2.0)

    def wait():
        began = world.sim.now
        with pytest.raises(Timeout, match=r"no connection in 0\.5 s"), world.lease(0.5):
            pass
        assert world.sim.now - began == pytest.approx(0.5)

    world.run(hold, wait)


def test_failed_connects_are_repeated_with_growing_delays(world):
    world.server.up = False

    def borrow():
        with world.lease() as conn:
            assert conn is world.server.made[0]

    def resume():
        world.sim.park(3.0)
        world.server.up = True

    world.run(borrow, resume)

    attempts = world.server.attempts
    delays = [later - earlier for earlier, later in pairwise(attempts)]
    longest = [min(0.8, 0.05 * 2**number) for number in range(len(delays))]
    assert len(delays) >= 6
    for delay, bound in zip(delays, longest, strict=True):
        assert bound / 2 <= round(delay, 6) <= bound


def test_error_says_why_there_was_no_connection(world):
    world.server.up = False

    def borrow():
        with pytest.raises(Timeout) as caught, world.lease(1.0):
            pass
        assert isinstance(caught.value.__cause__, Refused)

    world.run(borrow)


def test_forked_child_uses_no_session_of_its_parent(world):
    world.pool = world.make(max_size=2)

    def borrow():
        with world.lease() as first, world.lease() as second:
            inherited = {first, second}
            world.sim.park(1.0)
            world.pool.forked()
            with world.lease() as own:
                assert own not in inherited
        with world.lease() as conn:
            assert conn is own
        assert not inherited & {*world.server.closed}

    def wait():
        world.sim.park(0.5)
        with pytest.raises(Closed, match="forked child"), world.lease():
            pass

    world.run(borrow, wait)


def test_nothing_is_waited_for_in_the_hub(world):
    with pytest.raises(Misuse, match="event loop"):
        world.lease().__enter__()


def test_ticks_that_fail_are_repeated_with_growing_delays(world, caplog):
    world.pool.limits.max_idle = 60.0  # else nothing is ever due
    state, times = world.pool.performer.state, list[float]()
    tick = state.tick

    def failing(now: float) -> Any:
        times.append(now)
        if len(times) <= 8:
            raise Refused("broken")
        return tick(now)

    state.tick = failing

    def borrow():
        with world.lease():
            world.sim.park(10.0)

    world.run(borrow)

    delays = [later - before for before, later in pairwise(times[:9])]
    assert all(0.02 < delay <= 1.0 for delay in delays)
    assert delays[-1] >= 0.5
    assert caplog.text.count("trying again after an error: broken") == 8
