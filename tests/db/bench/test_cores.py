"""A benchmark's client and server on one core."""

import os

import psycopg2
import pytest

from greenpg_bench.cores import one_core

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="capability: sched_setaffinity"
)


def _cores(dsn):
    """The cores of this process and of a new session's."""
    conn = psycopg2.connect(dsn)
    try:
        return os.sched_getaffinity(0), os.sched_getaffinity(conn.info.backend_pid)
    finally:
        conn.close()


def test_client_and_server_share_a_core_for_the_block(dsn):
    before = _cores(dsn)

    with one_core(dsn) as placed:
        mine, the_servers = _cores(dsn)

    if not placed:
        pytest.skip("capability: a server on this machine that we may move")
    assert mine == the_servers
    assert len(mine) == 1
    assert _cores(dsn) == before
