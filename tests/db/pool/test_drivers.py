"""What a pool of psycopg 3's connections lends and raises; without them it loads no psycopg."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

import greenpg
from greenpg import errors
from greenpg.pool import ConnectionPool, PoolSet
from tests import programs
from tests.db.conftest import until
from tests.db.pool.conftest import answer, pid


@pytest.fixture
def driver():
    return psycopg


def test_kwargs_are_for_connect(make):
    class Mine(psycopg.Connection):
        pass

    kwargs = {"autocommit": True, "row_factory": dict_row, "connection_class": Mine}

    with make(kwargs=kwargs).connection() as conn:
        assert isinstance(conn, Mine)
        row: object = conn.execute("select 1 as one").fetchone()
        assert row == {"one": 1}
        assert conn.info.transaction_status == TransactionStatus.IDLE


@pytest.mark.parametrize("family", [greenpg, psycopg])
def test_errors_are_of_both_families(make, family, spawn):
    pool = make(max_waiting=1, name="web")
    with pool.connection():
        job = spawn(pool.getconn, 0.2)
        until(lambda: pool.get_stats()["requests_waiting"] == 1, "one waits")

        with pytest.raises(family.OperationalError, match="too many") as refused:
            pool.getconn()
        with pytest.raises(family.OperationalError, match="no connection") as late:
            job.result()
    pool.close()
    with pytest.raises(family.OperationalError, match="is closed") as closed:
        pool.getconn()

    assert isinstance(refused.value, errors.TooManyRequests)
    assert isinstance(late.value, errors.PoolTimeout)
    assert isinstance(closed.value, errors.PoolClosed)


def test_the_end_of_an_inner_with_commits_and_closes_nothing(make, create):
    pool, table = make(max_size=1), create("(n int)")

    with pool.connection() as conn:
        with conn:
            conn.execute(f"insert into {table} values (1)")
        conn.rollback()

        assert answer(conn, f"select count(*) from {table}") == 1
    assert pool.get_stats()["connections_num"] == 1


def test_a_swallowed_interrupt_is_not_committed(make, create):
    pool, table = make(max_size=1), create("(n int)")

    def swallow():
        with pool.connection() as conn:
            conn.execute(f"insert into {table} values (1)")
            with pytest.raises(greenpg.DeadlineExceeded), conn.deadline(0.05):
                conn.execute("select pg_sleep(9)")

    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        swallow()

    with pool.connection() as conn:
        assert answer(conn, f"select count(*) from {table}") == 0
    assert pool.get_stats()["connections_num"] == 1


def enter_block(conn):
    block = conn.transaction()
    block.__enter__()
    return block


def end_block_by_statement(conn):
    block = enter_block(conn)
    conn.execute("rollback")
    return block


def begin_two_phases(conn):
    conn.tpc_begin("unfinished")


def begin_stream(conn):
    rows = conn.cursor().stream("select generate_series(1, 100000)")
    next(rows)
    return rows


def begin_copy(conn):
    block = conn.cursor().copy("copy (select generate_series(1, 100000)) to stdout")
    block.__enter__().read()
    return block


LEFT = [enter_block, end_block_by_statement, begin_two_phases, begin_stream, begin_copy]


@pytest.mark.parametrize("leave", LEFT)
def test_what_only_its_owner_can_end_costs_the_connection(make, leave):
    pool = make(max_size=1)
    conn = pool.getconn()
    _kept = leave(conn)  # else its generator would end it

    pool.putconn(conn)

    with pool.connection() as other:
        assert other is not conn
        assert answer(other, "select 6 * 7") == 42


@pytest.mark.parametrize("autocommit", [False, True])
def test_reset_discard_forgets_settings_and_prepared_statements(make, autocommit):
    pool = make(max_size=1, reset="discard", kwargs={"autocommit": autocommit})
    with pool.connection() as conn:
        before = pid(conn)
        conn.execute("select 1", prepare=True)
        conn.rollback()
        conn.autocommit = not autocommit
        conn.read_only = True

    with pool.connection() as conn:
        assert pid(conn) == before
        assert (conn.autocommit, conn.read_only) == (autocommit, None)
        assert conn.execute("select 1", prepare=True).fetchone() == (1,)


@pytest.mark.parametrize("pool", [ConnectionPool, PoolSet])
def test_an_unknown_driver_is_refused(pool):
    with pytest.raises(ValueError, match="driver='pg8000': give 'psycopg2' or 'psycopg'"):
        pool("", driver="pg8000")


def test_without_psycopg_the_error_says_what_to_install():
    code = """
import sys
sys.modules["psycopg"] = None
from greenpg import ConnectionPool
ConnectionPool("")
ConnectionPool("", driver="psycopg")
"""

    done = programs.run(code)

    assert "pip install 'greenpg[psycopg3]'" in done.stderr


def test_pools_of_psycopg2s_connections_load_no_psycopg(dsn):
    code = """
import sys
from greenpg.pool import ConnectionPool, PoolSet
with ConnectionPool(sys.argv[1], min_size=1) as pool, pool.connection():
    PoolSet(sys.argv[1])
print("psycopg" in sys.modules)
"""

    done = programs.run(code, dsn)

    assert done.stdout.strip() == "False", done.stderr
