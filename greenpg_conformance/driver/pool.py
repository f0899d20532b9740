"""The pool: fair and exact, whichever task is killed."""

from __future__ import annotations

from contextlib import closing
from math import inf
from typing import Any, Final

from psycopg2.extensions import make_dsn

from greenpg.errors import PoolTimeout
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import each, limit, needs, over_psycopg, raises
from greenpg_conformance.storm.pool_storm import PoolStorm

from ._pool_fixtures import borrow_and_ask, count, pool_of
from ._pool_spies import Line, Starter
from ._steps import ask, check_killed, finish
from .forks import Child

PID: Final = "select pg_backend_pid()"
ROUNDS: Final = 300
ROUNDS_OF_ALL: Final = 30  # of 64 borrowers, who may be OS threads


@limit(60)
@over_psycopg()
def test_kills_and_timeouts_lose_no_slot(ctx: Context) -> None:
    dsn = make_dsn(ctx.dsn, application_name=f"{ctx.name}_pool")
    seed = ctx.random.randrange(1 << 30)
    ctx.note(f"seed {seed}")
    timeout = ctx.description.timeout
    storm = PoolStorm(ctx.backend, dsn, lambda: count(ctx), timeout, seed, driver=ctx.driver.name)
    with closing(storm):
        storm.play(ROUNDS)

    assert storm.served > 20
    assert storm.interrupted == (ROUNDS if "kill" in ctx.backend.capabilities else 0)


@limit(60)
@over_psycopg()
def test_nobody_is_starved_or_overtaken(ctx: Context) -> None:
    with pool_of(ctx, min_size=8, timeout=inf) as pool:
        pool.wait()
        line = Line(pool._pool.performer.state)

        def loop() -> None:
            for _ in range(ROUNDS_OF_ALL):
                borrow_and_ask(pool)

        finish([ctx.spawn(loop) for _ in range(64)], 50)

    assert len(line.asked) > 1000
    assert line.served == list(line.asked)
    assert line.jumps == 0


def _lent_and_waiting(ctx: Context, pool: Any, *timeout: float) -> tuple[Any, Any]:
    lent, waiting = pool.getconn(), ctx.spawn(pool.getconn, *timeout)
    ctx.wait_until(lambda: pool.get_stats()["requests_waiting"], "one waits")
    return lent, waiting


@needs("kill")
@over_psycopg()
def test_time_is_kept_though_all_tasks_of_the_pool_are_killed(ctx: Context) -> None:
    with pool_of(ctx) as pool:
        starter = pool._pool.performer._backend = Starter(ctx.backend)
        lent, waiting = _lent_and_waiting(ctx, pool, 0.5)

        for task in starter.tasks:
            task.kill()

        assert isinstance(waiting.join().error, PoolTimeout)
        pool.putconn(lent)


@needs("kill")
@over_psycopg()
def test_killed_close_goes_on(ctx: Context) -> None:
    with pool_of(ctx, min_size=3) as pool:
        pool.wait()
        lent = pool.getconn()
        closer = ctx.spawn(pool.close, 20.0)
        ctx.wait_until(lambda: pool.closed and count(ctx) == 1, "only the lent one is left")

        check_killed(ctx, closer)

        assert ask(lent) == 7
        pool.putconn(lent)
        ctx.wait_until(lambda: count(ctx) == 0, "no session is left")


@each("plain", "tls")
@over_psycopg()
def test_forked_child_gets_connections_of_its_own(ctx: Context, case: str) -> None:
    dsn = ctx.proxy(tls=True).dsn if case == "tls" else None
    with pool_of(ctx, dsn, min_size=2) as pool:
        pool.wait()
        lent = pool.getconn()
        pids = {ask(lent, PID), _pid(pool)}

        def work() -> list[Any]:
            found = _pid(pool)
            pool.putconn(lent)  # as a copy of its task does
            pool.close()
            return [found]

        theirs = Child(ctx, work).result()

        assert isinstance(theirs, list), theirs
        assert not pids & set(theirs)
        assert ask(lent) == 7
        pool.putconn(lent)
        assert _pid(pool) in pids


def _pid(pool: Any) -> Any:
    with pool.connection() as conn:
        return ask(conn, PID)


@needs("hub")
@over_psycopg()
def test_forked_copies_of_waiting_tasks_end(ctx: Context) -> None:
    with pool_of(ctx, timeout=20.0) as pool:
        lent, waiting = _lent_and_waiting(ctx, pool)

        def work() -> list[str]:
            ctx.wait_until(lambda: waiting.ended, "the copy has ended")
            return [type(waiting.error).__name__]

        assert Child(ctx, work).result() == ["PoolClosed"]
        pool.putconn(lent)
        assert waiting.result() is lent
        pool.putconn(lent)


@needs("hub")
@over_psycopg()
def test_in_the_hub_nothing_waits(ctx: Context) -> None:
    with pool_of(ctx, max_size=1) as pool:
        conn = pool.getconn()
        ask(conn)
        with raises(ctx.driver.programming, words="event loop"):
            ctx.in_hub(pool.getconn)

        ctx.in_hub(lambda: pool.putconn(conn))

        with pool.connection() as same:
            assert same is conn


@over_psycopg()
def test_pool_of_a_busy_process_blocks_nobody(ctx: Context) -> None:
    with ctx.heartbeat(), pool_of(ctx, min_size=2, max_size=8) as pool:
        finish([ctx.spawn(borrow_and_ask, pool) for _ in range(64)])
