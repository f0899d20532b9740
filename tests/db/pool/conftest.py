"""Fixtures and helpers of the tests of pool."""

from __future__ import annotations

from contextlib import closing

import pytest

import greenpg
from greenpg.pool import ConnectionPool

NOWHERE = "host=127.0.0.1 port=1 dbname=none connect_timeout=2"


@pytest.fixture
def make(dsn, driver):
    """Make pools, to be closed after the test."""
    made = []

    def pool(conninfo=dsn, **options):
        defaults = {"driver": driver.__name__, "min_size": 1, "timeout": 5.0}
        made.append(ConnectionPool(conninfo, **{**defaults, **options}))
        return made[-1]

    yield pool
    for one in made:
        one.close()


def pid(conn):
    return conn.info.backend_pid


def answer(conn, query="select 1"):
    cur = conn.cursor()
    cur.execute(query)
    return cur.fetchone()[0]


def terminate(dsn, *pids):
    with closing(greenpg.connect(dsn)) as admin:
        admin.autocommit = True
        for one in pids:
            answer(admin, f"select pg_terminate_backend({one}, 5000)")
