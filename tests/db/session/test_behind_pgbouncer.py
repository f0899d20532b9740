"""Interrupts of queries that wait in PgBouncer's queue for a connection to the server."""

from __future__ import annotations

import pytest

import greenpg
from greenpg._psycopg2.cancel_request import is_poolers
from greenpg_conformance.toolkit.machine import Stopwatch
from tests.db.bouncer import POOL_SIZE, bouncing

BOUND = 0.3
ALLOWED = 2.0  # below the 5 seconds that a server has to answer a cancel


@pytest.fixture
def bouncer(dsn, tmp_path):
    with bouncing(dsn, tmp_path) as made:
        yield made


@pytest.fixture
def queued(bouncer, connect):
    """A connection whose queries wait: transactions of others use all of PgBouncer's."""
    made = connect(bouncer.dsn)
    while not is_poolers(made):  # one in a thousand random ids could be a server's
        made = connect(bouncer.dsn)
    made.autocommit = True
    for _ in range(POOL_SIZE):
        connect(bouncer.dsn).cursor().execute("select 1")
    return made


def execute(conn):
    conn.cursor().execute("select 1")


def pipeline(conn):
    with conn.pipeline() as pipe:
        pipe.execute("select 1").fetchone()


@pytest.mark.parametrize("operation", [execute, pipeline])
def test_a_deadline_in_the_queue_is_not_late(queued, operation):
    watch = Stopwatch()

    with pytest.raises(greenpg.DeadlineExceeded), queued.deadline(BOUND):
        operation(queued)

    assert watch.seconds() < ALLOWED
    assert queued.closed


def test_a_query_that_runs_behind_pgbouncer_is_cancelled(bouncer, connect):
    conn = connect(bouncer.dsn)
    conn.autocommit = True

    with pytest.raises(greenpg.DeadlineExceeded), conn.deadline(BOUND), conn.cursor() as cur:
        cur.execute("select pg_sleep(9)")

    with conn.cursor() as cur:
        cur.execute("select 6 * 7")
        assert cur.fetchone() == (42,)


def test_the_id_of_a_servers_process_is_no_poolers(conn):
    assert not is_poolers(conn)
