"""A pool in which a call of greenpg's own fails: in the pool's tasks, in finalizers, anywhere."""

from __future__ import annotations

import sys
from contextlib import contextmanager, suppress
from math import inf

import pytest
from greenlet import getcurrent

from greenpg.pool.core import BROKEN, DIRTY, Limits, Pool
from tests.unit.pool.test_out_of_depth import loan
from tests.unit.pool.test_pool import world as world

OURS = ("/greenpg/", "simtasks")
CALLS = range(400)
MAX_IDLE = 3.0


class Failing:
    """Lets a call fail that one task makes, or each task but that one: the nth, or of a name."""

    before = ""

    def __init__(self, nth, error, others):
        self.nth, self.calls, self.place = nth, 0, ""
        self._error, self._others = error, others
        self._task = getcurrent()

    def __call__(self, frame, event, argument):
        code = frame.f_code
        if event != "call" or not any(part in code.co_filename for part in OURS):
            return
        if (getcurrent() is self._task) == self._others or getcurrent().parent is None:
            return
        if code.co_name in ("__exit__", "run", "<lambda>"):  # where nothing can be put right
            return
        self.calls += 1
        if self.calls == self.nth + 1 or code.co_name == self.before:
            self.before = ""
            self.place = code.co_qualname
            raise self._error(f"before {self.place}")


@contextmanager
def failing(nth, error, *, others=False):
    fault, before = Failing(nth, error, others), sys.gettrace()
    sys.settrace(fault)
    try:
        yield fault
    finally:
        sys.settrace(before)


@pytest.fixture
def pool(world, monkeypatch):
    """A pool with time limits; its tasks may fail."""
    spawn = world.sim.spawn

    def spawned(fn, *args):
        def run():
            with suppress(MemoryError, RecursionError):
                fn(*args)

        return spawn(run)

    monkeypatch.setattr(world.sim, "spawn", spawned)

    def make(**options):
        limits = Limits(min_size=0, max_size=1, max_lifetime=inf, max_idle=MAX_IDLE, **options)
        world.pool = Pool(world.server, lambda: world.sim, limits, name="sim", timeout=5.0)
        return world.pool

    return make


def spoil(world, condition):
    with world.lease(5.0) as conn:
        conn.condition = condition


def assert_whole(world, pool, place):
    """See that the pool lends, forgets nobody, and still keeps time."""
    state = pool.performer.state
    for _ in range(2):
        loan(world)
    assert not state.lent, place
    assert not state.waiters, place
    world.sim.park(4 * MAX_IDLE)
    assert not state.slots, place


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # from __del__
@pytest.mark.parametrize("error", [RecursionError, MemoryError])
@pytest.mark.parametrize("others", [False, True], ids=["borrower", "tasks"])
@pytest.mark.parametrize("checks", [False, True], ids=["plain", "checks"])
@pytest.mark.parametrize("condition", [DIRTY, BROKEN])
def test_a_call_that_fails_costs_neither_slot_nor_time(
    world, pool, condition, checks, others, error
):
    places = set()

    def work():
        for nth in CALLS:
            made = pool(always_check=checks)
            with failing(nth, error, others=others) as fault:
                try:
                    spoil(world, condition)
                    spoil(world, condition)
                except error:
                    pass
                world.sim.park(0.5)
            places.add(fault.place)
            assert_whole(world, made, fault.place)
            if not fault.place:
                return

    world.run(work)

    assert len(places) > 20


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # from the callback
@pytest.mark.filterwarnings("ignore:.* was never given back:ResourceWarning")
@pytest.mark.parametrize("error", [RecursionError, MemoryError])
def test_a_forgotten_connections_slot_is_free_again(world, pool, error):
    places = set()

    def work():
        for nth in CALLS:
            made = pool()
            lease = world.lease()
            lease.__enter__()
            with failing(nth, error) as fault:
                world.server.made.clear()
                del lease  # and with it the connection
            places.add(fault.place)
            loan(world)
            assert_whole(world, made, fault.place)
            if not fault.place:
                return

    world.run(work)

    assert "Performer._free_lost" in places


def test_a_return_that_fails_takes_nothing_from_the_next_holder(world, pool):
    """The slot is lent again before the call that fails, which tells those who watch the pool."""
    lent, failed = [], []

    def hold():
        with suppress(RecursionError), failing(inf, RecursionError) as fault, world.lease():
            world.sim.park(1.0)
            fault.before = "_watch"
        failed.append(fault.place)

    def wait():
        with world.lease() as conn:
            lent.append(conn)

    made = pool()
    world.sim.spawn(lambda: made._until(lambda: bool(lent), 5.0))
    world.run(hold, wait)

    assert failed == ["PoolState._watch"]
    assert lent == world.server.made
