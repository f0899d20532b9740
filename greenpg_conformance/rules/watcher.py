"""The watcher that a connection keeps: no lost or wrong wake-up, and no spinning."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any, Final

import psycopg2
from psycopg2.extensions import make_dsn

import greenpg
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import each, needs, raises
from greenpg_conformance.storm.interrupts import CountingBackend

from .asking import asked

SHORT: Final = 0.03
FEW: Final = 20


class Counter(CountingBackend):
    """A backend that counts the waits for sockets."""

    waits = 0

    def _begins(self) -> None:
        self.waits += 1


def _used(ctx: Context) -> Any:
    """Return a connection that has waited, by which it has its watcher."""
    conn = ctx.connect(autocommit=True)
    assert asked(conn, 7) == 7
    return conn


@contextmanager
def _nothing_stays(ctx: Context) -> Iterator[None]:
    """Fail if the block leaves a watcher, a descriptor or a session, or makes the loop spin."""
    registered, descriptors = ctx.registered(), ctx.descriptors()
    yield
    ctx.wait_until(lambda: ctx.registered() == registered, "nothing is registered")
    ctx.wait_until(lambda: ctx.descriptors() == descriptors, "no descriptor is left")
    ctx.stays_idle()


def test_next_socket_while_connecting_is_watched_instead(ctx: Context) -> None:
    backend = Counter(ctx.backend)
    ctx.proxy().delay(SHORT, way="both", scope="coming")
    dsn = make_dsn(ctx.proxy().dsn, target_session_attrs="prefer-standby")  # libpq tries twice

    with closing(ctx.connect(dsn, backend=backend)) as conn:
        assert backend.waits < FEW, f"{backend.waits} waits"
        assert asked(conn, 7) == 7


def test_close_leaves_nothing(ctx: Context) -> None:
    with _nothing_stays(ctx):
        conn = _used(ctx)

        conn.close()
        conn.close()


def test_lost_connection_leaves_nothing(ctx: Context) -> None:
    with _nothing_stays(ctx):
        conn = greenpg.connect(ctx.dsn)
        pid = conn.info.backend_pid
        conn.cursor().execute("select 1")

        del conn

        ctx.wait_until(lambda: not ctx.server.exists(pid), "the session has ended")


def test_lost_connection_in_a_cycle_leaves_nothing(ctx: Context) -> None:
    with _nothing_stays(ctx):
        conn: Any = greenpg.connect(ctx.dsn)
        pid = conn.info.backend_pid
        cur = conn.cursor()
        cur.execute("select 1")
        conn.cycle = [conn, cur]

        del conn, cur
        gc.collect()

        ctx.wait_until(lambda: not ctx.server.exists(pid), "the session has ended")


def test_connection_lost_in_another_thread_leaves_nothing(ctx: Context) -> None:
    kept = [greenpg.connect(ctx.dsn)]
    kept[0].cursor().execute("select 1")
    pid = kept[0].info.backend_pid

    ctx.native(kept.clear).join()

    ctx.wait_until(lambda: not ctx.server.exists(pid), "the session has ended")
    ctx.stays_idle()


@each("idle", "busy")
def test_server_that_closes(ctx: Context, case: str) -> None:
    with _nothing_stays(ctx), closing(_used(ctx)) as conn:
        pid = conn.info.backend_pid

        _query_fails_after(ctx, lambda: ctx.server.terminate(pid), conn, case)

        assert conn.closed


@each("idle", "busy")
def test_connection_that_is_cut(ctx: Context, case: str) -> None:
    proxy = ctx.proxy()
    with _nothing_stays(ctx), closing(ctx.connect(proxy.dsn, autocommit=True)) as conn:
        pid = conn.info.backend_pid
        _query_fails_after(ctx, proxy.cut, conn, case)
        ctx.server.terminate(pid)  # it does not see the cut while it sleeps


def _query_fails_after(ctx: Context, act: Callable[[], object], conn: Any, case: str) -> None:
    query = ctx.spawn(asked, conn, 7, 30 if case == "busy" else 0)
    if case == "busy":
        ctx.busy(conn)
    else:
        query.join()
    act()
    if case == "idle":
        ctx.stays_idle()
        query = ctx.spawn(asked, conn, 7)
    with raises(greenpg.OperationalError):
        query.result()


@each("close", "server closes", "lost")
def test_next_connection_with_the_same_descriptor(ctx: Context, case: str) -> None:
    for number in range(10):
        old = greenpg.connect(ctx.dsn)
        old.cursor().execute("select 1")
        descriptor = old.fileno()
        _end(ctx, old, case)
        del old

        new = ctx.connect()

        assert new.fileno() == descriptor
        assert asked(new, number, 0.003) == number
        new.close()


def _end(ctx: Context, conn: Any, way: str) -> None:
    if way == "close":
        conn.close()
    elif way == "server closes":
        ctx.server.terminate(conn.info.backend_pid)
        with suppress(greenpg.OperationalError):
            conn.cursor().execute("select 1")


@each("close", "server closes", "lost")
def test_next_green_socket_with_the_same_descriptor(ctx: Context, case: str) -> None:
    old = greenpg.connect(ctx.dsn)
    old.cursor().execute("select 1")
    descriptor = old.fileno()
    _end(ctx, old, case)
    del old
    ours, theirs = ctx.sockets().socketpair()
    number = os.dup2(ours.fileno(), descriptor) if ours.fileno() != descriptor else -1
    taken = ours if number < 0 else ctx.sockets().socket(fileno=number)

    reader = ctx.spawn(taken.recv, 10)
    ctx.backend.sleep(SHORT)
    early = reader.ended
    theirs.send(b"hello")

    assert not early
    assert reader.result() == b"hello"
    for end in (ours, theirs, taken):
        end.close()


def test_socket_that_takes_the_place_of_one_that_libpq_closed(ctx: Context) -> None:
    conn = _used(ctx)
    descriptor = conn.fileno()
    query = ctx.spawn(asked, conn, 7, 10)
    ctx.busy(conn)
    ctx.server.terminate(conn.info.backend_pid)
    query.join()
    ours, theirs = ctx.sockets().socketpair()
    if ours.fileno() != descriptor:
        ours, theirs = theirs, ours
    reader = ctx.spawn(ours.recv, 10)
    ctx.backend.sleep(SHORT)

    del query
    conn.close()
    theirs.send(b"hello")

    assert reader.result() == b"hello"
    ours.close()
    theirs.close()


def test_unsolicited_notifications_do_not_spin(ctx: Context) -> None:
    conn = _used(ctx)
    conn.cursor().execute(f"listen {ctx.name}")

    for _ in range(3):
        ctx.server.ask("select pg_notify(%s, 'unasked')", ctx.name)
        ctx.stays_idle()

    assert asked(conn, 7) == 7
    assert [note.payload for note in conn.notifies] == ["unasked"] * 3


def test_storm_of_notifications_beside_queries(ctx: Context) -> None:
    conn = _used(ctx)
    conn.cursor().execute(f"listen {ctx.name}")
    for number in range(100):
        ctx.server.ask("select pg_notify(%s, %s)", ctx.name, str(number))
        if number % 3 == 0:
            ctx.backend.pause()

        assert asked(conn, number) == number

    assert len(conn.notifies) == 100


def test_idle_connections_cost_nothing(ctx: Context) -> None:
    conns = [_used(ctx) for _ in range(20)]

    ctx.stays_idle()

    assert [asked(conn, number) for number, conn in enumerate(conns)] == list(range(20))


def test_waiting_for_a_slow_query_costs_nothing(ctx: Context) -> None:
    conn = _used(ctx)
    query = ctx.spawn(asked, conn, 7, 30)
    ctx.busy(conn)

    ctx.stays_idle()

    conn.cancel()
    with raises(greenpg.errors.QueryCanceled):
        query.result()


@each("select", "poll")
def test_users_own_wait_beside_ours(ctx: Context, case: str) -> None:
    conn = _used(ctx)
    conn.cursor().execute(f"listen {ctx.name}")
    wait = partial(_select, ctx.select()) if case == "select" else partial(_poll, ctx)
    waiter = ctx.spawn(wait, conn)
    ctx.backend.sleep(SHORT)
    early = waiter.ended

    ctx.server.ask("select pg_notify(%s, 'asked')", ctx.name)

    assert not early
    assert waiter.result()
    conn.poll()
    assert [note.payload for note in conn.notifies] == ["asked"]
    assert asked(conn, 7) == 7


def _select(select: Any, conn: Any) -> bool:
    return bool(select.select([conn], [], [], 5) == ([conn], [], []))


def _poll(ctx: Context, conn: Any) -> bool:
    with closing(ctx.backend.waiter()) as waiter:
        return waiter.wait(conn.fileno(), greenpg.backend.READ, 5) == greenpg.backend.READ


@needs("hub")  # an OS thread may read before another one's poll() has looked
def test_watching_while_a_query_runs(ctx: Context) -> None:
    conn = _used(ctx)
    query = ctx.spawn(asked, conn, 7, 0.1)
    ctx.busy(conn)

    watched = _poll(ctx, conn)

    assert watched
    assert query.result() == 7


def test_finalizer_that_queries_between_arming_and_waiting(ctx: Context) -> None:
    conn, other = _used(ctx), _used(ctx)
    answers: list[int] = []

    class Litter:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            with suppress(psycopg2.Error):
                answers.append(asked(other, 8))

    usual = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for number in range(100):
            Litter()
            assert asked(conn, number) == number
    finally:
        gc.set_threshold(*usual)

    assert set(answers) == {8}


def test_many_connections_each_get_their_own_rows(ctx: Context) -> None:
    conns = [_used(ctx) for _ in range(10)]

    def work(conn: Any, base: int) -> None:
        for number in range(base, base + 30):
            assert asked(conn, number, ctx.random.random() * 0.002) == number

    with ctx.heartbeat():
        jobs = [ctx.spawn(work, conn, 1000 * index) for index, conn in enumerate(conns)]
        for job in jobs:
            job.result()
