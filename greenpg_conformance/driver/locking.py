"""The lock of a connection: over several operations, in order, and free after any kill."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from greenpg import ConnectionLock, DeadlineExceeded
from greenpg_conformance.harness.tests import each, needs, raises

if TYPE_CHECKING:
    from greenpg_conformance.harness.context import Context

SHORT: Final = 0.03


def test_exclusive_spans_operations(ctx: Context) -> None:
    conn, order = ctx.connect(), list[str]()

    def intrude() -> None:
        conn.cursor().execute("select 1")
        order.append("intruder")

    with conn.exclusive():
        conn.cursor().execute("select 1")
        intruder = ctx.spawn(intrude)
        ctx.backend.sleep(SHORT)
        conn.cursor().execute("select 1")
        conn.commit()
        order.append("holder")
    intruder.result()

    assert order == ["holder", "intruder"]


def test_exclusive_is_reentrant(ctx: Context) -> None:
    conn = ctx.connect()
    lock = ConnectionLock(conn)

    with conn.exclusive(), conn.exclusive(), lock:
        with lock:
            conn.cursor().execute("select 1")
        intruder = ctx.spawn(conn.commit)
        ctx.backend.sleep(SHORT)
        waited = not intruder.ended
        held = lock.locked()

    intruder.result()
    assert waited
    assert held
    assert not lock.locked()


def test_exclusive_ends_with_an_error(ctx: Context) -> None:
    conn = ctx.connect()

    with raises(ZeroDivisionError), conn.exclusive():
        raise ZeroDivisionError

    ctx.spawn(conn.commit).result()
    with raises(RuntimeError):
        ConnectionLock(conn).release()


def test_only_the_holder_releases(ctx: Context) -> None:
    conn = ctx.connect()

    with conn.exclusive():
        thief = ctx.spawn(ConnectionLock(conn).release)

        with raises(RuntimeError):
            thief.result()
        assert ConnectionLock(conn).locked()


def test_waiting_for_the_lock_times_out(ctx: Context) -> None:
    conn = ctx.connect()

    def impatient() -> None:
        ConnectionLock(conn).acquire(timeout=SHORT)

    with conn.exclusive(), raises(DeadlineExceeded):
        ctx.spawn(impatient).result()

    ctx.spawn(conn.commit).result()


def test_deadline_counts_the_wait_for_the_lock(ctx: Context) -> None:
    conn = ctx.connect()

    def impatient() -> None:
        with conn.deadline(SHORT):
            conn.cursor().execute("select 1")

    with conn.exclusive(), raises(DeadlineExceeded):
        ctx.spawn(impatient).result()

    ctx.spawn(conn.commit).result()


def test_lock_is_for_connections_of_greenpg(ctx: Context) -> None:
    with raises(TypeError, words="greenpg.connect"):
        ConnectionLock(object())


@needs("kill")
@each("kill", "timeout")
def test_waiter_that_gives_up_leaves_no_hole(ctx: Context, case: str) -> None:
    conn = ctx.connect()
    with conn.exclusive():
        quitter = ctx.spawn(_limited(ctx, conn.commit) if case == "timeout" else conn.commit)
        patient = ctx.spawn(conn.commit)
        ctx.backend.sleep(SHORT)
        if case == "kill":
            quitter.kill()
        quitter.join()
        assert quitter.error is not None
        assert not patient.ended

    patient.result()
    assert not ConnectionLock(conn).locked()


def _limited(ctx: Context, fn: Callable[[], object]) -> Callable[[], object]:
    def limited() -> None:
        with ctx.timeout(SHORT):
            fn()

    return limited


@needs("kill")
def test_waiter_killed_as_its_turn_comes_passes_it_on(ctx: Context) -> None:
    conn = ctx.connect()
    for _ in range(20):
        lock = ConnectionLock(conn)
        lock.acquire()
        first, second = ctx.spawn(conn.commit), ctx.spawn(conn.commit)
        ctx.backend.sleep(0.002)

        lock.release()
        first.kill()

        first.join()
        second.result()
    assert not lock.locked()


@needs("kill")
def test_killed_holder_lets_go(ctx: Context) -> None:
    conn = ctx.connect()

    def hold() -> None:
        with conn.exclusive():
            ctx.backend.sleep(10)

    holder = ctx.spawn(hold)
    ctx.backend.sleep(SHORT)
    waiter = ctx.spawn(conn.commit)

    holder.kill()

    waiter.result()


@needs("kill")
def test_storm_of_kills_leaves_the_lock_free(ctx: Context) -> None:
    conn, inside = ctx.connect(autocommit=True), list[int]()

    def use() -> None:
        with conn.exclusive():
            inside.append(1)
            assert len(inside) == 1, "two tasks hold the lock"
            try:
                ctx.backend.sleep(ctx.random.random() * 0.002)
            finally:
                inside.pop()

    for _ in range(30):
        jobs = [ctx.spawn(use) for _ in range(12)]
        for _ in range(8):
            ctx.backend.sleep(ctx.random.random() * 0.002)
            ctx.random.choice(jobs).kill()
        for job in jobs:
            job.join()
            assert job.error is None or isinstance(job.error, ctx.backend.exits), job.error

    assert not ConnectionLock(conn).locked()
    conn.cursor().execute("select 1")
