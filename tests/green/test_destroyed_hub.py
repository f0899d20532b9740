"""Pools and listeners after gevent's `hub.destroy()`: their tasks never run again."""

from __future__ import annotations

from tests import programs

HEAD = """
import gevent, greenpg, sys
from greenpg.errors import PoolTimeout
from greenpg_gevent import ConnectionPool
greenpg.use("gevent")
dsn = sys.argv[1]

def destroy():
    gevent.get_hub().destroy(destroy_loop=True)
"""
POOL = """
pool = ConnectionPool(dsn, min_size=1, max_size=2, timeout=3)
pool.wait()
waiting = gevent.spawn(lambda: [pool.getconn(), pool.getconn(), pool.getconn()])
gevent.sleep(0.3)
destroy()
try:
    pool.getconn(timeout=0.3)
except PoolTimeout:
    print("timeout")
pool.close(0.3)
print(pool.closed)
"""
IDLE = """
pool = ConnectionPool(dsn, min_size=1, max_size=1, timeout=3)
pool.wait()
destroy()
with pool.connection() as conn, conn.cursor() as cur:
    cur.execute("select 6 * 7")
    print(cur.fetchone()[0])
pool.close(3)
print(pool.closed)
"""
AT_WORK = """
pool = ConnectionPool(dsn, min_size=1, max_size=1, timeout=9, reset=lambda conn: gevent.sleep(99))
pool.wait()
with pool.connection():
    pass
destroy()
with pool.connection() as conn, conn.cursor() as cur:
    cur.execute("select 6 * 7")
    print(cur.fetchone()[0])
pool.close(0)
"""
LISTENER = """
listener = greenpg.Listener(dsn)
listener.subscribe("a")
destroy()
try:
    listener.subscribe("b", timeout=9)
except greenpg.OperationalError as error:
    print("hub" in str(error))
listener.close(1)
print("closed")
"""
CLOSE = """
listener = greenpg.Listener(dsn)
listener.subscribe("a")
destroy()
listener.close(1)
print("closed")
"""


def printed(program, dsn):
    done = programs.run(HEAD + program, dsn)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_pool_with_waiting_tasks_times_out_and_closes(dsn):
    assert printed(POOL, dsn) == ["timeout", "True"]


def test_an_idle_pool_works_on_and_closes(dsn):
    assert printed(IDLE, dsn) == ["42", "True"]


def test_a_slot_that_a_task_was_at_work_on_is_free_again(dsn):
    assert printed(AT_WORK, dsn) == ["42"]


def test_a_listener_refuses_subscribers_and_closes(dsn):
    assert printed(LISTENER, dsn) == ["True", "closed"]


def test_a_listener_closes(dsn):
    assert printed(CLOSE, dsn) == ["closed"]
