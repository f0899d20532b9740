"""psycopg_pool's own pool, in a monkey-patched process with psycopg 3 patched."""

from __future__ import annotations

import pytest

from tests import programs

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
HEAD = """
import importlib, sys, threading, time
dsn, library = sys.argv[1:]
importlib.import_module("greenpg_" + library).patch_psycopg3()
Timeout, spawn = (getattr(importlib.import_module(library), name) for name in ("Timeout", "spawn"))
import psycopg
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

def in_tasks(count, work, meanwhile=lambda: None):
    tasks = [threading.Thread(target=work) for _ in range(count)]
    for task in tasks:
        task.start()
    meanwhile()
    for task in tasks:
        task.join()

def until(true):
    while not true():
        time.sleep(0.01)

def waiting(count):
    until(lambda: pool.get_stats().get("requests_waiting") == count)

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
WAITING = """
numbers, served = iter(range(5)), []

def work():
    number = next(numbers)
    with pool.connection():
        served.append(number)

def give_back():
    waiting(5)
    try:
        pool.getconn(timeout=0.1)
    except PoolTimeout:
        print("PoolTimeout")
    pool.putconn(conn)

with ConnectionPool(dsn, min_size=1, max_size=1) as pool:
    conn = pool.getconn()
    in_tasks(5, work, give_back)
    print(served)
"""
KILLED = """
def work():
    with pool.connection() as conn:
        conn.execute("insert into kept values (1)")
        conn.execute("select pg_sleep(9)")

def sleeps():
    query = "select from pg_stat_activity where pid = %s and state = 'active' and query ~ 'sleep'"
    return admin.execute(query, [first]).rowcount

with (
    ConnectionPool(dsn, min_size=1, max_size=1) as pool,
    psycopg.connect(dsn, autocommit=True) as admin,
):
    with pool.connection() as conn:
        conn.execute("create temporary table kept (number int)")
        first = pid(conn)
    task = spawn(work)
    until(sleeps)
    task.kill()
    with pool.connection(timeout=5) as conn:
        print(pid(conn) == first, sleeps(), conn.execute("select from kept").rowcount)
"""
CLOSED = """
def work():
    try:
        pool.getconn()
    except PoolClosed:
        print("PoolClosed")

def close():
    waiting(3)
    pool.close()

pool = ConnectionPool(dsn, min_size=1, max_size=1, open=True)
with pool.connection() as conn:
    in_tasks(3, work, close)
    print(conn.execute("select 6 * 7").fetchone()[0])
print(conn.closed, threading.active_count())
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
        (WAITING, ["PoolTimeout", "[0, 1, 2, 3, 4]"]),
        (INTERRUPTED, ["42", "Timeout", "refused", "True"]),
        (KILLED, ["True 0 0"]),
        (CLOSED, ["PoolClosed"] * 3 + ["42", "True 1"]),
        (TERMINATED, ["42 False"] * 3),
    ],
)
def test_psycopg_pool_works(dsn, library, program, expected):
    done = programs.run(PATCHES[library] + HEAD + program, dsn, library)

    assert done.stdout.splitlines() == expected, done.stderr
