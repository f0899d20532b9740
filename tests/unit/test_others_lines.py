"""What looks at a collection holds although another thread changes it, between any two lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from math import inf
from time import monotonic
from typing import Any

import pytest

from greenpg._instances import Instances
from greenpg._protocol.prepared import Form, Statements
from greenpg.multiplexer._dispatcher import Dispatcher
from greenpg.multiplexer._dispatcher import Limits as Bounds
from greenpg.notify import Listener
from greenpg.pool import ConnectionPool
from greenpg.pool._slots import Limits, Slot
from greenpg.pool._state import PoolState

FEW = 3


class Thing:
    """Something of a kind of which there are several."""

    finished = False

    def __init__(self, asked: float = inf) -> None:
        self.asked = asked

    def finish(self, reason: object) -> None:
        self.finished = True

    end = finish


@contextmanager
def between_lines(act: Callable[[], object]) -> Iterator[None]:
    """Call `act` before each line of the code that the block calls, as another thread may."""

    def trace(*_: object) -> Any:
        sys.settrace(None)
        act()
        sys.settrace(trace)
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(None)


def test_instances_are_listed_while_others_are_made():
    instances: Instances[Thing] = Instances()
    things = [Thing() for _ in range(FEW)]
    for thing in things:
        instances.add(thing)

    def make() -> None:
        things.append(Thing())
        instances.add(things[-1])

    with between_lines(make):
        found = instances.all()

    assert {*things[:FEW]} <= {*found} <= {*things}
    assert len(things) > FEW


def test_freed_instances_are_not_listed():
    instances: Instances[Thing] = Instances()
    kept, freed = Thing(), Thing()
    instances.add(kept)
    instances.add(freed)

    del freed

    assert instances.all() == [kept]
    assert len(instances._references) == 1


def test_slots_are_counted_while_others_are_added():
    state = PoolState(Limits(min_size=FEW))
    state.slots.update(Slot(0.0) for _ in range(FEW))

    with between_lines(lambda: state.slots.add(Slot(0.0))):
        filled, alive = state.filled(), state.alive()

    assert (filled, alive) == (False, False)
    assert len(state.slots) > FEW


def test_late_statements_are_looked_for_while_others_line_up():
    bounds = Bounds(1, 0.05, 256, 100, 0, 30.0)
    dispatcher: Any = Dispatcher("web", bounds, ConnectionPool("dbname=none"))
    queue, late = dispatcher.queue, list[Thing]()
    dispatcher.unpark = late.extend
    first = [Thing(-inf) for _ in range(FEW)]
    queue.update(dict.fromkeys(first))

    with between_lines(lambda: queue.setdefault(Thing())):
        dispatcher._expire(monotonic())

    assert late == first
    assert len(queue) > FEW


@pytest.mark.parametrize("which", range(12))
def test_a_form_is_prepared_while_others_are_dropped(which):
    statements = Statements(most=FEW)
    form, *others = [Form(b"select", ()) for _ in range(FEW + 1)]
    made = [(other, statements.prepare(other)[0]) for other in others]
    lines = count()

    def drop() -> None:
        if next(lines) == which:
            for item in made:
                statements.drop(*item, True)

    with between_lines(drop):
        prepared, commands = statements.prepare(form)

    assert statements.find(form) is prepared
    left = sum(statements.find(other) is not None for other in others)
    assert len([*commands, *statements._left_over]) + left == 1 + FEW


def test_a_listener_ends_while_another_subscribes():
    listener = Listener("dbname=none")
    inboxes: Any = listener._inboxes
    inboxes.update(Thing() for _ in range(FEW))
    first = [*inboxes]

    with between_lines(lambda: inboxes.add(Thing())):
        listener._end(RuntimeError("over"))

    assert all(inbox.finished for inbox in first)
    assert len(inboxes) > FEW
