"""Steps that many tests take: questions, interrupts, and what must hold after them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import StringIO
from typing import Any, Final

import greenpg
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.drivers import PSYCOPG2
from greenpg_conformance.harness.tests import raises
from greenpg_conformance.toolkit.jobs import SECONDS

SHORT: Final = 0.05
LONG: Final = "select pg_sleep(30)"
INTERRUPTS: Final = ("timeout", "kill")
LIBPQS: Final = ("libpq 17", "libpq 16")
WAYS: Final[dict[str, Callable[[Any], object]]] = {
    "execute": lambda conn: conn.cursor().execute(LONG),
    "executemany": lambda conn: conn.cursor().executemany("select pg_sleep(%s)", [(0,), (30,)]),
    "callproc": lambda conn: conn.cursor().callproc("pg_sleep", (30,)),
    "named cursor": lambda conn: _fetch_by_name(conn),
    "with conn": lambda conn: in_a_block(conn),
    "copy": lambda conn: conn.cursor().copy_expert(f"copy ({LONG}) to stdout", StringIO()),
}


WAYS_OF_PSYCOPG: Final[dict[str, Callable[[Any], object]]] = {
    **{name: WAYS[name] for name in ("execute", "executemany", "named cursor")},
    "transaction": lambda conn: in_a_transaction(conn),
    "pipeline": lambda conn: _in_a_pipeline(conn),
    "copy": lambda conn: _copy_out(conn),
    "stream": lambda conn: next(conn.cursor().stream(LONG)),
}


def way(ctx: Context, name: str) -> Callable[[Any], object]:
    """Return a way to run a long query with the test's driver."""
    return (WAYS if ctx.driver is PSYCOPG2 else WAYS_OF_PSYCOPG)[name]


def in_a_transaction(conn: Any) -> None:
    with conn.transaction(), conn.cursor() as cur:
        cur.execute(LONG)


def _in_a_pipeline(conn: Any) -> None:
    with conn.pipeline():
        conn.cursor().execute(LONG)


def _copy_out(conn: Any) -> None:
    with conn.cursor().copy(f"copy ({LONG}) to stdout") as copy:
        copy.read()


def _fetch_by_name(conn: Any) -> None:
    with conn.cursor("slow", withhold=conn.autocommit) as cur:
        cur.execute(LONG)
        cur.fetchone()


def in_a_block(conn: Any) -> None:
    with conn, conn.cursor() as cur:
        cur.execute(LONG)


def libpq(ctx: Context, case: str) -> AbstractContextManager[object]:
    return ctx.driver.older_libpq() if case.endswith("libpq 16") else nullcontext()


def ask(conn: Any, query: str = "select 7", *args: object) -> Any:
    """Return the one value of a query."""
    with conn.cursor() as cur:
        cur.execute(query, args or None)
        ((value,),) = cur.fetchall()
        return value


@contextmanager
def wait_callback(callback: Callable[[Any], object]) -> Iterator[None]:
    greenpg.set_wait_callback(callback)
    try:
        yield
    finally:
        greenpg.set_wait_callback(None)


def far(ctx: Context, seconds: float, first: str | None = "select 1", **options: Any) -> Any:
    """Return a connection, in a transaction, to which answers take so long from here on."""
    conn = ctx.connect(ctx.proxy().dsn, **options)
    if first:
        conn.cursor().execute(first)
    ctx.proxy().delay(seconds)
    return conn


def finish(jobs: Iterable[Any], seconds: float = SECONDS) -> list[Any]:
    """Wait for jobs, up to `seconds` for each, and return or raise what they did."""
    return [job.result(seconds) for job in jobs]


def check_killed(ctx: Context, job: Any) -> None:
    """Kill a job and fail unless the kill ends it."""
    job.kill()
    assert isinstance(job.join().error, ctx.backend.exits), repr(job.error)


def kill_sometime(ctx: Context, work: Callable[..., object], *args: object) -> None:
    """Run something in a task that is killed at a random moment, or has ended by then."""
    job = ctx.spawn(work, *args)
    ctx.backend.sleep(ctx.random.uniform(0, 0.004))
    job.kill()
    job.join()


def spawn_busy(ctx: Context, conn: Any, work: Callable[..., object], *args: object) -> Any:
    """Return a job, once the server runs its statement on the connection."""
    job = ctx.spawn(work, *args)
    ctx.busy(conn)
    return job


def check_alive(ctx: Context, conn: Any) -> None:
    """Fail unless the server has stopped the query and the connection does the next one."""
    pid = conn.info.backend_pid
    ctx.wait_until(lambda: not ctx.server.is_busy(pid), "the query has ended")
    assert ask(conn) == 7
    assert conn.info.backend_pid == pid


def check_doomed(ctx: Context, conn: Any) -> None:
    """Fail unless the interrupted transaction takes nothing but a rollback."""
    for refused in (conn.commit, lambda: conn.cursor().execute("select 1"), conn.tpc_recover):
        with raises(ctx.driver.failed_transaction):
            refused()
    with (
        raises(ctx.driver.failed_transaction),
        conn if ctx.driver is PSYCOPG2 else conn.transaction(),
    ):
        pass
    conn.rollback()


def interrupted(ctx: Context, how: str, work: Callable[[], object], seconds: float) -> None:
    """Run something in a task and interrupt it; the very exception must propagate."""
    timeouts: list[Any] = []

    def bounded() -> None:
        timeouts.append(ctx.timeout(seconds))
        with timeouts[0]:
            work()

    task = ctx.spawn(bounded if how == "timeout" else work)
    if how == "kill":
        ctx.backend.sleep(seconds)
        task.kill()
    task.join()
    if how == "timeout":
        assert task.error is timeouts[0], repr(task.error)
    else:
        assert isinstance(task.error, ctx.backend.exits), repr(task.error)
