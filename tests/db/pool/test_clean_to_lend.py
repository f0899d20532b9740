"""Connections that come back while a task keeps them, or in pipeline mode, are not lent again."""

from __future__ import annotations

from contextlib import suppress

import psycopg2
import pytest

from greenpg._protocol.libpq import libpq
from greenpg._protocol.pipelining import has_pipelines
from tests.db.conftest import until
from tests.db.pool.conftest import answer, pid

pytestmark = pytest.mark.skipif(not has_pipelines(), reason="libpq has no pipeline mode")


def sessions(auto, *pids):
    return answer(auto, f"select count(*) from pg_stat_activity where pid in {(0, *pids)}")


@pytest.fixture
def begin(driver):
    """Enter a pipeline block and execute a statement; returns the block and its `execute`."""

    def begun(conn):
        block = conn.pipeline()
        pipeline = block.__enter__()
        execute = pipeline.execute if driver is psycopg2 else conn.execute
        execute("select 1")
        return block, execute

    return begun


def enter_pipeline_mode(conn):
    if hasattr(conn, "pgconn"):
        conn.pgconn.enter_pipeline_mode()
    else:
        conn._greenpg_state.note_blocked()  # as every use of the mode does first
        libpq.PQenterPipelineMode(conn.pgconn_ptr)


def test_a_pipeline_that_its_task_never_left_costs_no_slot(make, auto, spawn, driver, begin):
    pool = make(max_size=1)
    kept = []

    def leave_open():
        with pool.connection() as conn:
            kept.extend(begin(conn))
            return pid(conn)

    left = spawn(leave_open).result()

    with pool.connection() as conn:
        assert answer(conn, "select 6 * 7") == 42
    until(lambda: sessions(auto, left) == 0, "the session has ended")
    with pytest.raises(driver.Error):
        kept[1]("select 2").fetchone()


def test_a_pipeline_whose_task_lives_on_costs_no_slot(make, auto, driver, begin):
    pool = make(max_size=1)
    conn = pool.getconn()
    left, (block, execute) = pid(conn), begin(conn)

    pool.putconn(conn)

    with pool.connection() as other:
        assert answer(other, "select 6 * 7") == 42
    until(lambda: sessions(auto, left) == 0, "the session has ended")
    with pytest.raises(driver.Error):
        execute("select 2").fetchone()
    with suppress(driver.Error):
        block.__exit__(None, None, None)
    assert conn.closed


def test_a_connection_in_pipeline_mode_is_not_lent(make):
    pool = make(max_size=1)
    conn = pool.getconn()
    enter_pipeline_mode(conn)

    pool.putconn(conn)

    with pool.connection() as other:
        assert other is not conn
        assert answer(other, "select 6 * 7") == 42
