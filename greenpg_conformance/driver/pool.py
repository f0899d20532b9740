"""The pool: fair and exact, whichever task is killed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import psycopg2
from psycopg2.extensions import make_dsn

from greenpg.errors import PoolTimeout
from greenpg_conformance.harness.tests import each, limit, needs, raises
from greenpg_conformance.storm.pool_storm import PoolStorm

from ._pool_fixtures import ask, borrow_and_ask, count, pool_of
from ._pool_spies import Line, Starter
from .forks import Child

if TYPE_CHECKING:
    from greenpg_conformance.harness.context import Context

ROUNDS: Final = 300
ROUNDS_OF_ALL: Final = 30  # of 64 borrowers, who may be OS threads


@limit(60)
def test_kills_and_timeouts_lose_no_slot(ctx: Context) -> None:
    dsn = make_dsn(ctx.dsn, application_name=f"{ctx.name}_pool")
    seed = ctx.random.randrange(1 << 30)
    ctx.note(f"seed {seed}")
    kills = "kill" in ctx.backend.capabilities
    timeout = ctx.description.timeout
    storm = PoolStorm(ctx.backend, dsn, lambda: count(ctx), timeout, seed)
    try:
        storm.play(ROUNDS)
    finally:
        storm.close()

    assert storm.served > 20
    assert storm.interrupted == (ROUNDS if kills else 0)


@limit(60)
def test_nobody_is_starved_or_overtaken(ctx: Context) -> None:
    served = Counter(dict.fromkeys(range(64), 0))
    over: list[bool] = []
    with pool_of(ctx, min_size=8, timeout=0.5) as pool:
        pool.wait()
        line = Line(pool._pool.performer.state)

        def loop(number: int) -> None:
            while not over:
                with pool.connection() as conn:
                    ask(conn)
                served[number] += 1

        jobs = [ctx.spawn(loop, number) for number in range(64)]
        ctx.wait_until(lambda: min(served.values()) >= ROUNDS_OF_ALL, "all often served", 50)
        counts = list(served.values())
        over.append(True)
        for job in jobs:
            job.result()

    assert len(line.asked) > 1000
    assert line.served == list(line.asked)
    # how long an OS thread's own query takes depends on when it gets the interpreter's lock
    assert "hub" not in ctx.backend.capabilities or max(counts) <= 1.1 * min(counts)


@needs("kill")
def test_time_is_kept_though_all_tasks_of_the_pool_are_killed(ctx: Context) -> None:
    with pool_of(ctx) as pool:
        starter = pool._pool.performer._backend = Starter(ctx.backend)
        lent = pool.getconn()
        waiting = ctx.spawn(pool.getconn, 0.5)
        ctx.wait_until(lambda: pool.get_stats()["requests_waiting"], "one waits")

        for task in starter.tasks:
            task.kill()

        assert isinstance(waiting.join().error, PoolTimeout)
        pool.putconn(lent)


@needs("kill")
def test_killed_close_goes_on(ctx: Context) -> None:
    with pool_of(ctx, min_size=3) as pool:
        pool.wait()
        lent = pool.getconn()
        closing = ctx.spawn(pool.close, 20.0)
        ctx.wait_until(lambda: pool.closed and count(ctx) == 1, "only the lent one is left")

        closing.kill()

        assert isinstance(closing.join().error, ctx.backend.exits)
        assert ask(lent) == 1
        pool.putconn(lent)
        ctx.wait_until(lambda: count(ctx) == 0, "no session is left")


@each("plain", "tls")
def test_forked_child_gets_connections_of_its_own(ctx: Context, case: str) -> None:
    dsn = ctx.proxy(tls=True).dsn if case == "tls" else None
    with pool_of(ctx, dsn, min_size=2) as pool:
        pool.wait()
        lent = pool.getconn()
        pids = {ask(lent, "select pg_backend_pid()")}
        with pool.connection() as conn:
            pids.add(ask(conn, "select pg_backend_pid()"))

        def work() -> list[int]:
            with pool.connection() as conn:
                found: int = ask(conn, "select pg_backend_pid()")
            pool.close()
            return [found]

        theirs = Child(ctx, work).result()

        assert isinstance(theirs, list), theirs
        assert not pids & set(theirs)
        assert ask(lent) == 1
        pool.putconn(lent)
        with pool.connection() as conn:
            assert ask(conn, "select pg_backend_pid()") in pids


@needs("hub")
def test_forked_copies_of_waiting_tasks_end(ctx: Context) -> None:
    with pool_of(ctx, timeout=20.0) as pool:
        lent = pool.getconn()
        waiting = ctx.spawn(pool.getconn)
        ctx.wait_until(lambda: pool.get_stats()["requests_waiting"], "one waits")

        def work() -> list[str]:
            ctx.wait_until(lambda: waiting.ended, "the copy has ended")
            return [type(waiting.error).__name__]

        theirs = Child(ctx, work).result()

        assert theirs == ["PoolClosed"]
        pool.putconn(lent)
        assert waiting.result() is lent
        pool.putconn(lent)


@needs("hub")
def test_in_the_hub_nothing_waits(ctx: Context) -> None:
    with pool_of(ctx, max_size=1) as pool:
        conn = pool.getconn()
        ask(conn)
        with raises(psycopg2.ProgrammingError, words="event loop"):
            ctx.in_hub(pool.getconn)

        ctx.in_hub(lambda: pool.putconn(conn))

        with pool.connection() as same:
            assert same is conn


def test_pool_of_a_busy_process_blocks_nobody(ctx: Context) -> None:
    with ctx.heartbeat(), pool_of(ctx, min_size=2, max_size=8) as pool:
        for job in [ctx.spawn(borrow_and_ask, pool) for _ in range(64)]:
            job.result()
