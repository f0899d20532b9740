"""The multiplexer: many tasks on few connections, none of which notices the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg2
from psycopg2.extensions import make_dsn

from greenpg import DeadlineExceeded
from greenpg.multiplexer import Multiplexer
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import each, needs, raises

from ._pool_fixtures import count
from ._steps import interrupted
from .forks import Child

BRIEF: Final = "select 7 from pg_sleep(0.5)"
SHORT: Final = 0.1
SLOW: Final = "select pg_sleep(30)"
TASKS: Final = 50
TIMES: Final = 20


@contextmanager
def multiplexer(ctx: Context, dsn: str | None = None, **options: Any) -> Iterator[Multiplexer]:
    """A multiplexer on the tested backend, whose sessions `count` counts."""
    dsn = make_dsn(dsn or ctx.dsn, application_name=f"{ctx.name}_pool")
    made = Multiplexer(dsn, backend=ctx.backend, **{"timeout": 5.0, **options})
    try:
        yield made
    finally:
        made.close(0.5)


def ask_often(mux: Multiplexer, number: int) -> bool:
    """Return True if each answer belongs to its question."""
    asked = [number * TIMES + n for n in range(TIMES)]
    return asked == [mux.execute("select %s", (n,)).fetchall()[0][0] for n in asked]


def running(ctx: Context, statement: str = SLOW) -> int:
    """Return how many of this process's sessions execute a statement."""
    query = (
        "select count(*) from pg_stat_activity"
        " where state = 'active' and query = %s and application_name = %s"
    )
    return int(ctx.server.ask(query, statement, f"{ctx.name}_pool")[0][0])


@each("prepared", "plain")
def test_answers_belong_to_their_questions(ctx: Context, case: str) -> None:
    with multiplexer(ctx, prepare_threshold=0 if case == "prepared" else None) as mux:
        tasks = [ctx.spawn(ask_often, mux, number) for number in range(TASKS)]

        assert all(task.result() for task in tasks)
        assert count(ctx) <= 4


@needs("hub")
def test_statements_of_one_turn_share_a_connection(ctx: Context) -> None:
    with multiplexer(ctx, slow=5.0) as mux:
        mux.execute("select 0")

        tasks = [ctx.spawn(mux.execute, "select 1") for _ in range(TASKS)]

        assert [task.result().fetchone() for task in tasks] == [(1,)] * TASKS
        assert count(ctx) == 1


def test_statements_hold_nobody_up(ctx: Context) -> None:
    with multiplexer(ctx) as mux, ctx.heartbeat() as pulse:
        tasks = [ctx.spawn(ask_often, mux, number) for number in range(TASKS)]

        assert all(task.result() for task in tasks)
    assert pulse.beats


def test_slow_statement_holds_nobody_up(ctx: Context) -> None:
    with multiplexer(ctx) as mux:
        mux.execute("select 1")
        slow = ctx.spawn(mux.execute, SLOW)
        ctx.wait_until(lambda: running(ctx), "the slow statement runs")

        for _ in range(TIMES):
            assert mux.execute("select 1").fetchone() == (1,)

        assert not slow.ended


@needs("kill")
@each("timeout", "kill")
def test_interrupt_cancels_a_statement_that_is_alone(ctx: Context, case: str) -> None:
    with multiplexer(ctx) as mux:
        mux.execute("select 1")

        interrupted(ctx, case, lambda: mux.execute(SLOW), SHORT)

        ctx.wait_until(lambda: not running(ctx), "the statement was cancelled")
        assert mux.execute("select 1").fetchone() == (1,)


@needs("kill")
@each("timeout", "kill")
def test_interrupt_spares_the_others(ctx: Context, case: str) -> None:
    other = "select 2 from pg_sleep(0.3)"
    with multiplexer(ctx, max_size=1, slow=60) as mux:
        mux.execute("select 1")
        spared = ctx.spawn(mux.execute, other)
        ctx.wait_until(lambda: running(ctx, other), "the other statement runs")

        interrupted(ctx, case, lambda: mux.execute("select 1"), SHORT)

        assert spared.result().fetchone() == (2,)


def test_deadline_ends_the_wait(ctx: Context) -> None:
    with multiplexer(ctx) as mux:
        with raises(DeadlineExceeded), mux.deadline(SHORT):
            mux.execute(SLOW)

        ctx.wait_until(lambda: not running(ctx), "the statement was cancelled")
        assert mux.execute("select 1").fetchone() == (1,)


def test_lost_connections_are_replaced(ctx: Context) -> None:
    with multiplexer(ctx, ctx.proxy().dsn) as mux:
        mux.execute("select 1")
        slow = ctx.spawn(mux.execute, SLOW)
        ctx.wait_until(lambda: running(ctx), "the slow statement runs")

        ctx.proxy().cut()

        assert isinstance(slow.join().error, psycopg2.OperationalError)
        assert "may have run" in str(slow.error)
        assert mux.execute("select 1").fetchone() == (1,)


@needs("hub")
def test_hub_is_refused(ctx: Context) -> None:
    with multiplexer(ctx) as mux:
        mux.execute("select 1")

        with raises(psycopg2.ProgrammingError):
            ctx.in_hub(lambda: mux.execute("select 1"))

        assert mux.execute("select 1").fetchone() == (1,)


def test_idle_multiplexer_costs_nothing(ctx: Context) -> None:
    with multiplexer(ctx) as mux:
        mux.execute("select 1")

        ctx.stays_idle()

        assert mux.execute("select 1").fetchone() == (1,)


def test_forked_child_leaves_the_parents_statements_alone(ctx: Context) -> None:
    with multiplexer(ctx, max_size=1, timeout=20.0) as mux:
        mux.execute("select 1")
        jobs = [ctx.spawn(mux.execute, BRIEF)]
        ctx.wait_until(lambda: running(ctx, BRIEF), "it is under way")
        jobs += [ctx.spawn(mux.execute, BRIEF) for _ in range(2)]
        ctx.wait_until(lambda: mux.measures().waiting == 2, "the others wait")

        def work() -> list[Any]:
            if "hub" in ctx.backend.capabilities:  # else the tasks are not in the child
                ctx.wait_until(lambda: all(job.ended for job in jobs), "the copies have ended")
            found = [job.value is None for job in jobs], mux.execute("select 8").fetchone()
            mux.close(0)
            return [*found, mux.measures().in_flight]

        assert Child(ctx, work).result() == [[True] * 3, [8], 0]
        assert [job.result().fetchone() for job in jobs] == [(7,)] * 3
