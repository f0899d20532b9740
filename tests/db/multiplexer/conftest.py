"""Fixtures and helpers of the multiplexer's tests."""

from __future__ import annotations

import pytest

from greenpg.multiplexer import Multiplexer
from tests.db.conftest import until
from tests.db.pool.conftest import NOWHERE, terminate

__all__ = ["NOWHERE", "terminate", "until"]

SLOW = "select pg_sleep(30)"


@pytest.fixture
def make(dsn):
    """Make multiplexers, to be closed after the test."""
    made = []

    def multiplexer(conninfo=dsn, **options):
        made.append(Multiplexer(conninfo, **{"timeout": 5.0, **options}))
        return made[-1]

    yield multiplexer
    for one in made:
        one.close(0)


@pytest.fixture
def mux(make):
    return make()


def pid(mux):
    return mux.execute("select pg_backend_pid()").fetchone()[0]


def running(cur, statement):
    """Return how many sessions execute a statement."""
    cur.execute(
        "select count(*) from pg_stat_activity where state = 'active' and query = %s", (statement,)
    )
    return cur.fetchone()[0]
