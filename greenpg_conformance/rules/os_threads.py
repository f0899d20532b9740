"""Connections and OS threads: one at a time on a green backend, any number on threads."""

from __future__ import annotations

from typing import Any, Final

import greenpg
from greenpg.threads import pristine
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import needs, raises

from .asking import asked

SLOW: Final = 0.2
_ident = pristine("_thread").get_ident


def test_connection_moves_between_operations(ctx: Context) -> None:
    conn = ctx.connect()
    for number in range(5):
        assert asked(conn, number) == number

        assert ctx.native(asked, conn, 100 + number).result() == 100 + number

    conn.commit()
    ctx.stays_idle()


def test_transaction_moves_with_its_connection(ctx: Context) -> None:
    conn = ctx.connect()
    conn.cursor().execute("create temporary table moved on commit drop as select 1 as n")

    ctx.native(lambda: conn.cursor().execute("insert into moved values (2)")).result()

    with conn.cursor() as cur:
        cur.execute("select sum(n) from moved")
        assert cur.fetchall() == [(3,)]


def test_connection_made_in_a_thread_can_be_used_here(ctx: Context) -> None:
    conn = ctx.native(ctx.connect).result()

    assert asked(conn, 7) == 7


@needs("hub")
def test_two_threads_at_once_are_refused(ctx: Context) -> None:
    conn = ctx.connect()
    query = ctx.spawn(asked, conn, 7, SLOW)
    ctx.busy(conn)
    intruder = ctx.native(lambda: (_ident(), _refused(conn)))

    other, error = intruder.result()

    assert str(other) in error
    assert str(_ident()) in error
    assert query.result() == 7


def _refused(conn: Any) -> str:
    with raises(greenpg.ProgrammingError) as caught:
        asked(conn, 8)
    return str(caught.error)


def test_thread_waits_for_an_exclusive_block(ctx: Context) -> None:
    conn, order = ctx.connect(), list[str]()

    def intrude() -> None:
        conn.cursor().execute("select 1")
        order.append("thread")

    with conn.exclusive():
        thread = ctx.native(intrude)
        ctx.backend.sleep(0.05)
        order.append("holder")
    thread.result()

    assert order == ["holder", "thread"]


def test_close_by_another_thread_ends_a_query(ctx: Context) -> None:
    conn = ctx.connect()
    query = ctx.spawn(asked, conn, 7, 10)
    ctx.busy(conn)

    ctx.native(conn.close).result()

    assert isinstance(query.join().error, (greenpg.InterfaceError, greenpg.OperationalError))
    assert conn.closed


def test_cancel_by_another_thread(ctx: Context) -> None:
    conn = ctx.connect(autocommit=True)
    query = ctx.spawn(asked, conn, 7, 10)
    ctx.busy(conn)

    ctx.native(conn.cancel).result()

    with raises(greenpg.errors.QueryCanceled):
        query.result(3)
    assert asked(conn, 8) == 8


def test_threads_with_connections_of_their_own(ctx: Context) -> None:
    def work(base: int) -> None:
        conn = greenpg.connect(ctx.dsn, backend=ctx.backend)
        for number in range(base, base + 20):
            assert asked(conn, number, 0.002) == number
        conn.close()

    with ctx.heartbeat():
        jobs = [ctx.native(work, 1000 * number) for number in range(3)]
        jobs += [ctx.spawn(work, 1000 * number) for number in range(3)]
        for job in jobs:
            job.result()


def test_plainly_blocking_connection_in_threads(ctx: Context) -> None:
    conn = ctx.connect(backend="threads")

    def work(base: int) -> None:
        for number in range(base, base + 20):
            assert asked(conn, number) == number

    with ctx.heartbeat():
        jobs = [ctx.native(work, 1000 * number) for number in range(4)]
        for job in jobs:
            job.result()


def test_jobs_and_names_of_every_thread_are_served(ctx: Context) -> None:
    """A library's own threads may answer only to the hub that was first to use them."""

    def work() -> tuple[object, list[object]]:
        value = ctx.backend.in_thread(divmod, 7, 3)
        with raises(ZeroDivisionError):
            ctx.backend.in_thread(divmod, 7, 0)
        return value, [row[4][:2] for row in ctx.backend.resolve("127.0.0.1", 5432)]

    expected = ((2, 1), [("127.0.0.1", 5432)])

    one_after_another = [work(), *(ctx.native(work).result() for _ in range(3))]
    jobs = [ctx.native(work) for _ in range(3)]
    at_once = [work(), *(job.result() for job in jobs)]

    assert one_after_another + at_once == 8 * [expected]


def test_thread_waits_for_a_task_of_another(ctx: Context) -> None:
    task = ctx.backend.spawn(ctx.backend.sleep, SLOW)

    early, late = ctx.native(lambda: (task.join(0), task.join())).result()

    assert not early
    assert late


@needs("kill")
def test_task_is_killed_by_another_thread(ctx: Context) -> None:
    event = ctx.backend.event()
    task = ctx.backend.spawn(event.wait)  # while nothing else wakes its hub
    ctx.backend.pause()

    def kill() -> bool:
        task.kill()
        return task.join(10)

    ended = ctx.native(kill)

    assert task.join(10)
    assert ended.result()
