"""The rest of the backend interface: tasks, events, sleeping, other OS threads and the hub."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

from greenpg.backend import READ, Task
from greenpg.threads import backend as plain
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import each, needs, raises
from greenpg_conformance.toolkit.sockets import pair

SHORT = 0.03
LONG = 10.0


def test_capabilities_are_known_ones(ctx: Context) -> None:
    assert ctx.backend.capabilities <= {"kill", "hub", "lazy_spawn"}
    assert all(issubclass(kind, BaseException) for kind in ctx.backend.exits)


def test_set_before_a_wait_is_not_lost(ctx: Context) -> None:
    event = ctx.backend.event()
    before = event.is_set()

    event.set()

    assert not before
    assert event.is_set()
    assert event.wait(0)
    assert event.wait(None)


def test_event_wakes_all_who_wait(ctx: Context) -> None:
    event = ctx.backend.event()
    tasks = [ctx.spawn(event.wait, LONG) for _ in range(5)]
    ctx.backend.sleep(SHORT)
    assert not any(task.ended for task in tasks)

    event.set()

    assert all(task.result() for task in tasks)


@needs("hub")
def test_set_does_not_run_the_waiters(ctx: Context) -> None:
    event = ctx.backend.event()
    task = ctx.spawn(event.wait, LONG)
    ctx.backend.sleep(SHORT)

    event.set()

    assert not task.ended
    assert task.result()


def test_tasks_that_wake_each_other_without_end_let_others_run(ctx: Context) -> None:
    batons = [ctx.backend.event(), ctx.backend.event()]
    over: list[bool] = []
    rounds: list[int] = []

    def play(me: int) -> None:
        while not over:
            batons[me].wait(LONG)
            batons[me] = ctx.backend.event()
            rounds.append(me)
            batons[1 - me].set()

    tasks = [ctx.spawn(play, me) for me in (0, 1)]
    with ctx.heartbeat():
        batons[0].set()
        ctx.backend.sleep(SHORT)
    over.append(True)

    assert all(task.join().error is None for task in tasks)
    assert len(rounds) > 10


def test_wait_for_an_event_times_out(ctx: Context) -> None:
    event = ctx.backend.event()
    began = monotonic()

    given_up = event.wait(SHORT)

    assert not given_up
    assert monotonic() - began >= SHORT * 0.9
    assert not event.wait(0)
    assert not event.wait(-1)
    event.set()
    ctx.backend.sleep(SHORT)
    assert event.wait(0)


def test_set_from_another_thread_wakes_an_idle_hub(ctx: Context) -> None:
    event = ctx.backend.event()

    def later() -> None:
        plain.sleep(SHORT)
        event.set()

    thread = ctx.native(later)

    assert event.wait(None)
    thread.join()


def test_sets_from_a_thread_are_never_lost(ctx: Context) -> None:
    rounds = [(ctx.backend.event(), ctx.backend.event()) for _ in range(100)]

    def answer() -> None:
        for ping, pong in rounds:
            ping.wait(LONG)
            pong.set()

    thread = ctx.native(answer)
    for ping, pong in rounds:
        ping.set()
        assert pong.wait(LONG)

    thread.join()


@needs("kill")
def test_killed_waiter_of_an_event_leaves_the_others(ctx: Context) -> None:
    event = ctx.backend.event()
    killed, waiting = ctx.spawn(event.wait, LONG), ctx.spawn(event.wait, LONG)
    ctx.backend.sleep(SHORT)

    killed.kill()
    event.set()

    assert waiting.result()
    assert killed.join().error is None or isinstance(killed.error, ctx.backend.exits)


@needs("lazy_spawn")
def test_spawn_does_not_run_the_function_at_once(ctx: Context) -> None:
    ran: list[bool] = []

    task = ctx.backend.spawn(ran.append, True)

    assert not ran
    assert task.join(LONG)
    assert ran


def test_join_tells_whether_the_task_has_ended(ctx: Context) -> None:
    event = ctx.backend.event()
    task = ctx.backend.spawn(event.wait, LONG)

    early = task.join(SHORT)
    at_once = task.join(0)
    event.set()

    assert not early
    assert not at_once
    assert task.join(LONG)
    assert task.join()
    assert task.join(0)


def test_what_a_task_raises_stays_there(ctx: Context) -> None:
    task = ctx.backend.spawn(_fail)

    assert task.join(LONG)


def _fail() -> None:
    raise ValueError("this traceback belongs in the log")


def test_each_task_is_itself(ctx: Context) -> None:
    def who() -> tuple[Any, Any]:
        before = ctx.backend.current()
        ctx.backend.sleep(SHORT)
        return before, ctx.backend.current()

    tasks = [ctx.spawn(who) for _ in range(5)]
    seen = [task.result() for task in tasks]

    assert all(before == after for before, after in seen)
    assert len({before for before, _ in seen} | {ctx.backend.current()}) == 6


@needs("kill")
@each("wait", "event", "sleep", "join", "thread")
def test_kill_raises_where_the_task_waits(ctx: Context, case: str) -> None:
    with pair() as (ours, _):
        waiter = ctx.backend.waiter()
        sleeper = ctx.spawn(ctx.backend.sleep, 5 * SHORT)
        waits: dict[str, Callable[[], object]] = {
            "wait": lambda: waiter.wait(ours.fileno(), READ, LONG),
            "event": lambda: ctx.backend.event().wait(LONG),
            "sleep": lambda: ctx.backend.sleep(LONG),
            "join": lambda: sleeper.join(LONG),
            "thread": lambda: ctx.backend.in_thread(plain.sleep, 5 * SHORT),
        }
        task = ctx.spawn(waits[case])
        ctx.backend.sleep(SHORT)

        task.kill()
        task.kill()

        assert not task.ended, "kill waits for the task"
        assert isinstance(task.join().error, ctx.backend.exits)
        task.kill()
        waiter.close()


@needs("kill")
def test_killed_before_it_began_a_task_gets_nowhere(ctx: Context) -> None:
    task = ctx.spawn(ctx.backend.sleep, LONG)

    task.kill()

    task.join()
    assert not task.began or isinstance(task.error, ctx.backend.exits)


@needs("kill")
def test_task_can_go_on_after_a_kill(ctx: Context) -> None:
    def stubborn() -> str:
        with suppress(*ctx.backend.exits):
            ctx.backend.sleep(LONG)
        ctx.backend.sleep(SHORT)
        return "still here"

    task = ctx.spawn(stubborn)
    ctx.backend.sleep(SHORT)

    task.kill()

    assert task.result() == "still here"


def test_sleep_lets_others_run(ctx: Context) -> None:
    with ctx.heartbeat() as pulse:
        began = monotonic()
        ctx.backend.sleep(0.1)
        took = monotonic() - began

    assert took >= 0.09
    assert pulse.beats > 3


def test_pause_lets_tasks_timers_and_sockets_run(ctx: Context) -> None:
    with pair() as (ours, theirs):
        waiter = ctx.backend.waiter()
        tasks = [
            ctx.spawn(int),
            ctx.spawn(ctx.backend.sleep, SHORT),
            ctx.spawn(waiter.wait, ours.fileno(), READ, LONG),
        ]
        theirs.send(b"!")
        end = monotonic() + 3 * SHORT

        while monotonic() < end:
            ctx.backend.pause()

        assert [task.ended for task in tasks] == [True] * 3
        waiter.close()


def test_idle_process_costs_nothing(ctx: Context) -> None:
    task = ctx.spawn(ctx.backend.event().wait, 1)

    ctx.stays_idle()

    task.join()


def test_in_thread_returns_or_raises(ctx: Context) -> None:
    value = ctx.backend.in_thread(divmod, 7, 3)
    with raises(ZeroDivisionError):
        ctx.backend.in_thread(divmod, 7, 0)

    assert value == (2, 1)


def test_others_run_during_a_job_in_a_thread(ctx: Context) -> None:
    with ctx.heartbeat() as pulse:
        ctx.backend.in_thread(plain.sleep, 0.1)

    assert pulse.beats > 3


@needs("kill")
def test_job_in_a_thread_outlives_its_killed_task(ctx: Context) -> None:
    done: list[bool] = []

    def job() -> None:
        plain.sleep(5 * SHORT)
        done.append(True)

    task = ctx.spawn(ctx.backend.in_thread, job)
    ctx.backend.sleep(SHORT)

    task.kill()

    task.join()
    assert not done
    ctx.wait_until(lambda: done, "the job has ended")
    assert ctx.backend.in_thread(divmod, 7, 3) == (2, 1)


def test_resolve_gives_addresses_of_stream_sockets(ctx: Context) -> None:
    rows = ctx.backend.resolve("127.0.0.1", 5432)

    assert [row[4] for row in rows] == [("127.0.0.1", 5432)]
    assert all(row[1] == socket.SOCK_STREAM for row in rows)


def test_resolve_raises_the_error_of_getaddrinfo(ctx: Context) -> None:
    with raises(OSError, UnicodeError):
        ctx.backend.resolve("no host has this name", 5432)


def test_a_task_can_wait(ctx: Context) -> None:
    here = ctx.backend.can_wait()
    there = ctx.spawn(ctx.backend.can_wait).result()

    assert here is True
    assert there is True


@needs("hub")
def test_the_hub_cannot_wait(ctx: Context) -> None:
    assert ctx.in_hub(ctx.backend.can_wait) is False


@needs("hub")
def test_tasks_can_be_started_and_events_set_in_the_hub(ctx: Context) -> None:
    event = ctx.backend.event()
    waiting = ctx.spawn(event.wait, LONG)
    ctx.backend.sleep(SHORT)

    def act() -> Task:
        event.set()
        return ctx.backend.spawn(int)

    task = ctx.in_hub(act)

    assert waiting.result()
    assert task.join(LONG)
