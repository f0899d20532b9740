"""The pool beside servers that end sessions or are away, and networks that fall silent."""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

from greenpg.errors import PoolTimeout
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import each, needs, over_psycopg, raises
from greenpg_conformance.toolkit.machine import Stopwatch

from ._pool_fixtures import borrow_and_ask, pool_of, terminate_all
from ._steps import ask, check_killed, finish

SLEEPERS: Final = (
    "select count(*) from pg_stat_activity where application_name = %s and wait_event = 'PgSleep'"
)
FAILURES: Final = 7  # the next attempt would come after 1.6 s or more if delays went on doubling
DELAY: Final = 0.8  # seconds between two attempts at most, so that a server is found in one
TRIES: Final = 5  # for what is quick, unless the machine is busy elsewhere


@over_psycopg()
def test_ended_idle_sessions_are_replaced_unseen(ctx: Context) -> None:
    took: list[float] = []
    soon = 0.0
    with pool_of(ctx, min_size=8) as pool:
        pool.wait()
        while not took or (took[-1] > soon and len(took) < TRIES):
            soon = ctx.soon(0.02)
            ctx.wait_until(lambda: pool.get_stats()["pool_available"] == 8, "all idle")
            terminate_all(ctx)
            began = monotonic()
            borrow_and_ask(pool)
            took.append(monotonic() - began)
            finish([ctx.spawn(borrow_and_ask, pool) for _ in range(16)])

    assert took[-1] <= soon, f"first answers after {took}"


@over_psycopg()
def test_ended_sessions_in_use_cost_one_error_each(ctx: Context) -> None:
    errors: list[BaseException] = []
    with pool_of(ctx, min_size=8) as pool:
        pool.wait()

        def work() -> None:
            try:
                with pool.connection() as conn:
                    ask(conn, "select pg_sleep(20)")
            except ctx.driver.error as error:
                errors.append(error)
            for _ in range(10):
                borrow_and_ask(pool)

        jobs = [ctx.spawn(work) for _ in range(8)]
        ctx.wait_until(lambda: ctx.server.ask(SLEEPERS, f"{ctx.name}_pool")[0][0] == 8, "busy")
        terminate_all(ctx)
        finish(jobs)

    assert len(errors) == 8
    assert all(isinstance(error, ctx.driver.operational) for error in errors), errors


@over_psycopg()
def test_outage_costs_what_is_in_use_and_ends_soon(ctx: Context) -> None:
    proxy = ctx.proxy()
    errors: list[BaseException] = []
    good: list[float] = []
    with pool_of(ctx, proxy.dsn, min_size=4, max_size=8, timeout=10.0) as pool:
        pool.wait()
        over = ctx.backend.event()

        def loop() -> None:
            while not over.is_set():
                try:
                    borrow_and_ask(pool)
                    good.append(monotonic())
                except ctx.driver.error as error:
                    errors.append(error)
                ctx.backend.sleep(0.001)

        jobs = [ctx.spawn(loop) for _ in range(32)]
        ctx.wait_until(lambda: len(good) > 100, "under load")
        proxy.refuse()
        proxy.cut()
        ctx.wait_until(lambda: pool.get_stats().get("connections_errors", 0) >= FAILURES)
        proxy.admit()
        back, watch = monotonic(), Stopwatch()
        made = [(back, proxy.accepted())]
        first = 0.0
        while not first or monotonic() < back + 1:
            ctx.backend.sleep(0.005)
            made.append((monotonic(), proxy.accepted()))
            if good[-1] > back:
                first = first or watch.seconds()
        over.set()
        finish(jobs)

    assert len(errors) <= 8, errors
    assert first <= DELAY + ctx.soon(1 - DELAY), f"back after {first:.2f} s"
    assert _most_within(0.1, made) <= 8, made


def _most_within(seconds: float, counted: list[tuple[float, int]]) -> int:
    """Return by how much a count grew at most in so short a time."""
    return max(
        later - before
        for start, before in counted
        for moment, later in counted
        if 0 <= moment - start <= seconds
    )


@each("first", "later")
@over_psycopg()
def test_silence_ends_each_wait_at_its_own_time(ctx: Context, case: str) -> None:
    """The pool's timekeeper may end a later wait; it does not run before the first one."""
    proxy = ctx.proxy()
    took: list[float] = []
    while not took or (took[-1] > 0.6 and len(took) < TRIES):
        with pool_of(ctx, proxy.dsn, min_size=0, max_size=2, timeout=0.5) as pool:
            proxy.stall()
            if case == "later":
                _seconds_to_time_out(pool)
            took.append(_seconds_to_time_out(pool))
            proxy.flow()
            with pool.connection(timeout=5) as conn:
                assert ask(conn) == 7

    assert took[-1] <= 0.6, took


def _seconds_to_time_out(pool: Any) -> float:
    began, watch = monotonic(), Stopwatch()
    with raises(PoolTimeout):
        pool.getconn()
    assert monotonic() - began >= 0.4
    return watch.seconds()


def _lent(ctx: Context, pool: Any) -> Any:
    conn = pool.getconn()
    ask(conn)
    ctx.proxy().stall(scope="present")
    return conn


@over_psycopg()
def test_hung_rollback_frees_its_caller_and_then_the_slot(ctx: Context) -> None:
    with pool_of(ctx, ctx.proxy().dsn, max_size=1) as pool:
        conn = _lent(ctx, pool)
        watch = Stopwatch()
        pool.putconn(conn)
        freed, watch = watch.seconds(), Stopwatch()
        borrow_and_ask(pool)
        back = watch.seconds()

    assert freed <= 1.2
    assert back <= 2.0


@needs("kill")
@over_psycopg()
def test_hung_rollback_frees_its_caller_at_his_own_timeout(ctx: Context) -> None:
    with pool_of(ctx, ctx.proxy().dsn, max_size=1) as pool:
        conn = _lent(ctx, pool)
        with ctx.description.timeout(0.3) as mine:  # type: ignore[misc]
            began, watch = monotonic(), Stopwatch()

            with raises(type(mine)):
                pool.putconn(conn)

        passed, freed = monotonic() - began, watch.seconds()
        watch = Stopwatch()
        borrow_and_ask(pool)
        back = watch.seconds()

    assert passed > 0.25
    assert freed <= 0.5
    assert back <= 2.0


@needs("kill")
@over_psycopg()
def test_interrupted_rollback_is_finished_by_the_pool(ctx: Context) -> None:
    with pool_of(ctx, ctx.proxy().dsn, max_size=1) as pool:
        conn = pool.getconn()
        ask(conn)
        ctx.proxy().delay(0.3, scope="present")
        job = ctx.spawn(pool.putconn, conn)
        ctx.backend.sleep(0.05)
        watch = Stopwatch()

        check_killed(ctx, job)

        assert watch.seconds() < 0.2
        with pool.connection() as same:
            assert same is conn


@needs("kill")
@over_psycopg()
def test_kill_is_not_lost_to_a_timeout_during_the_rollback(ctx: Context) -> None:
    with pool_of(ctx, ctx.proxy().dsn) as pool:

        def work() -> None:
            with ctx.description.timeout(0.3), pool.connection() as conn:  # type: ignore[misc]
                ask(conn)
                ctx.proxy().stall(scope="present")
                raise ctx.backend.exits[0]

        assert isinstance(ctx.spawn(work).join().error, ctx.backend.exits)
