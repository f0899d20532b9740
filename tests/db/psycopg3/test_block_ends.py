"""Blocks end whatever happens: transactions, pipelines, streams, COPY, two-phase transactions."""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg.errors import InFailedSqlTransaction, QueryCanceled, UndefinedObject
from psycopg.pq import PipelineStatus, TransactionStatus

import greenpg
from greenpg import psycopg3
from greenpg.backend import current
from greenpg_conformance.harness.describe import find
from tests.db.conftest import until

SHORT = 0.05
LONG = "select pg_sleep(600)"
ROWS = "select repeat('x', 1000) from generate_series(1, 100000)"


class Killed(BaseException):
    """As a kill that comes in the program's own code."""


def outlive(conn, block):
    """Let a deadline pass in a block."""
    with conn.deadline(SHORT), block:
        conn.execute("select 1")
        current().sleep(2 * SHORT)


def check_usable(conn):
    assert conn.pgconn.pipeline_status == PipelineStatus.OFF
    conn.rollback()
    assert conn.execute("select 7").fetchone() == (7,)
    conn.rollback()


@pytest.mark.parametrize("name", ["transaction", "pipeline"])
def test_deadline_that_passes_in_a_block_ends_it(conn, name):
    with pytest.raises(greenpg.DeadlineExceeded):
        outlive(conn, getattr(conn, name)())

    check_usable(conn)


def test_block_whose_deadline_has_passed_commits_nothing(auto, create):
    table = create("(n int)")

    def block():
        with auto.deadline(SHORT), auto.transaction():
            auto.execute(f"insert into {table} values (1)")
            current().sleep(2 * SHORT)

    with pytest.raises(greenpg.DeadlineExceeded):
        block()

    assert auto.execute(f"select count(*) from {table}").fetchone() == (0,)


@pytest.mark.green
@pytest.mark.parametrize("name", ["transaction", "pipeline"])
def test_task_killed_in_the_queue_at_its_blocks_end_ends_it(auto, spawn, name):
    inside, go = current().event(), current().event()

    def block():
        with getattr(auto, name)():
            inside.set()
            go.wait()

    def hold():
        with auto.exclusive():
            go.set()
            current().sleep(4 * SHORT)

    job = spawn(block)
    inside.wait()
    holder = spawn(hold)
    go.wait()
    until(lambda: auto._greenpg_state.queue, "it waits at the block's end")
    job.kill()

    assert isinstance(job.join().error, current().exits)
    holder.result()
    assert auto.info.transaction_status == TransactionStatus.IDLE
    assert not auto._num_transactions
    check_usable(auto)


def test_task_that_is_interrupted_elsewhere_dooms_a_block_of_others(conn, create, connect):
    table = create("(n int)")

    def block():
        with conn.transaction():
            conn.execute(f"insert into {table} values (1)")
            conn._greenpg_state.note_outside(conn)

    with pytest.raises(InFailedSqlTransaction, match="interrupted"):
        block()

    assert conn.info.transaction_status == TransactionStatus.IDLE
    assert connect().execute(f"select count(*) from {table}").fetchone() == (0,)


@pytest.mark.parametrize("autocommit", [True, False])
def test_pipeline_that_swallows_an_interrupt_says_so(connect, create, autocommit):
    table, conn = create("(n int)"), connect(autocommit=autocommit)

    def block():
        with conn.pipeline():
            conn.execute(f"insert into {table} values (1)")
            with suppress(greenpg.DeadlineExceeded), conn.deadline(SHORT):
                conn.execute(LONG).fetchone()

    with pytest.raises(InFailedSqlTransaction, match="interrupted"):
        block()

    check_usable(conn)
    assert conn.execute(f"select count(*) from {table}").fetchone() == (0,)


def test_two_phase_transaction_that_the_server_lost_is_over(conn, connect):
    other = connect(autocommit=True)
    gid = f"greenpg-{conn.info.backend_pid}"
    conn.tpc_begin(gid)
    conn.tpc_prepare()
    other.execute(f"rollback prepared '{gid}'")

    with pytest.raises(UndefinedObject):
        conn.tpc_rollback()

    check_usable(conn)


def test_block_over_a_connection_that_is_lost_says_so(conn, observer):
    def block():
        with conn.transaction():
            observer.terminate(conn.info.backend_pid)
            with suppress(psycopg.OperationalError):
                conn.execute("select 1")

    with pytest.raises(psycopg.OperationalError, match="closed"):
        block()

    assert not conn._num_transactions


def kill_in_a_stream(conn):
    for _ in conn.cursor().stream(ROWS):
        raise Killed


def kill_in_copy_out(conn):
    with conn.cursor().copy(f"copy ({ROWS}) to stdout") as copy:
        copy.read()
        raise Killed


def kill_in_copy_in(conn):
    conn.execute("create temp table rows (text text)")
    with conn.cursor().copy("copy rows from stdin") as copy:
        copy.write_row(("x",))
        raise Killed


@pytest.mark.parametrize("operation", [kill_in_a_stream, kill_in_copy_out, kill_in_copy_in])
def test_kill_in_the_programs_own_code_dooms_the_transaction(conn, operation):
    conn.execute("select 1")
    with suppress(Killed):
        operation(conn)
    gc.collect()

    with pytest.raises(InFailedSqlTransaction, match="interrupted"):
        conn.commit()

    check_usable(conn)


def test_kill_in_a_pipelines_block_cancels_what_runs(auto, observer):
    def block():
        with auto.pipeline():
            auto.execute(LONG)
            until(lambda: observer.is_busy(auto.info.backend_pid), "it runs")
            raise Killed

    with pytest.raises(Killed):
        block()

    check_usable(auto)


def test_copy_by_execute_leaves_nothing_running(auto):
    with pytest.raises(psycopg.ProgrammingError, match="use copy"):
        auto.execute(f"copy ({ROWS}) to stdout")

    check_usable(auto)


def test_error_between_two_steps_leaves_nothing_running(conn):
    def steps():
        conn.pgconn.send_query(LONG.encode())
        yield from psycopg.generators.send(conn.pgconn)
        raise MemoryError

    with pytest.raises(MemoryError), conn.lock:
        conn.wait(steps())

    check_usable(conn)


def test_close_while_an_operation_is_brought_to_its_end_waits_for_that(connect, spawn):
    jobs: list[Any] = []
    conn = connect()
    state = conn._greenpg_state

    def wait(fd, events, timeout):
        if not jobs:
            jobs.append(spawn(conn.close))
        current().sleep(SHORT)
        assert not conn.closed, "it was closed in the middle of a wait"
        return state.waiter.wait(fd, events, timeout)

    def steps():
        conn.pgconn.send_query(LONG.encode())
        yield from psycopg.generators.send(conn.pgconn)
        state.wait = wait
        raise MemoryError

    with pytest.raises(MemoryError), conn.lock:
        conn.wait(steps())

    jobs[0].result()
    assert conn.closed


def test_operation_that_closes_its_own_connection_is_refused(auto):
    def rows():
        yield (1,)
        auto.close()

    with pytest.raises(psycopg.ProgrammingError, match="another operation of the same task"):
        auto.cursor().executemany("select %s", rows())

    check_usable(auto)


def test_close_of_another_tasks_block_does_not_wait_for_it(connect, spawn):
    conn, inside, go = connect(), current().event(), current().event()

    def block():
        with conn.cursor().copy("copy (select 1) to stdout"):
            inside.set()
            go.wait()

    job = spawn(block)
    inside.wait()

    conn.close()

    assert conn.closed
    go.set()
    job.join()


@pytest.mark.parametrize("block", [lambda conn: conn, lambda conn: conn.transaction()])
def test_block_whose_connection_another_task_closes_raises_at_its_end(connect, spawn, block):
    conn = connect()

    def lost():
        with block(conn):
            conn.execute("select 1")
            spawn(conn.close).join()

    with pytest.raises(psycopg.OperationalError, match="closed"):
        lost()


@pytest.mark.parametrize("block", [lambda conn: conn, lambda conn: conn.transaction()])
def test_block_that_closes_its_connection_has_given_up(connect, block):
    conn = connect()

    with block(conn):
        conn.close()

    assert conn.closed


@pytest.fixture
def slow_table(create, observer):
    """A table of which a row makes PREPARE and COMMIT sleep."""
    name = create("(n int)")
    body = "'begin perform pg_sleep(600); return null; end'"
    nap = create(f"() returns trigger language plpgsql as {body}", "function")
    observer.ask(
        f"create constraint trigger nap after insert on {name} deferrable initially deferred "
        f"for each row execute function {nap}()"
    )
    return name


def test_connection_block_whose_commit_is_stopped_closes(conn, slow_table):
    with pytest.raises(greenpg.DeadlineExceeded), conn.deadline(SHORT), conn:
        conn.execute(f"insert into {slow_table} values (1)")

    assert conn.closed


def prepare_slowly(conn, table, how):
    conn.tpc_begin(conn.xid(0, f"greenpg-{how}", ""))
    conn.execute(f"insert into {table} values (1)")
    with suppress(greenpg.DeadlineExceeded), conn.deadline(SHORT):
        getattr(conn, how)()


@pytest.mark.parametrize("how", ["tpc_prepare", "tpc_commit"])
def test_stopped_end_of_a_two_phase_transaction(conn, slow_table, how):
    prepare_slowly(conn, slow_table, how)

    if how == "tpc_prepare":
        with pytest.raises(InFailedSqlTransaction):
            conn.execute("select 1")
        with pytest.raises(InFailedSqlTransaction):
            conn.tpc_commit()
        conn.tpc_rollback()

    check_usable(conn)
    assert f"greenpg-{how}" not in [xid.gtrid for xid in conn.tpc_recover()]
    conn.tpc_begin(conn.xid(0, "greenpg-again", ""))
    conn.tpc_rollback()


def test_failed_prepare_is_followed_by_a_rollback(conn, slow_table, spawn, observer):
    conn.tpc_begin(conn.xid(0, "greenpg-failed", ""))
    conn.execute(f"insert into {slow_table} values (1)")
    job = spawn(conn.tpc_prepare)
    until(lambda: observer.is_busy(conn.info.backend_pid), "it prepares")
    conn.cancel()

    with pytest.raises(QueryCanceled):
        job.result()
    with pytest.raises(InFailedSqlTransaction):
        conn.execute("select 1")
    conn.tpc_rollback()

    check_usable(conn)


def test_failed_transaction_is_not_taken_for_prepared(conn):
    conn.tpc_begin(conn.xid(0, "greenpg-aborted", ""))
    with pytest.raises(psycopg.errors.DivisionByZero):
        conn.execute("select 1/0")

    with pytest.raises(InFailedSqlTransaction):
        conn.tpc_prepare()
    conn.tpc_rollback()

    check_usable(conn)


def test_prepare_that_python_could_not_send_is_followed_by_a_rollback(conn, monkeypatch):
    def no_memory(*_):
        raise MemoryError

    conn.tpc_begin(conn.xid(0, "greenpg-unsent", ""))
    conn.execute("select 1")
    monkeypatch.setattr(conn, "_exec_command", no_memory)
    with pytest.raises(MemoryError):
        conn.tpc_prepare()
    monkeypatch.undo()

    conn.tpc_rollback()

    check_usable(conn)


@pytest.mark.green
def test_rollback_in_the_hub_closes(conn, in_hub):
    conn.execute("select 1")

    in_hub(conn.rollback)

    assert conn.closed


@pytest.mark.green
@pytest.mark.parametrize("kind", ["stream", "copy out", "copy in", "transaction", "pipeline"])
def test_block_that_a_finalizer_ends_in_the_hub_closes_the_connection(conn, in_hub, kind):
    conn.execute("create temp table rows (text text)")
    blocks = {
        "stream": lambda: conn.cursor().stream(ROWS),
        "copy out": lambda: entered(conn.cursor().copy(f"copy ({ROWS}) to stdout")),
        "copy in": lambda: entered(conn.cursor().copy("copy rows from stdin")),
        "transaction": lambda: entered(conn.transaction()),
        "pipeline": lambda: entered(conn.pipeline()),
    }
    abandoned = [blocks[kind]()]
    next(abandoned[0])

    in_hub(lambda: abandon(abandoned))

    assert conn.closed
    assert not conn._greenpg_state.in_driver


def abandon(objects):
    objects.clear()
    gc.collect()


def entered(block):
    with block:
        yield


@pytest.fixture
def in_hub():
    """Call a function in the hub and wait for its end."""
    enter: Any = find(current().name)[1].in_hub

    def call(fn):
        errors: list[BaseException | None] = []

        def run():
            try:
                fn()
                errors.append(None)
            except BaseException as error:
                errors.append(error)

        enter(run)
        until(lambda: errors, "the hub has called it")
        if errors[0] is not None:
            raise errors[0]

    return call


def test_undelivered_cancel_closes_the_connection(proxy, connect, spawn, observer):
    conn = connect(proxy.dsn, autocommit=True)
    pid = conn.info.backend_pid
    conn._greenpg_state.cancel_timeout = 0.4
    job = spawn(conn.execute, LONG)
    until(lambda: observer.is_busy(pid), "it runs")
    proxy.stall()

    with pytest.raises(psycopg.errors.CancellationTimeout, match="closed"):
        conn.cancel()

    with pytest.raises(psycopg.OperationalError, match="closed"):
        job.result()
    assert conn.closed
    observer.terminate(pid)


def test_kill_in_a_copy_over_a_silent_network_ends_it(proxy, connect, observer):
    conn = connect(proxy.dsn, autocommit=True)
    conn._greenpg_state.cancel_timeout = 0.4
    pid = conn.info.backend_pid
    conn.execute("create temp table rows (text text)")

    def block():
        with conn.cursor().copy("copy rows from stdin") as copy:
            copy.write_row(("x",))
            proxy.stall()
            raise Killed

    with pytest.raises(Killed):
        block()

    assert conn.closed
    observer.terminate(pid)


def test_users_cursor_class_is_refused_too(connect):
    conn = connect(cursor_factory=psycopg.ClientCursor)
    with suppress(greenpg.DeadlineExceeded), conn.deadline(SHORT):
        conn.execute(LONG)

    with pytest.raises(InFailedSqlTransaction):
        conn.execute("select 1")
    conn.execute("rollback")

    check_usable(conn)
    assert isinstance(conn, psycopg3.Connection)
