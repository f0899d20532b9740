"""What the garbage collector ends: streams and listening iterations, wherever it runs."""

from __future__ import annotations

import gc
from functools import partial

import pytest
from psycopg2.extras import RealDictCursor

import greenpg
from greenpg.backend import current
from greenpg_conformance.harness.describe import find
from greenpg_conformance.toolkit.jobs import NativeJob
from greenpg_conformance.toolkit.leaks import descriptors
from tests.db.conftest import until
from tests.db.session.asking import one

SERIES = "select generate_series(1, 9000) as n"
CURSORS = "select count(*) from pg_cursors"
CHANNELS = "select count(*) from pg_listening_channels()"


class Circle:
    """Keeps something until the garbage collector looks for circles."""

    def __init__(self, kept):
        self.kept, self.circle = kept, self


def stream(conn):
    rows = conn.cursor().stream(SERIES)
    next(rows)
    return rows, CURSORS


def stream_of_dicts(conn):
    rows = conn.cursor(cursor_factory=RealDictCursor).stream(SERIES)
    next(rows)
    return rows, CURSORS


def listen(conn):
    return conn.listen("orders"), CHANNELS


OPENED = {"stream": stream, "stream of dicts": stream_of_dicts, "listen": listen}


@pytest.fixture
def no_gc():
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(params=OPENED)
def leave(request, auto, no_gc):
    """Open something on the connection and forget it in a circle; return the query to count it."""

    def left():
        opened, count = OPENED[request.param](auto)
        if request.param != "listen":  # which keeps the connection
            assert one(auto, count) == 1
        Circle(opened)
        return count

    return left


class Collecting:
    """A file; its methods run inside an operation."""

    def __init__(self, collect):
        self.collect = collect

    def write(self, data):
        self.collect()


def test_collected_inside_an_operation_of_its_task(auto, leave):
    count = leave()

    auto.cursor().copy_expert("copy (select 1) to stdout", Collecting(gc.collect))

    until(lambda: one(auto, count) == 0, "it is closed")
    assert auto._greenpg_state.holder is None


@pytest.mark.green
def test_collected_in_the_hub(auto, leave):
    count = leave()
    in_hub = find(current().name)[1].in_hub
    assert in_hub is not None

    in_hub(gc.collect)

    until(lambda: one(auto, count) == 0, "it is closed")


def test_collected_while_another_task_uses_the_connection(auto, leave, gate, spawn):
    """The collecting task must not wait for the other one."""
    count = leave()
    job = spawn(one, auto, gate.sql)
    if count is not CHANNELS:
        gate.wait_for()

    gc.collect()

    if count is CHANNELS:
        gate.wait_for()
    gate.open()
    job.result()
    until(lambda: one(auto, count) == 0, "it is closed")


def test_collected_at_rest_is_closed_at_once(auto, leave):
    count = leave()

    gc.collect()

    assert one(auto, count) == 0


def collect():
    """Run the garbage collector, and return what descriptors are new."""
    before = set(descriptors())
    gc.collect()
    return set(descriptors()) - before


def in_other_thread(fn):
    return NativeJob(current(), fn, (), lambda: None).result()


@pytest.mark.green
def test_collected_in_another_os_thread_which_gets_no_hub(auto, leave):
    count = leave()

    opened = in_other_thread(collect)

    assert opened == set()
    assert one(auto, count) == 0


@pytest.mark.green
@pytest.mark.parametrize("way", ["deadline", "timeout"])
def test_what_another_os_thread_has_left_can_be_interrupted(auto, way):
    state, library = auto._greenpg_state, find(current().name)[1]
    assert library.timeout is not None
    in_other_thread(lambda: state.call_in_finalizer(partial(one, auto, "select pg_sleep(9)")))
    limit = auto.deadline(0.2) if way == "deadline" else library.timeout(0.2)
    error = greenpg.DeadlineExceeded if way == "deadline" else type(limit)

    with pytest.raises(error), limit:
        one(auto, "select 1")

    assert state.holder is None
    assert one(auto, "select 42") == 42


@pytest.mark.parametrize("kind", [stream, stream_of_dicts])
def test_cursor_that_a_rollback_has_undone_spoils_no_transaction(auto, no_gc, kind):
    auto.cursor().execute("begin")
    opened, _ = kind(auto)
    auto.cursor().execute("rollback")
    Circle(opened)
    del opened
    auto.cursor().execute("begin; create temp table made (n int)")

    gc.collect()
    auto.cursor().execute("insert into made values (1); commit")

    assert one(auto, "select n from made") == 1


def test_closed_by_the_program_is_closed_at_once(auto):
    rows, count = stream(auto)

    rows.close()
    rows.close()

    assert one(auto, count) == 0
    assert list(rows) == []
