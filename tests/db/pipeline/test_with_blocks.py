"""A `with conn` block under autocommit is a transaction, whatever comes first in it."""

# ruff: noqa: PT012 - an error raised in a block requires the block

from __future__ import annotations

import io

import psycopg2.extensions as ext
import pytest


def one(conn, query):
    cur = conn.cursor()
    cur.execute(query)
    return cur.fetchone()[0]


@pytest.fixture
def block_table(auto):
    auto.cursor().execute("create temp table t (n int)")
    return auto


def piped(conn):
    with conn.pipeline() as p:
        p.execute("insert into t values (1)")
        p.sync()
        p.execute("insert into t values (2)")


FIRST = {
    "pipeline": piped,
    "executemany": lambda conn: conn.cursor().executemany(
        "insert into t values (%s)", [(n,) for n in range(9)]
    ),
    "copy": lambda conn: conn.cursor().copy_expert("copy t from stdin", io.StringIO("1\n")),
}


@pytest.mark.parametrize("name", FIRST)
def test_block_is_rolled_back_whatever_comes_first(block_table, name):
    with pytest.raises(ZeroDivisionError), block_table:
        FIRST[name](block_table)
        raise ZeroDivisionError

    assert block_table.status == ext.STATUS_READY
    assert one(block_table, "select count(*) from t") == 0


@pytest.mark.parametrize("name", FIRST)
def test_block_is_committed_whatever_comes_first(block_table, name):
    with block_table:
        FIRST[name](block_table)
        assert block_table.info.transaction_status == ext.TRANSACTION_STATUS_INTRANS

    assert block_table.info.transaction_status == ext.TRANSACTION_STATUS_IDLE
    assert one(block_table, "select count(*) > 0 from t")


def test_without_a_block_a_sync_commits_under_autocommit(block_table):
    with pytest.raises(ZeroDivisionError), block_table.pipeline() as p:
        p.execute("insert into t values (1)")
        p.sync()
        p.execute("select 1").fetchone()  # the exit's cancel no longer hits what is before
        raise ZeroDivisionError

    assert one(block_table, "select count(*) from t") == 1
