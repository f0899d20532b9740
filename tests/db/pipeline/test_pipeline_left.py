"""A pipeline block that was entered and never left."""

from __future__ import annotations

import gc

import psycopg2
import pytest

from greenpg.sync import ConnectionLock


@pytest.mark.parametrize("sent", [0, 1, 300])
def test_dropped_block_closes_the_connection(conn, sent):
    pipeline = conn.pipeline()
    pipeline.__enter__()
    for _ in range(sent):
        pipeline.execute("select 1")

    del pipeline
    gc.collect()

    assert conn.closed
    assert not ConnectionLock(conn).locked()
    with pytest.raises(psycopg2.InterfaceError):
        conn.rollback()
    conn.close()


def test_dropped_block_of_a_task_that_has_ended_holds_nobody_up(conn, spawn):
    def enter():
        conn.pipeline().__enter__().execute("select 1")

    spawn(enter).result()
    gc.collect()

    with pytest.raises(psycopg2.InterfaceError):
        spawn(conn.rollback).result()
    assert conn.closed


def test_kept_block_may_still_be_left(conn):
    pipeline = conn.pipeline()
    result = pipeline.__enter__().execute("select 1")
    with pytest.raises(psycopg2.ProgrammingError, match=r"pipeline\(\) block"):
        conn.rollback()

    pipeline.__exit__(None, None, None)

    assert result.fetchone() == (1,)
    assert not conn.closed
