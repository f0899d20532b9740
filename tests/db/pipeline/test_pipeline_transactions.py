"""A pipeline block and transactions."""

from __future__ import annotations

import psycopg2
import psycopg2.extensions as ext
import pytest

from tests.db.pipeline.test_pipeline import BAD, one


def test_block_is_part_of_the_transaction(conn, create):
    table = create("(id int)")
    with conn.pipeline() as p:
        p.execute(f"insert into {table} values (1)")
    assert conn.status == ext.STATUS_BEGIN

    conn.rollback()

    assert one(conn, f"select count(*) from {table}") == 0


def test_failed_transaction_is_to_be_rolled_back(conn):
    with pytest.raises(psycopg2.errors.DivisionByZero), conn.pipeline() as p:
        p.execute(BAD)

    with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
        one(conn)
    conn.rollback()
    assert one(conn) == 1


def test_autocommit_commits_from_sync_to_sync(auto, create):
    table = create("(id int)")

    with auto.pipeline() as p:
        p.execute(f"insert into {table} values (1)")
        p.sync()
        p.execute(f"insert into {table} values (2)")
        wrong = p.execute(BAD)
        p.sync()
        p.execute(f"insert into {table} values (3)")
        with pytest.raises(psycopg2.errors.DivisionByZero):
            wrong.fetchone()

    assert one(auto, f"select array_agg(id order by id) from {table}") == [1, 3]


def test_transaction_of_ones_own_under_autocommit(auto, create):
    table = create("(id int)")

    with auto.pipeline() as p:
        p.execute("begin")
        p.execute(f"insert into {table} values (1)")
        p.sync()
        p.execute("rollback")

    assert one(auto, f"select count(*) from {table}") == 0
