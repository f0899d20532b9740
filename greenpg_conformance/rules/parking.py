"""What a backend may have in addition: `soon`, `park` and `unpark`; else the core's own do it."""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

from greenpg.backend import parking, soon
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import needs

SHORT: Final = 0.03
LONG: Final = 10.0


class Place:
    """What a task parks on."""

    def __init__(self) -> None:
        self.ended = False
        self.waiter: Any = None


class Lot:
    """Places, each with a task that parks there."""

    def __init__(self, ctx: Context, size: int) -> None:
        self.park, self.unpark = parking(ctx.backend)
        self.places = [Place() for _ in range(size)]
        self.tasks = [ctx.spawn(self._stay, place) for place in self.places]
        ctx.wait_until(lambda: all(place.waiter is not None for place in self.places))

    def _stay(self, place: Place) -> bool:
        self.park(place)
        return place.ended

    def end(self, *places: int) -> None:
        """End what stands at these places."""
        chosen = [self.places[place] for place in places]
        for place in chosen:
            place.ended = True
        self.unpark(chosen)


def test_soon_calls_the_function(ctx: Context) -> None:
    called: list[bool] = []

    soon(ctx.backend)(lambda: called.append(True))

    ctx.wait_until(lambda: called)


@needs("hub")
def test_soon_calls_nothing_at_once(ctx: Context) -> None:
    called: list[bool] = []

    soon(ctx.backend)(lambda: called.append(True))

    assert not called
    ctx.wait_until(lambda: called)


def test_end_before_the_task_parks_is_not_lost(ctx: Context) -> None:
    park, unpark = parking(ctx.backend)
    place = Place()
    place.ended = True

    unpark([place])
    park(place)

    assert place.waiter is None


def test_unpark_wakes_those_it_names(ctx: Context) -> None:
    lot = Lot(ctx, 4)

    lot.end(0, 2)

    assert lot.tasks[0].result()
    assert lot.tasks[2].result()
    ctx.backend.sleep(SHORT)
    assert [task.ended for task in lot.tasks] == [True, False, True, False]
    lot.end(3, 1)
    assert all(task.result() for task in lot.tasks)
    assert all(place.waiter is None for place in lot.places)


@needs("hub")
def test_unpark_does_not_run_the_tasks(ctx: Context) -> None:
    lot = Lot(ctx, 1)

    lot.end(0)

    assert not lot.tasks[0].ended
    assert lot.tasks[0].result()


def test_parking_times_out(ctx: Context) -> None:
    park, unpark = parking(ctx.backend)
    place, began = Place(), monotonic()

    park(place, SHORT)

    assert monotonic() - began >= SHORT * 0.9
    assert place.waiter is None
    park(place, 0)
    place.ended = True
    unpark([place])  # nobody is there
    ctx.backend.sleep(SHORT)


@needs("kill")
def test_killed_parked_task_leaves_the_others(ctx: Context) -> None:
    lot = Lot(ctx, 3)

    lot.tasks[0].kill()
    lot.end(0, 1, 2)

    assert lot.tasks[1].result()
    assert lot.tasks[2].result()
    assert lot.tasks[0].join().error is None or isinstance(lot.tasks[0].error, ctx.backend.exits)


@needs("kill")
def test_late_unpark_disturbs_no_other_wait(ctx: Context) -> None:
    park, unpark = parking(ctx.backend)
    place = Place()

    def moves_on() -> float:
        try:
            park(place)
        except ctx.backend.exits:
            began = monotonic()
            ctx.backend.sleep(SHORT)
            return monotonic() - began
        return LONG  # the kill came too late

    task = ctx.spawn(moves_on)
    ctx.wait_until(lambda: place.waiter is not None)

    task.kill()
    place.ended = True
    unpark([place])

    assert task.result() >= SHORT * 0.9


@needs("hub")  # OS threads are interrupted
def test_tasks_that_park_without_end_let_others_run(ctx: Context) -> None:
    park, unpark = parking(ctx.backend)
    over: list[bool] = []

    def play() -> int:
        rounds = 0
        while not over:
            place = Place()

            def end(place: Place = place) -> None:
                place.ended = True
                unpark([place])

            soon(ctx.backend)(end)
            park(place)
            rounds += 1
        return rounds

    tasks = [ctx.spawn(play) for _ in range(3)]
    try:
        with ctx.heartbeat():
            ctx.backend.sleep(SHORT)
    finally:
        over.append(True)

    assert all(task.result() > 1 for task in tasks)
