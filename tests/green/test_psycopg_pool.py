"""psycopg_pool's own pool, in a monkey-patched process with psycopg 3 patched."""

from __future__ import annotations

import pytest

from tests import programs

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
HEAD = """
import importlib, sys, threading
dsn, library = sys.argv[1:]
importlib.import_module("greenpg_" + library).patch_psycopg3()
Timeout = importlib.import_module(library).Timeout
import psycopg
from psycopg_pool import ConnectionPool

def in_tasks(count, work):
    tasks = [threading.Thread(target=work) for _ in range(count)]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()

def pid(conn):
    return conn.info.backend_pid
"""
CONCURRENT = """
active, peak, done = 0, 0, 0

def work():
    global active, peak, done
    with pool.connection() as conn:
        active += 1
        peak = max(peak, active)
        conn.execute("select pg_sleep(0.1)")
        active -= 1
        done += 1

with ConnectionPool(dsn, min_size=1, max_size=4) as pool:
    in_tasks(12, work)
    print(peak, done, len(pool._pool))
"""
INTERRUPTED = """
with ConnectionPool(dsn, min_size=1, max_size=1) as pool:
    with pool.connection() as conn:
        first = pid(conn)
        with Timeout(0.1, False):
            conn.execute("select pg_sleep(9)")
        conn.rollback()
        print(conn.execute("select 6 * 7").fetchone()[0])
    try:
        with pool.connection() as conn, Timeout(0.1):
            conn.execute("select pg_sleep(9)")
    except Timeout:
        print("Timeout")
    try:
        with pool.connection() as conn:
            with Timeout(0.1, False):
                conn.execute("select pg_sleep(9)")
    except psycopg.errors.InFailedSqlTransaction:
        print("refused")
    with pool.connection() as conn:
        print(pid(conn) == first)
"""
TERMINATED = """
with ConnectionPool(dsn, min_size=2, max_size=2, check=ConnectionPool.check_connection) as pool:
    pool.wait()
    with psycopg.connect(dsn, autocommit=True) as admin:
        with pool.connection() as one, pool.connection() as other:
            doomed = [pid(one), pid(other)]
        for number in doomed:
            admin.execute("select pg_terminate_backend(%s, 5000)", [number])
    for _ in range(3):
        with pool.connection() as conn:
            print(conn.execute("select 6 * 7").fetchone()[0], pid(conn) in doomed)
"""


@pytest.mark.parametrize("library", PATCHES)
@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (CONCURRENT, ["4 12 4"]),
        (INTERRUPTED, ["42", "Timeout", "refused", "True"]),
        (TERMINATED, ["42 False"] * 3),
    ],
)
def test_psycopg_pool_works(dsn, library, program, expected):
    done = programs.run(PATCHES[library] + HEAD + program, dsn, library)

    assert done.stdout.splitlines() == expected, done.stderr
