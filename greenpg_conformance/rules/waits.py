"""Waits in the backend interface: what they return, what interrupts them, what they leave."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

from greenpg.backend import READ, WRITE, Waiter
from greenpg.threads import backend as plain
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import each, needs, raises
from greenpg_conformance.toolkit.sockets import End, fill, pair, reset, tcp_pair

BOTH = READ | WRITE
EVENTS = {"read": READ, "write": WRITE, "both": BOTH}
SHORT = 0.03
LONG = 10.0


class Interruption(Exception):
    """What the tests raise in a wait."""


@contextmanager
def waiting(ctx: Context) -> Iterator[Waiter]:
    waiter = ctx.backend.waiter()
    try:
        yield waiter
    finally:
        waiter.close()


@each(*EVENTS)
def test_timeout_is_a_return_value(ctx: Context, case: str) -> None:
    events = EVENTS[case]
    with pair() as (ours, _), waiting(ctx) as waiter:
        fill(ours)
        began = monotonic()

        first = waiter.wait(ours.fileno(), events, SHORT)
        took = monotonic() - began

        assert first == 0
        assert took >= SHORT * 0.9
        assert waiter.wait(ours.fileno(), events, 0) == 0
        assert waiter.wait(ours.fileno(), events, -1) == 0


def test_data_ends_a_wait(ctx: Context) -> None:
    with pair() as (ours, theirs), waiting(ctx) as waiter:
        reader = ctx.spawn(waiter.wait, ours.fileno(), READ, LONG)
        ctx.backend.sleep(SHORT)
        assert not reader.ended

        theirs.send(b"!")

        assert reader.result() == READ
        assert waiter.wait(ours.fileno(), READ, None) == READ


def test_room_ends_a_wait(ctx: Context) -> None:
    with pair() as (ours, theirs), waiting(ctx) as waiter:
        assert waiter.wait(ours.fileno(), WRITE, LONG) == WRITE
        fill(ours)
        writer = ctx.spawn(waiter.wait, ours.fileno(), WRITE, LONG)
        ctx.backend.sleep(SHORT)
        assert not writer.ended

        os.set_blocking(theirs.fileno(), False)
        with suppress(BlockingIOError):
            while theirs.recv(65536):
                pass

        assert writer.result() == WRITE


def test_waiting_for_both_gives_what_is_ready(ctx: Context) -> None:
    with pair() as (ours, theirs), waiting(ctx) as waiter:
        only_room = waiter.wait(ours.fileno(), BOTH, LONG)
        theirs.send(b"!")
        both = waiter.wait(ours.fileno(), BOTH, LONG)
        fill(ours)
        only_data = waiter.wait(ours.fileno(), BOTH, LONG)

        assert only_room == WRITE
        assert both in (READ, WRITE, BOTH)
        assert only_data == READ


def test_waiting_for_both_wakes_by_either(ctx: Context) -> None:
    with pair() as (ours, theirs), waiting(ctx) as waiter:
        fill(ours)
        both = ctx.spawn(waiter.wait, ours.fileno(), BOTH, LONG)
        ctx.backend.sleep(SHORT)
        assert not both.ended

        theirs.send(b"!")

        assert both.result() == READ


@each(*EVENTS)
def test_hang_up_counts_as_ready(ctx: Context, case: str) -> None:
    with pair() as (ours, theirs):
        _is_ready_after(ctx, theirs.close, ours, EVENTS[case])


@each(*EVENTS)
def test_error_counts_as_ready(ctx: Context, case: str) -> None:
    with tcp_pair() as (ours, theirs):
        _is_ready_after(ctx, lambda: reset(theirs), ours, EVENTS[case])


def _is_ready_after(ctx: Context, act: Callable[[], object], end: End, events: int) -> None:
    with waiting(ctx) as waiter:
        fill(end)
        task = ctx.spawn(waiter.wait, end.fileno(), events, LONG)
        ctx.backend.sleep(SHORT)

        act()

        assert task.result() & events
        assert waiter.wait(end.fileno(), events, LONG) & events


def test_others_run_during_a_wait(ctx: Context) -> None:
    with pair() as (ours, _), waiting(ctx) as waiter, ctx.heartbeat() as pulse:
        waiter.wait(ours.fileno(), READ, 0.1)

        assert pulse.beats > 3


def test_each_task_is_woken_by_its_own_data(ctx: Context) -> None:
    woken: list[int] = []

    def wait(number: int, waiter: Waiter, end: End) -> None:
        waiter.wait(end.fileno(), READ, LONG)
        woken.append(number)

    with _many(ctx, 20) as pairs:
        tasks = [ctx.spawn(wait, n, waiter, ours) for n, (waiter, ours, _) in enumerate(pairs)]
        order = ctx.random.sample(range(20), 20)
        for number in order:
            pairs[number][2].send(b"!")
            tasks[number].join()

    assert woken == order


@contextmanager
def _many(ctx: Context, number: int) -> Iterator[list[tuple[Waiter, End, End]]]:
    if not number:
        yield []
        return
    with pair() as (ours, theirs), waiting(ctx) as waiter, _many(ctx, number - 1) as rest:
        yield [(waiter, ours, theirs), *rest]


@each("ready", "timeout", "interrupt")
def test_nothing_late_comes_of_a_wait(ctx: Context, case: str) -> None:
    with pair() as (ours, theirs), waiting(ctx) as waiter:
        timeout = SHORT if case == "timeout" else 3 * SHORT
        task = ctx.spawn(_wait_and_sleep, ctx, waiter, ours, timeout)
        ctx.backend.sleep(SHORT / 3)
        if case == "ready":
            theirs.send(b"!")
        elif case == "interrupt":
            waiter.interrupt(Interruption())
        ctx.backend.sleep(SHORT)

        theirs.send(b"late")
        waiter.interrupt(Interruption("late"))

        assert task.result() >= 5 * SHORT


@needs("kill")
def test_nothing_late_comes_of_a_killed_wait(ctx: Context) -> None:
    with pair() as (ours, theirs), waiting(ctx) as waiter:
        task = ctx.spawn(_wait_and_sleep, ctx, waiter, ours, 3 * SHORT)
        ctx.backend.pause()  # no longer: killed after its wait it would not sleep
        task.kill()
        ctx.backend.sleep(SHORT)

        theirs.send(b"late")

        assert task.result() >= 5 * SHORT


@needs("kill")
def test_library_timeout_ends_a_wait_without_trace(ctx: Context) -> None:
    with pair() as (ours, theirs), waiting(ctx) as waiter:

        def wait() -> float:
            limit: Any = ctx.timeout(SHORT)
            with raises(type(limit)) as caught, limit:
                waiter.wait(ours.fileno(), READ, 3 * SHORT)
            assert caught.error is limit
            return _wait_and_sleep(ctx, waiter, ours, 0)

        task = ctx.spawn(wait)
        ctx.backend.sleep(2 * SHORT)
        theirs.send(b"late")

        assert task.result() >= 5 * SHORT


def _wait_and_sleep(ctx: Context, waiter: Waiter, end: End, timeout: float) -> float:
    """Return how long a sleep of 6 * SHORT took that came after a wait."""
    with suppress(Interruption, *ctx.backend.exits):
        waiter.wait(end.fileno(), READ, timeout)
    began = monotonic()
    ctx.backend.sleep(6 * SHORT)
    return monotonic() - began


@each("ready", "timeout", "both", "never")
def test_closed_waiter_leaves_nothing(ctx: Context, case: str) -> None:
    registered, descriptors = ctx.registered(), ctx.descriptors()
    with pair() as (ours, theirs):
        waiter = ctx.backend.waiter()
        theirs.send(b"!" if case == "ready" else b"")
        if case != "never":
            waiter.wait(ours.fileno(), BOTH if case == "both" else READ, SHORT)

        waiter.close()
        waiter.close()

        assert ctx.registered() == registered
    assert ctx.descriptors() == descriptors


def test_waiter_can_be_closed_by_another_thread(ctx: Context) -> None:
    registered, descriptors = ctx.registered(), ctx.descriptors()
    with pair() as (ours, _):
        waiter = ctx.backend.waiter()
        waiter.wait(ours.fileno(), READ, SHORT)

        ctx.native(waiter.close).result()
        waiter.close()

        ctx.wait_until(lambda: ctx.registered() == registered, "nothing is registered")
    ctx.wait_until(lambda: ctx.descriptors() == descriptors, "no descriptor is left")


@each("read", "both")
def test_idle_waiter_costs_nothing(ctx: Context, case: str) -> None:
    with pair() as (ours, theirs), waiting(ctx) as waiter:
        waiter.wait(ours.fileno(), READ if case == "read" else BOTH, SHORT)

        theirs.send(b"nobody waits for this")

        ctx.stays_idle()
        assert waiter.wait(ours.fileno(), READ, LONG) == READ


def test_busy_wait_does_not_spin(ctx: Context) -> None:
    with pair() as (ours, theirs), waiting(ctx) as waiter:
        fill(ours)
        task = ctx.spawn(waiter.wait, ours.fileno(), BOTH, LONG)

        ctx.stays_idle()

        theirs.send(b"!")
        assert task.result() == READ


def test_fileno_is_a_duplicate_or_none(ctx: Context) -> None:
    with pair() as (ours, _), waiting(ctx) as waiter:
        waiter.wait(ours.fileno(), READ, 0)

        kept = waiter.fileno()

        assert kept != ours.fileno()
        assert kept == -1 or os.path.sameopenfile(kept, ours.fileno())


def test_next_owner_of_a_descriptor_is_left_alone(ctx: Context) -> None:
    with pair() as (ours, theirs), pair() as (other, others), waiting(ctx) as waiter:
        number = ours.fileno()
        waiter.wait(number, READ, SHORT)
        os.dup2(other.fileno(), number)
        with waiting(ctx) as second:
            task = ctx.spawn(second.wait, number, READ, LONG)
            ctx.backend.sleep(SHORT)

            with suppress(BrokenPipeError):  # a backend that keeps no duplicate
                theirs.send(b"for the one that is gone")
            theirs.close()
            ctx.stays_idle()
            undisturbed = not task.ended
            others.send(b"!")

            assert undisturbed
            assert task.result() == READ


@each("task", "thread")
def test_interrupt_raises_in_the_wait(ctx: Context, case: str) -> None:
    error = Interruption()
    with pair() as (ours, theirs), waiting(ctx) as waiter:
        task = ctx.spawn(waiter.wait, ours.fileno(), READ, LONG)
        ctx.backend.sleep(SHORT)

        if case == "task":
            waiter.interrupt(error)
        else:
            ctx.native(waiter.interrupt, error)

        assert task.join().error is error
        theirs.send(b"!")
        assert waiter.wait(ours.fileno(), READ, LONG) == READ


def test_interrupt_wakes_a_hub_with_nothing_else_to_do(ctx: Context) -> None:
    error = Interruption()
    with pair() as (ours, _), waiting(ctx) as waiter:
        thread = ctx.native(_later, waiter.interrupt, error)

        with raises(Interruption) as caught:
            waiter.wait(ours.fileno(), READ, None)

        assert caught.error is error
        thread.join()


def _later(fn: Callable[..., object], *args: object) -> None:
    plain.sleep(SHORT)
    fn(*args)


def test_interrupt_never_hits_a_later_wait(ctx: Context) -> None:
    with pair() as (ours, theirs), waiting(ctx) as waiter:
        waiter.interrupt(Interruption("nobody waits"))
        for number in range(50):
            task = ctx.spawn(waiter.wait, ours.fileno(), READ, LONG)
            ctx.backend.pause()
            theirs.send(b"!")
            waiter.interrupt(Interruption(number))
            task.join()
            assert task.error is None or task.error.args == (number,)

            ours.recv(1)

            assert waiter.wait(ours.fileno(), READ, 0.001) == 0


def test_interrupts_from_a_thread_hit_the_wait_they_meet_or_none(ctx: Context) -> None:
    stop: list[bool] = []
    with pair() as (ours, theirs), waiting(ctx) as waiter:
        thread = ctx.native(_interrupt_often, waiter, stop)
        hits = 0
        try:
            for number in range(300):
                sent = theirs.send(b"!" * (number % 2))
                try:
                    assert waiter.wait(ours.fileno(), READ, LONG if sent else 0.002) == sent * READ
                except Interruption:
                    hits += 1
                ours.recv(sent)
        finally:
            stop.append(True)
        thread.join()

        assert hits
        assert waiter.wait(ours.fileno(), READ, SHORT) == 0


def _interrupt_often(waiter: Waiter, stop: list[bool]) -> None:
    while not stop:
        waiter.interrupt(Interruption())
        plain.sleep(0.0007)


def test_waiter_follows_its_task_to_another_thread(ctx: Context) -> None:
    with pair() as (ours, theirs), waiting(ctx) as waiter:
        assert waiter.wait(ours.fileno(), READ, 0) == 0
        thread = ctx.native(waiter.wait, ours.fileno(), READ, LONG)
        ctx.backend.sleep(SHORT)

        theirs.send(b"!")

        assert thread.result() == READ
        assert waiter.wait(ours.fileno(), READ, LONG) == READ
