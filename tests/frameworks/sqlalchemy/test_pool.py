"""GreenQueuePool: the promises of QueuePool, and its own."""

from __future__ import annotations

import gc
import os
import warnings
from collections import Counter
from contextlib import ExitStack, closing

import pytest
from psycopg2.extensions import parse_dsn
from sqlalchemy import event, exc
from sqlalchemy.pool import QueuePool

import greenpg
from greenpg.backend import current
from greenpg.sqlalchemy import GreenQueuePool
from tests.db.conftest import until

from .conftest import ask, pid

EVENTS = (
    *("first_connect", "connect", "checkout", "checkin", "reset"),
    *("soft_invalidate", "invalidate", "close", "detach", "close_detached"),
)
NOWHERE = {"host": "127.0.0.1", "port": "1", "connect_timeout": 2}


def terminate(dsn, *pids):
    with closing(greenpg.connect(dsn)) as admin:
        for one in pids:
            admin.cursor().execute(f"select pg_terminate_backend({one}, 5000)")


def recorded(pool):
    """Return a list to which the names of the pool's events are appended."""
    seen = []
    for name in EVENTS:
        event.listen(pool, name, lambda *_, name=name: seen.append(name))
    return seen


def measures(pool):
    return pool.size(), pool.checkedin(), pool.checkedout(), pool.overflow(), pool.timeout()


def open_connections(engine, count):
    with ExitStack() as stack:
        return {pid(stack.enter_context(engine.connect())) for _ in range(count)}


# QueuePool's promises


def life(engine):
    """Use an engine's pool in every way; return its measures after each step."""
    pool = engine.pool
    notes = [measures(pool)]
    with engine.connect():
        notes.append(measures(pool))
    notes.append(measures(pool))
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(engine.connect())
        notes.append(measures(pool))
    notes.append(measures(pool))
    with engine.connect() as conn:
        conn.invalidate()
        ask(conn)
    with engine.connect() as conn:
        conn.connection.invalidate(soft=True)
    with engine.connect() as conn:
        ask(conn)
        conn.detach()  # QueuePool counts the empty slots left by this and by invalidate()
    pool.dispose()
    return [*notes, measures(pool)]


def test_measures_and_events_are_queuepools(make):
    options = {"pool_size": 2, "max_overflow": 1, "pool_timeout": 3}
    ours, theirs = make(**options), make(poolclass=QueuePool, **options)
    our_events, their_events = recorded(ours.pool), recorded(theirs.pool)

    our_notes, their_notes = life(ours), life(theirs)

    assert our_notes == their_notes
    assert Counter(our_events) == Counter(their_events)
    assert set(our_events) == set(EVENTS)


def test_other_libraries_find_a_queue_pool(make):
    engine = make(pool_size=2, max_overflow=1, pool_timeout=3)
    chosen = engine.url.get_dialect().get_pool_class(engine.url)  # how oslo.db chooses its options

    with engine.connect(), engine.connect(), engine.connect():
        found = [getattr(engine.pool, name) for name in ("_max_overflow", "_timeout", "_overflow")]
        text = engine.pool.status()

    assert issubclass(chosen, QueuePool)
    assert isinstance(engine.pool, QueuePool)
    assert found == [1, 3, 1]
    assert text.startswith(
        "Pool size: 2  Connections in pool: 0 Current Overflow: 1 "
        "Current Checked out connections: 3"
    )
    assert (engine.pool._pool.maxsize, engine.pool._pool.qsize()) == (2, 2)


def test_a_listener_of_all_queue_pools_hears_it(make):
    engine = make(pool_size=1)
    seen = []

    def checkout(*_):
        seen.append("checkout")

    event.listen(QueuePool, "checkout", checkout)
    try:
        open_connections(engine, 1)
    finally:
        event.remove(QueuePool, "checkout", checkout)

    assert seen == ["checkout"]


def test_too_long_a_wait_ends_in_sqlalchemys_timeout(make):
    engine = make(pool_size=1, max_overflow=1, pool_timeout=0.05)
    with engine.connect(), engine.connect(), pytest.raises(exc.TimeoutError) as caught:
        engine.connect()

    text = str(caught.value)
    assert "limit of size 1 overflow 1 reached" in text
    assert "timeout 0.05 (2 lent, 0 waiting" in text
    assert "test_pool.py" in text
    assert caught.value.code == "3o7r"


def test_holders_and_waiters_name_what_is_outside_sqlalchemy(make):
    engine = make(pool_size=1, max_overflow=0)

    with engine.connect() as conn:
        conn.exec_driver_sql("select 1")
        (holder,) = engine.pool.holders()

    assert holder.place.startswith("test_pool.py:")
    assert holder.state == "idle in transaction"
    assert holder.pid
    assert engine.pool.holders() == engine.pool.waiters() == []


def test_a_timeout_is_among_the_failures(make):
    engine = make(pool_size=1, max_overflow=0, pool_timeout=0.05)

    with engine.connect(), pytest.raises(exc.TimeoutError):
        engine.connect()

    (failure,) = engine.pool.failures()
    assert (failure.what, failure.count) == ("request", 1)


def test_no_time_to_wait_is_enough_for_what_is_free(make):
    engine = make(pool_size=2, max_overflow=0, pool_timeout=0)

    for _ in range(2):
        with engine.connect(), engine.connect(), pytest.raises(exc.TimeoutError):
            engine.connect()


def test_no_limit(make):
    engine = make(pool_size=0)

    assert len(open_connections(engine, 12)) == 12
    assert engine.pool.checkedin() == 12


def test_what_is_older_than_recycle_is_replaced(make):
    engine = make(pool_size=1, pool_recycle=0)
    with engine.connect() as conn:
        first = pid(conn)
    current().sleep(0.002)

    with engine.connect() as conn:
        assert pid(conn) != first


def test_an_open_transaction_is_rolled_back_or_left(make, create):
    table = create("(n int)")
    for style, kept in (("rollback", 0), ("commit", 1)):
        engine = make(pool_size=1, pool_reset_on_return=style)
        raw = engine.raw_connection()
        raw.cursor().execute(f"insert into {table} values (1)")
        raw.close()

        with engine.connect() as conn:
            assert ask(conn, f"select count(*) from {table}") == kept


def test_dispose_closes_what_is_idle_and_then_what_comes_back(make, sessions):
    engine = make(pool_size=2)
    before = len(sessions())
    open_connections(engine, 2)
    old = engine.pool
    lent = engine.connect()
    closed: list[int] = []
    event.listen(old, "close", lambda *_: closed.append(1))

    engine.dispose()
    first = len(closed)
    lent.close()

    assert first == 1
    assert len(closed) == 2
    assert measures(old)[1:3] == (0, 0)
    until(lambda: len(sessions()) == before, "sessions gone")
    with engine.connect() as conn:
        assert ask(conn) == 1
        assert engine.pool is not old


def test_after_dispose_those_who_wait_are_served_and_nothing_is_kept(make, spawn, sessions):
    engine = make(pool_size=2, max_overflow=0, pool_timeout=20)
    before = len(sessions())
    old = engine.pool
    lent = [engine.connect(), engine.connect()]
    jobs = [spawn(open_connections, engine, 1) for _ in range(5)]
    until(lambda: old.waiting() == 5, "five wait")

    engine.dispose()
    for conn in lent:
        conn.close()
    for job in jobs:
        job.result()

    assert measures(old)[1:4] == (0, 0, -2)
    until(lambda: len(sessions()) == before, "sessions gone")


def test_a_pool_that_only_is_emptied_remains_a_pool(make):
    engine = make(pool_size=2)
    ended = open_connections(engine, 2)

    engine.pool.dispose()  # as oslo.db does, for the child of a fork
    found = open_connections(engine, 2)

    assert not found & ended
    assert open_connections(engine, 2) == found


def test_a_connect_that_fails_raises_at_once_and_costs_no_slot(make, spawn):
    engine = make(pool_size=2, max_overflow=0, connect_args=NOWHERE)

    for job in [spawn(engine.connect) for _ in range(7)]:
        with pytest.raises(exc.OperationalError, match="refused"):
            job.result()

    assert measures(engine.pool)[:4] == (2, 0, 0, -2)


def test_who_waits_for_a_first_connect_is_told_so(make, spawn, proxy):
    arguments = {**parse_dsn(proxy.dsn), "connect_timeout": 2}
    engine = make(pool_size=2, pool_timeout=0.05, connect_args=arguments)
    proxy.stall()
    first = spawn(engine.connect)
    until(proxy.accepted, "a connect under way")

    with pytest.raises(exc.TimeoutError, match="the first connect is not over") as caught:
        engine.connect()

    assert caught.value.__cause__ is None
    with pytest.raises(exc.OperationalError):
        first.result()
    second = spawn(engine.connect)
    until(lambda: engine.pool.checkedout() == 1, "another connect under way")
    with pytest.raises(exc.TimeoutError) as caught:
        engine.connect()
    assert isinstance(caught.value.__cause__, engine.dialect.dbapi.OperationalError)
    with pytest.raises(exc.OperationalError):
        second.result()


def test_a_connect_event_that_fails_costs_no_slot(make):
    engine = make(pool_size=1, max_overflow=0)
    failing = [True]

    @event.listens_for(engine, "connect")
    def configure(dbapi_connection, record):
        if failing.pop():
            raise ZeroDivisionError

    failing.extend([False, True])
    with pytest.raises(ZeroDivisionError):
        engine.connect()

    with engine.connect() as conn:
        assert ask(conn) == 1


def test_an_engine_dropped_undisposed_says_nothing(make, sessions):
    if make().driver == "greenpg3":
        pytest.skip("psycopg 3 warns of each connection that is freed open")
    gc.collect()  # other tests' engines
    before = set(sessions())
    engine = make()
    open_connections(engine, 2)
    engine.dispose(close=False)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        until(lambda: gc.collect() is not None and set(sessions()) == before, "sessions gone")


# Its own


def test_simultaneous_first_connects(make, spawn):
    engine = make(pool_size=4, max_overflow=0)

    def wait():
        with engine.connect() as conn:
            return ask(conn, "select pg_sleep(0.02)")

    for job in [spawn(wait) for _ in range(12)]:
        job.result()

    assert engine.pool.checkedin() == 4


@pytest.mark.green  # with threads, the system decides which asks next
def test_waiters_are_served_in_turn(make, spawn):
    engine = make(pool_size=8, max_overflow=0)
    open_connections(engine, 8)
    served: Counter[int] = Counter()

    def work(number):
        while served.total() < 640:
            with engine.connect() as conn:
                served[number] += 1
                ask(conn)

    for job in [spawn(work, number) for number in range(64)]:
        job.result(15)

    assert len(served) == 64
    assert max(served.values()) - min(served.values()) <= 3


@pytest.mark.parametrize("ping", [False, True])
def test_sessions_ended_by_an_administrator_are_replaced_unseen(make, dsn, ping):
    engine = make(pool_size=4, pool_pre_ping=ping)
    ended = open_connections(engine, 4)
    seen = recorded(engine.pool)
    terminate(dsn, *ended)

    found = open_connections(engine, 4)

    assert not found & ended
    assert seen.count("invalidate") == 4
    assert engine.pool.checkedout() == 0


@pytest.mark.parametrize("ping", [False, True])
def test_with_pre_ping_a_connection_idle_for_long_is_pinged(make, monkeypatch, ping):
    monkeypatch.setattr("greenpg.sqlalchemy._pool.PINGED_AFTER", 0.01)
    engine = make(pool_size=1, pool_pre_ping=ping)
    pings = []
    with engine.connect() as conn:
        before = pid(conn)
    usual = engine.dialect.do_ping

    def do_ping(conn):
        pings.append(conn)
        return usual(conn)

    monkeypatch.setattr(engine.dialect, "do_ping", do_ping)
    current().sleep(0.03)

    with engine.connect() as conn:
        assert pid(conn) == before

    assert len(pings) == ping


def test_a_connection_closed_behind_the_pools_back_is_replaced(make):
    engine = make(pool_size=1)
    with engine.connect() as conn:
        before = pid(conn)
        raw = conn.connection.driver_connection
    raw.close()

    with engine.connect() as conn:
        assert pid(conn) != before


def test_a_proxied_connection_that_is_lost_comes_back(make):
    engine = make(pool_size=1, max_overflow=0, pool_timeout=5)
    lost = [engine.raw_connection()]
    lost.append(lost)

    del lost
    gc.collect()

    with engine.connect() as conn:
        assert ask(conn) == 1
    assert type(engine.pool) is GreenQueuePool


def test_the_pool_serves_sqlalchemys_own_dialects_too(driver, make, dsn):
    engine = make(driver, poolclass=GreenQueuePool, pool_size=2)
    ended = open_connections(engine, 2)
    terminate(dsn, *ended)

    assert not open_connections(engine, 2) & ended


def test_a_forked_child_has_sessions_of_its_own(make):
    engine = make(pool_size=2)
    parents = open_connections(engine, 2)

    child = os.fork()
    if not child:
        code = 1
        try:
            code = 2 if open_connections(engine, 2) & parents else 0
        finally:
            os._exit(code)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert open_connections(engine, 2) == parents
