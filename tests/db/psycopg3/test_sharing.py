"""Tasks share a psycopg 3 connection; waits are green, and others may cancel and close."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from greenpg import psycopg3
from greenpg._session.shield import graver
from greenpg.backend import current
from greenpg_conformance.toolkit.heartbeat import heartbeat
from tests.db.conftest import until

LONG = "select pg_sleep(600)"


def test_connection_is_psycopgs(conn):
    assert isinstance(conn, psycopg.Connection)
    assert isinstance(conn.cursor(), psycopg.Cursor)
    with conn.cursor("named") as named:
        assert isinstance(named, psycopg.ServerCursor)


@pytest.mark.parametrize("kind", [psycopg.ClientCursor, psycopg.RawCursor])
def test_cursor_factories_stay_what_they_are(connect, kind):
    conn = connect(cursor_factory=kind)

    assert conn.cursor_factory is kind
    assert isinstance(conn.cursor(), kind)
    assert conn.execute("select 7").fetchone() == (7,)


def test_cursor_factory_of_others_is_not_touched_while_a_cursor_is_made(conn):
    class Slow(psycopg.Cursor):
        def __init__(self, conn, **options):
            super().__init__(conn, **options)
            seen.append(conn.cursor_factory)

    seen: list[type] = []
    conn.cursor_factory = Slow

    conn.cursor()

    assert seen == [Slow]


def test_green_cursor_on_a_plain_connection_is_refused(dsn):
    refused = pytest.raises(TypeError, match="not a connection made by greenpg")

    with psycopg.connect(dsn, cursor_factory=psycopg3.Cursor) as plain, refused:
        plain.execute("select 1")


def test_users_methods_may_have_the_names_of_greenpgs(dsn):
    class Own(psycopg3.Connection):
        def exclusive(self) -> Any:
            raise NotImplementedError

        deadline: Any = exclusive

    with Own.connect(dsn) as conn:
        with conn.pipeline():
            conn.execute("select 1")
        with conn.pipeline(), conn.transaction():
            conn.cursor().executemany("select %s", [(1,)])


def test_execute_on_a_cursor_whose_result_another_task_fetches_is_refused(auto, spawn):
    cur = auto.execute("select generate_series(1, 1000000)")
    job = spawn(cur.fetchall)
    until(lambda: auto._greenpg_state.cursors_fetching, "it fetches")

    with pytest.raises(psycopg.ProgrammingError, match="another task is fetching"):
        cur.execute("select 1")

    assert len(job.result()) == 1_000_000


def test_another_cursor_may_execute_while_a_result_is_fetched(auto, spawn):
    class Alike(psycopg.Cursor):
        __hash__ = psycopg.Cursor.__hash__

        def __eq__(self, other):
            return True

    auto.cursor_factory = Alike
    cur = auto.execute("select generate_series(1, 1000000)")
    job = spawn(cur.fetchall)
    until(lambda: auto._greenpg_state.cursors_fetching, "it fetches")

    assert auto.execute("select 7").fetchone() == (7,)

    assert len(job.result()) == 1_000_000


def test_tasks_take_turns(conn, spawn):
    jobs = [spawn(lambda n: conn.execute("select %s::int", (n,)).fetchone(), n) for n in range(9)]

    assert [job.result() for job in jobs] == [(n,) for n in range(9)]


def test_waits_are_green(conn):
    with heartbeat(current()):
        conn.execute("select pg_sleep(0.5)")


def test_large_result_that_is_built_in_slices_is_whole(conn):
    cur = conn.execute("select n, n::text from generate_series(1, 200000) n")

    rows = cur.fetchall()

    assert (len(rows), rows[0], rows[-1]) == (200_000, (1, "1"), (200_000, "200000"))
    assert cur.fetchall() == []


@pytest.mark.parametrize("size", [0, 1, 1999, 2000, 2001, 5000, 9000])
def test_fetchmany_returns_as_many_as_are_left(conn, size):
    cur = conn.execute("select generate_series(1, 7000)")
    cur.arraysize = 3

    found = cur.fetchmany(size)

    assert len(found) == min(size or 3, 7000)
    assert len(cur.fetchall()) == 7000 - len(found)


def test_operation_inside_another_of_the_same_task_is_refused(conn):
    with conn.cursor().copy("copy (select 1) to stdout") as copy:
        with pytest.raises(psycopg.ProgrammingError, match="another operation of the same task"):
            conn.execute("select 1")
        assert list(copy) == [b"1\n"]

    assert conn.execute("select 7").fetchone() == (7,)


def test_exclusive_keeps_the_connection_for_a_task(conn, spawn):
    order = []

    def other():
        conn.execute("select 1")
        order.append("other")

    with conn.exclusive():
        conn.execute("select 1")
        job = spawn(other)
        current().sleep(0.05)
        order.append("holder")
    job.result()

    assert order == ["holder", "other"]


@pytest.mark.parametrize("how", ["cancel", "cancel_safe"])
def test_another_task_cancels_what_runs(auto, observer, spawn, how):
    job = spawn(auto.execute, LONG)
    until(lambda: observer.is_busy(auto.info.backend_pid), "it runs")

    getattr(auto, how)()

    with pytest.raises(psycopg.errors.QueryCanceled):
        job.result()
    assert auto.execute("select 7").fetchone() == (7,)


def test_cancel_hits_nothing_that_runs_later(auto):
    for _ in range(20):
        auto.cancel()
        assert auto.execute("select 7").fetchone() == (7,)


def test_another_task_closes(auto, observer, spawn):
    job, pid = spawn(auto.execute, LONG), auto.info.backend_pid
    until(lambda: observer.is_busy(pid), "it runs")

    auto.close()

    assert auto.closed
    with pytest.raises(psycopg.OperationalError, match="closed"):
        job.result()
    until(lambda: not observer.exists(pid), "its session has ended")


def test_close_leaves_nothing_of_a_connection_that_the_server_has_ended(auto, observer):
    observer.ask("select pg_terminate_backend(%s, 5000)", auto.info.backend_pid)
    with pytest.raises(psycopg.OperationalError):
        auto.execute("select 1")

    auto.close()

    assert auto._greenpg_state.waiter.fileno() == -1


def test_notifications_arrive_while_others_work(auto, connect, spawn):
    auto.execute("listen channel")

    def hear():
        return [note.payload for note in auto.notifies(timeout=5, stop_after=2)]

    job = spawn(hear)
    other = connect(autocommit=True)
    other.execute("notify channel, 'a'")
    other.execute("notify channel, 'b'")

    assert job.result() == ["a", "b"]


@pytest.mark.green
def test_interrupted_wait_for_notifications_leaves_the_connection(auto, spawn):
    auto.execute("listen channel")
    job = spawn(lambda: list(auto.notifies()))
    until(lambda: auto._greenpg_state.holder is not None, "it listens")

    job.kill()
    job.join()

    assert auto.execute("select 7").fetchone() == (7,)


def test_refused_connect_names_every_host():
    with pytest.raises(psycopg.OperationalError, match="port 1 ") as caught:
        psycopg3.connect("host=127.0.0.1,127.0.0.1 port=1,2")

    assert "port: '2'" in str(caught.value)


def test_connect_timeout_is_kept(fake_silent):
    with heartbeat(current()), pytest.raises(psycopg.errors.ConnectionTimeout):
        psycopg3.connect(fake_silent, connect_timeout=2)


@pytest.mark.green
def test_interrupted_connect_leaves_nothing(fake_silent, spawn):
    job = spawn(psycopg3.connect, fake_silent)
    current().sleep(0.1)

    job.kill()

    assert isinstance(job.join().error, current().exits)


@pytest.fixture
def fake_silent():
    """The DSN of a server that accepts and says nothing."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"host=127.0.0.1 port={server.getsockname()[1]}"


def test_connection_of_the_parent_process_is_refused(conn):
    conn._greenpg_state.disable_in_child()

    for refused in (lambda: conn.execute("select 1"), conn.commit, conn.rollback, conn.cancel):
        with pytest.raises(psycopg.OperationalError, match="belongs to the parent process"):
            refused()

    conn.close()


def test_timeout_outranks_the_error_of_another_tasks_close(conn):
    state, timeout = conn._greenpg_state, TimeoutError()

    assert graver(state.backend, state.errors, timeout, state.closed_error()) is timeout
    assert graver(state.backend, state.errors, state.closed_error(), timeout) is timeout
