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


def test_a_pipeline_that_its_task_never_left_costs_no_slot(make, auto, spawn):
    pool = make(max_size=1)
    kept = []

    def leave_open():
        with pool.connection() as conn:
            kept.append(conn.pipeline())
            kept[0].__enter__().execute("select 1")
            return pid(conn)

    left = spawn(leave_open).result()

    with pool.connection() as conn:
        assert answer(conn, "select 6 * 7") == 42
    until(lambda: sessions(auto, left) == 0, "the session has ended")
    with pytest.raises(psycopg2.Error):
        kept[0].execute("select 2").fetchone()


def test_a_pipeline_whose_task_lives_on_costs_no_slot(make, auto):
    pool = make(max_size=1)
    conn = pool.getconn()
    left, pipeline = pid(conn), conn.pipeline()
    pipeline.__enter__().execute("select 1")

    pool.putconn(conn)

    with pool.connection() as other:
        assert answer(other, "select 6 * 7") == 42
    until(lambda: sessions(auto, left) == 0, "the session has ended")
    with pytest.raises(psycopg2.Error), pipeline:
        pipeline.execute("select 2").fetchone()
    with suppress(psycopg2.Error):
        pipeline.__exit__(None, None, None)
    assert conn.closed


def test_a_connection_in_pipeline_mode_is_not_lent(make):
    pool = make(max_size=1)
    conn = pool.getconn()
    conn._greenpg_state.note_blocked()  # as every use of the mode does first
    libpq.PQenterPipelineMode(conn.pgconn_ptr)

    pool.putconn(conn)

    with pool.connection() as other:
        assert other is not conn
        assert answer(other, "select 6 * 7") == 42
