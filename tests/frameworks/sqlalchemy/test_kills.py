"""Engines after timeouts and kills: no query runs on, and no connection or slot is lost."""

from __future__ import annotations

import gc
import random
from contextlib import ExitStack, closing, suppress
from importlib import import_module

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn
from sqlalchemy import event, exc, text
from sqlalchemy.orm import Session

from greenpg.backend import current
from greenpg_conformance.harness.describe import find
from greenpg_conformance.toolkit.jobs import Job
from tests.db.conftest import until

from .conftest import ask, pid

pytestmark = pytest.mark.green
LISTENERS = pytest.mark.parametrize("listener", ["before_cursor_execute", "after_cursor_execute"])
STRIKES = 40
RUNNING = """
    select count(*) from pg_stat_activity where application_name = %s
    and state <> 'idle' and pid <> pg_backend_pid()
"""


def timeout(seconds):
    return import_module(current().name).Timeout(seconds)


def killed():
    """Return the exceptions of this library's timeouts and kills."""
    return (import_module(current().name).Timeout, *current().exits)


def running(dsn):
    """Return the number of the tests' sessions that are in a query or a transaction."""
    with closing(psycopg2.connect(dsn)) as conn, conn.cursor() as cur:
        cur.execute(RUNNING, (conn.info.dsn_parameters["application_name"],))
        return cur.fetchall()[0][0]


def interrupted(fn):
    """Run `fn` until a timeout ends it."""
    with pytest.raises(import_module(current().name).Timeout), timeout(0.05):
        fn()


def test_a_timeout_in_a_statement_costs_no_connection(engine, dsn):
    with engine.connect() as conn:
        before = pid(conn)

        interrupted(lambda: ask(conn, "select pg_sleep(20)"))

        assert not conn.invalidated
        with pytest.raises(exc.InternalError, match="interrupted"):
            ask(conn)
        conn.rollback()
        assert pid(conn) == before
    assert running(dsn) == 0
    assert engine.pool.checkedin() == 1


def test_a_swallowed_timeout_commits_nothing(engine, create):
    table = create("(n int)")

    def swallow():
        with engine.begin() as conn:
            conn.execute(text(f"insert into {table} values (1)"))
            interrupted(lambda: ask(conn, "select pg_sleep(20)"))

    with pytest.raises(exc.InternalError):
        swallow()

    with engine.connect() as conn:
        assert ask(conn, f"select count(*) from {table}") == 0


def stall(engine, listener, prefix):
    """Make an engine's listener wait once, at the first statement that begins so."""
    prefixes = [prefix]

    @event.listens_for(engine, listener)
    def wait(conn, cursor, statement, *_):
        if prefixes and statement.lower().startswith(prefixes[0]):
            prefixes.clear()
            current().sleep(20)


@LISTENERS
@pytest.mark.parametrize("stalled", ["insert", "savepoint", "release", "rollback to"])
def test_after_an_exit_in_a_listener_nothing_is_committed(driver, make, create, listener, stalled):
    engine = make(driver)
    table = create("(n int)")

    def nested(conn):
        with conn.begin_nested():
            conn.execute(text(f"insert into {table} values (2)"))
            if stalled == "rollback to":
                raise ZeroDivisionError

    def swallow():
        with engine.begin() as conn:
            conn.execute(text(f"insert into {table} values (1)"))
            stall(engine, listener, stalled)
            interrupted(lambda: nested(conn))
            conn.execute(text(f"insert into {table} values (3)"))

    with pytest.raises(exc.PendingRollbackError):
        swallow()

    with engine.connect() as conn:
        assert ask(conn, f"select count(*) from {table}") == 0


@LISTENERS
def test_a_transaction_whose_first_statement_is_missing_is_not_committed(
    driver, make, create, listener
):
    engine = make(driver)
    table = create("(n int)")

    def swallow():
        with engine.begin() as conn:
            stall(engine, listener, "insert")
            interrupted(lambda: conn.execute(text(f"insert into {table} values (1)")))
            conn.execute(text(f"insert into {table} values (2)"))

    with pytest.raises(exc.PendingRollbackError):
        swallow()

    with engine.connect() as conn:
        assert ask(conn, f"select count(*) from {table}") == 0


def test_a_timeout_swallowed_in_a_fetch_commits_nothing(engine, create):
    table = create("(n int)")

    def swallow():
        with engine.begin() as conn:
            conn.execute(text(f"insert into {table} values (1)"))
            rows = conn.execute(text("select n::text from generate_series(1, 1000000) n"))
            interrupted(rows.fetchall)

    with pytest.raises(exc.InternalError, match="interrupted"):
        swallow()

    with engine.connect() as conn:
        assert ask(conn, f"select count(*) from {table}") == 0


def test_under_autocommit_the_next_statement_runs_at_once(engine):
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        before = pid(conn)
        interrupted(lambda: ask(conn, "select pg_sleep(20)"))

        assert pid(conn) == before


@LISTENERS
def test_under_autocommit_an_exit_in_a_listener_costs_no_connection(engine, listener):
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        before = pid(conn)
        stall(engine, listener, "select 1")
        interrupted(lambda: ask(conn))

        assert pid(conn) == before


def test_a_transaction_begun_by_hand_under_autocommit_does_not_lose_a_statement(engine, create):
    table = create("(n int)")

    def swallow():
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(text("begin"))
            stall(engine, "before_cursor_execute", "insert")
            interrupted(lambda: conn.execute(text(f"insert into {table} values (1)")))
            conn.execute(text(f"insert into {table} values (2)"))
            conn.execute(text("commit"))

    with pytest.raises(exc.PendingRollbackError):
        swallow()

    with engine.connect() as conn:
        assert ask(conn, f"select count(*) from {table}") == 0


def test_a_kill_while_a_stream_is_read_costs_no_connection(engine, dsn):
    slow = text("select pg_sleep(0.02) from generate_series(1, 1000)")
    with engine.connect() as conn:
        before = pid(conn)
        with conn.execution_options(yield_per=1).execute(slow) as rows:
            interrupted(lambda: list(rows))

    with engine.connect() as conn:
        assert pid(conn) == before
    assert running(dsn) == 0


def test_a_session_is_usable_after_a_rollback(engine):
    with Session(engine) as session:
        interrupted(lambda: session.execute(text("select pg_sleep(20)")))
        session.rollback()

        assert session.execute(text("select 1")).scalar() == 1


def test_a_kill_in_a_commit_costs_no_slot(engine, create, spawn, gate):
    table = create("(n int)")
    function = create(
        f"() returns trigger language plpgsql as $$begin perform {gate.function}"
        f"({gate.key}); return null; end$$",
        "function",
    )
    with engine.begin() as conn:
        conn.execute(
            text(
                f"create constraint trigger slow after insert on {table} deferrable "
                f"initially deferred for each row execute function {function}()"
            )
        )

    def write():
        with engine.begin() as conn:
            conn.execute(text(f"insert into {table} values (1)"))

    job = spawn(write)
    gate.wait_for(1)
    job.kill()
    job.join()
    gate.open()

    assert isinstance(job.error, killed())
    assert (engine.pool.checkedout(), engine.pool.overflow()) in [(0, -1), (0, -2)]
    with engine.connect() as conn:
        assert ask(conn) == 1


def test_a_kill_in_the_rollback_of_close_costs_no_slot(make, spawn, proxy):
    engine = make(pool_size=1, max_overflow=0, connect_args=parse_dsn(proxy.dsn))
    leaving = []

    def leave():
        with engine.connect() as conn:
            ask(conn)
            proxy.stall()
            leaving.append(True)

    job = spawn(leave)
    until(lambda: leaving, "at the end of the block")
    job.kill()
    job.join()
    proxy.flow()

    assert isinstance(job.error, killed())  # its traceback refers to the connection
    assert engine.pool.checkedout() == 0
    with engine.connect() as conn:
        assert ask(conn) == 1


def test_a_killed_waiter_leaves_no_hole(engine, spawn):
    with engine.connect(), engine.connect():
        jobs = [spawn(engine.connect) for _ in range(5)]
        until(lambda: engine.pool.waiting() == 5, "five wait")
        for job in jobs:
            job.kill()
        errors = [job.join().error for job in jobs]

    assert all(isinstance(error, killed()) for error in errors)
    with engine.connect() as one, engine.connect() as other:
        assert ask(one) == ask(other) == 1


def test_a_killed_waiter_of_a_disposed_pool_leaves_no_connection_in_it(make, spawn):
    engine = make(pool_size=1, max_overflow=0, pool_timeout=20)
    old = engine.pool
    lent = engine.connect()
    first = spawn(engine.connect)
    until(lambda: old.waiting() == 1, "one waits")

    def ask_later():
        with engine.connect() as conn:
            return ask(conn)

    second = spawn(ask_later)
    until(lambda: old.waiting() == 2, "two wait")

    engine.dispose()
    lent.close()
    first.result().close()  # the second is given the connection, and killed before it runs
    second.kill()
    second.join()

    until(lambda: old.overflow() == -1, "nothing is left")


def test_a_killed_connect_leaves_no_hole(make, spawn, proxy):
    engine = make(pool_size=1, max_overflow=0, connect_args=parse_dsn(proxy.dsn))
    proxy.stall()
    job = spawn(engine.connect)
    until(proxy.accepted, "a connect under way")

    job.kill()
    job.join()
    proxy.flow()

    with engine.connect() as conn:
        assert ask(conn) == 1


def test_an_exit_before_the_pool_has_grown_leaves_no_hole(make, monkeypatch):
    engine = make(pool_size=2, max_overflow=0, pool_timeout=1)
    with monkeypatch.context() as patch:
        patch.setattr(engine.pool, "_limit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            engine.connect()
    gc.collect()

    with engine.connect() as one, engine.connect() as other:
        assert ask(one) == ask(other) == 1


def test_an_exit_in_dispose_costs_no_slot(engine, monkeypatch):
    with engine.connect(), engine.connect():
        pass
    pool = engine.pool

    def close(conn):
        conn.close()
        interrupt()

    with monkeypatch.context() as patch:
        patch.setattr(pool._dialect, "do_close", close)
        with pytest.raises(KeyboardInterrupt):
            pool.dispose()

    assert pool.overflow() == -2


def interrupt(*_):
    raise KeyboardInterrupt


def test_a_connection_collected_in_the_hub_costs_no_slot(engine):
    lost = [engine.raw_connection(), engine.raw_connection()]
    lost[0].cursor().execute("select 1")
    lost.append(lost)
    in_hub = find(current().name)[1].in_hub
    assert in_hub is not None

    del lost
    in_hub(gc.collect)

    until(lambda: engine.pool.checkedout() == 0, "both came back")
    with engine.connect() as conn:
        assert ask(conn) == 1


# Storms


class Storm:
    """Workers that use an engine in many ways and are killed at any moment."""

    def __init__(self, engine, table, seed):
        self.engine = engine
        self.table = table
        self.random = random.Random(seed)
        self.strikes = 0

    def core(self):
        with self.engine.begin() as conn:
            self.write(conn)

    def session(self):
        with Session(self.engine) as session, session.begin(), session.begin_nested():
            self.write(session)

    def stream(self):
        with self.engine.connect() as conn:
            rows = conn.execution_options(yield_per=50).execute(
                text("select generate_series(1, 200)")
            )
            assert sum(1 for _ in rows) == 200

    def write(self, executor):
        """Insert a pair of rows; half a pair must never be visible."""
        key = self.random.getrandbits(62)
        for half in (1, -1):
            statement = f"insert into {self.table} values (:key, :half)"
            executor.execute(text(statement), {"key": key, "half": half})
            executor.execute(text("select pg_sleep(0.001)"))

    def work(self):
        rounds = 0
        while rounds < 4 or self.strikes < STRIKES:
            deed = self.random.choice([self.core, self.core, self.session, self.stream])
            with suppress(*killed()), timeout(self.random.uniform(0.001, 0.06)):
                deed()
            rounds += 1

    def strike(self, jobs):
        while self.strikes < STRIKES:
            current().sleep(self.random.uniform(0.0, 0.02))
            self.random.choice(jobs).kill()
            self.strikes += 1


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_storm_of_kills_loses_nothing(driver, make, create, dsn, seed):
    engine = make(driver, pool_size=4, max_overflow=2, pool_timeout=30)
    table = create("(key bigint, half int)")
    storm = Storm(engine, table, seed)

    jobs = [Job(current(), storm.work, ()) for _ in range(40)]
    storm.strike(jobs)
    errors = [job.join(60).error for job in jobs]

    assert not [error for error in errors if not isinstance(error, (*killed(), type(None)))]
    until(lambda: running(dsn) == 0, "nothing runs")
    assert engine.pool.checkedout() == 0
    with engine.connect() as conn:
        odd = f"select count(*) from (select from {table} group by key having sum(half) <> 0) _"
        assert ask(conn, odd) == 0
    with ExitStack() as stack:
        six = [stack.enter_context(engine.connect()) for _ in range(6)]
        assert [ask(conn) for conn in six] == [1] * 6
