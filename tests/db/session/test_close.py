"""`conn.close()` while other tasks use the connection."""

from __future__ import annotations

import gc
import sys

import pytest

import greenpg
from greenpg._protocol.pipelining import has_pipelines
from greenpg.backend import current
from greenpg_conformance.harness.describe import find
from greenpg_conformance.toolkit.internals import waiting_tasks
from greenpg_conformance.toolkit.jobs import NativeJob
from greenpg_conformance.toolkit.leaks import descriptors
from tests.db.conftest import until


def one(conn, query="select 1"):
    cur = conn.cursor()
    cur.execute(query)
    return cur.fetchone()[0]


def test_tasks_in_the_queue_get_an_interface_error_too(db, conn, gate, spawn):
    running = spawn(one, conn, gate.sql)
    gate.wait_for()
    queued = [spawn(one, conn), spawn(conn.commit), spawn(conn.cursor().callproc, "now")]
    until(lambda: waiting_tasks(conn) == 3, "three tasks wait")

    conn.close()

    for job in [running, *queued]:
        with pytest.raises(db.InterfaceError, match="already closed"):
            job.result()


def test_task_between_two_statements_meets_the_closed_connection(db, conn, spawn):
    def work():
        while True:
            one(conn, "select 1 from pg_sleep(0.001)")

    job = spawn(work)
    until(lambda: conn._greenpg_state.fd >= 0, "the task works")
    conn.close()

    with pytest.raises(db.InterfaceError, match="already closed"):
        job.result()
    assert conn.closed


def test_holder_of_a_block_is_not_interrupted_in_its_own_code(db, conn, spawn):
    held, go = current().event(), current().event()

    def hold():
        with conn.exclusive():
            held.set()
            go.wait(5)
            return "unharmed"

    job = spawn(hold)
    held.wait(5)
    conn.close()
    go.set()

    assert job.result() == "unharmed"
    assert conn.closed
    with pytest.raises(db.InterfaceError):
        one(conn)


USES = {
    "query": lambda conn, gate: one(conn, gate.sql),
    "copy": lambda conn, gate: list(streamed(conn, gate)),
    "pipeline": lambda conn, gate: piped(conn, gate),
    "listen": lambda conn, gate: list(conn.listen("orders")),
    "stream": lambda conn, gate: list(conn.cursor().stream(gate.sql)),
}


def streamed(conn, gate):
    with conn.cursor().copy(f"copy ({gate.sql}) to stdout") as copy:
        yield from copy


def piped(conn, gate):
    with conn.pipeline() as pipe:
        return pipe.execute(gate.sql).fetchall()


@pytest.mark.parametrize("use", USES)
def test_another_os_thread_closes_without_an_error(db, auto, gate, spawn, use):
    job = spawn(USES[use], auto, gate)
    if use == "listen":
        until(lambda: auto._greenpg_state.waiting_outside, "the task listens")
    else:
        gate.wait_for()

    ends = find(current().name)[1].hub_of_thread_ends
    thread = NativeJob(current(), auto.close, (), ends)

    thread.result(5)
    with pytest.raises((db.InterfaceError, db.OperationalError)):
        job.result()
    assert auto.closed


def test_several_tasks_may_close_at_once(db, conn, gate, spawn):
    running = spawn(one, conn, gate.sql)
    gate.wait_for()

    closing = [spawn(conn.close) for _ in range(4)]
    for job in closing:
        job.result()

    with pytest.raises(db.InterfaceError):
        running.result()
    assert conn.closed


def test_close_in_ones_own_block_closes(conn):
    with conn.exclusive():
        one(conn)
        conn.close()

    assert conn.closed


def test_close_inside_an_executemany_of_the_same_task_is_seen(db, conn):
    def rows():
        yield (1,)
        conn.close()
        yield (2,)

    with pytest.raises(db.InterfaceError, match="closed"):
        conn.cursor().executemany("select %s", rows())

    assert conn.closed


def test_close_discards_the_open_transaction(connect, create):
    table = create("(n int)")
    conn = connect()
    conn.cursor().execute(f"insert into {table} values (1)")

    conn.close()

    assert one(connect(), f"select count(*) from {table}") == 0


def test_cursors_are_closed_with_their_connection(db, connect):
    conn = connect()
    client, named = conn.cursor(), conn.cursor("named")
    named.execute("select 1")

    conn.close()

    assert client.closed
    assert named.closed
    client.close()
    named.close()


def test_server_that_ends_the_session_closes_the_connection(db, connect, auto):
    conn = connect()
    one(auto, f"select pg_terminate_backend({conn.info.backend_pid})")

    with pytest.raises(db.OperationalError):
        one(conn)

    assert conn.closed == 2
    with pytest.raises(db.InterfaceError):
        one(conn)
    conn.close()


def test_server_that_ends_a_running_session_says_why(db, connect, auto, gate, spawn):
    conn = connect()
    job = spawn(one, conn, gate.sql)
    gate.wait_for()

    one(auto, f"select pg_terminate_backend({conn.info.backend_pid})")

    with pytest.raises(db.OperationalError, match="terminating connection due to admin"):
        job.result()
    assert conn.closed


def test_connection_that_breaks_ends_its_queries(db, connect, proxy, gate, spawn):
    conn = connect(proxy.dsn)
    job = spawn(one, conn, gate.sql)
    gate.wait_for()

    proxy.cut()

    with pytest.raises(db.OperationalError):
        job.result()
    assert conn.closed


def test_collected_connection_closes_each_descriptor_once(db, dsn):
    """Else pytest reports its finalizer's error, and another file may have had the descriptor."""
    made = db.connect(dsn)
    one(made, "select pg_sleep(0.05)")  # a wait that lasts makes a thread's pipe
    made.itself = made

    del made
    gc.collect()


@pytest.mark.skipif(not has_pipelines(), reason="libpq has no pipeline mode")
@pytest.mark.parametrize("lives_on", [False, True], ids=["ended", "lives_on"])
def test_a_task_that_never_leaves_its_pipeline_does_not_keep_the_session(
    conn, auto, spawn, lives_on
):
    left, pipeline = conn.info.backend_pid, conn.pipeline()
    entered, go = current().event(), current().event()

    def enter():
        pipeline.__enter__()
        entered.set()
        go.wait(5 if lives_on else 0)

    job = spawn(enter)
    entered.wait(5)
    if not lives_on:
        job.result()

    conn.close()

    go.set()
    until(
        lambda: one(auto, f"select count(*) from pg_stat_activity where pid = {left}") == 0,
        "the session has ended",
    )
    with pytest.raises(greenpg.Error):
        pipeline.execute("select 1").fetchone()
    assert conn.closed


class Failing:
    """Lets the nth call of a function of greenpg's fail, and those that it makes when freed."""

    def __init__(self, nth, error):
        self.left = nth
        self._error = error

    def __call__(self, frame, event, argument):
        if event == "call" and "/greenpg" in frame.f_code.co_filename:
            self.left -= 1
            if self.left < 0:
                raise self._error(frame.f_code.co_name)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # from __del__
@pytest.mark.parametrize("error", [RecursionError, MemoryError])
def test_no_descriptor_is_left_whichever_call_of_close_fails(db, dsn, error):
    gc.collect()
    before, ends = set(descriptors()), set()

    for nth in range(30):
        conn = db.connect(dsn)
        one(conn)
        fault, usual = Failing(nth, error), sys.gettrace()
        sys.settrace(fault)
        try:
            conn.close()
        except error:
            pass
        finally:
            del conn
            sys.settrace(usual)
        ends.add(fault.left < 0)

        assert set(descriptors()) == before, nth

    assert ends == {True, False}
