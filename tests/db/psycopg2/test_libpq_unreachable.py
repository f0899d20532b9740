"""greenpg if ctypes cannot reach psycopg2's libpq: a static build, an unusual platform."""

from __future__ import annotations

import pytest

from greenpg.backend import current
from tests import programs

PRELUDE = """
import ctypes, sys

class Unreachable:
    def __init__(self, path):
        raise OSError(f"{path}: not a shared library")

ctypes.PyDLL = ctypes.CDLL = Unreachable
import greenpg
from greenpg._protocol.libpq import libpq
assert not libpq.has("PQflush")
name, dsn = sys.argv[1:]
backend = greenpg.use(name)

class Job:
    def __init__(self, fn, *args):
        self.outcome = None
        self.task = backend.spawn(self.run, fn, *args)
    def run(self, fn, *args):
        try:
            self.outcome = fn(*args)
        except BaseException as exc:
            self.outcome = exc

def one(conn, query="select 1"):
    cur = conn.cursor()
    cur.execute(query)
    return cur.fetchone()[0]

def started(conn, query):
    job = Job(one, conn, query)
    watch = greenpg.connect(dsn)
    watch.autocommit = True
    sessions = f"select wait_event from pg_stat_activity where pid = {conn.info.backend_pid}"
    while one(watch, sessions) != "PgSleep":
        backend.sleep(0.01)
    watch.close()
    return job

def main():
    conn = greenpg.connect(dsn)
    conn.autocommit = True
    check(conn)
    conn.close()

def finish():
    job = Job(main)
    assert job.task.join(20), "not over in 20 s"
    if isinstance(job.outcome, BaseException):
        raise job.outcome
    print("done")
"""
CHECKS = {
    "queries are green": """
def check(conn):
    ticks = []
    def tick():
        for _ in range(5):
            ticks.append(len(ticks))
            backend.sleep(0.01)
    job = Job(tick)
    assert one(conn, "select 1 from pg_sleep(0.3)") == 1
    assert job.task.join(10) and len(ticks) == 5
    jobs = [Job(one, conn, f"select {n}") for n in range(5)]
    assert all(job.task.join(10) for job in jobs)
    assert [job.outcome for job in jobs] == list(range(5))
""",
    "transactions work": """
def check(conn):
    conn.autocommit = False
    with conn:
        conn.cursor().execute("create temp table made (n int)")
        conn.cursor().executemany("insert into made values (%s)", [(1,), (2,)])
    named = conn.cursor("named")
    named.execute("select n from made order by n")
    assert named.fetchall() == [(1,), (2,)]
    conn.rollback()
    conn.reset()
""",
    "cancel works": """
def check(conn):
    job = started(conn, "select 1 from pg_sleep(15)")
    conn.cancel()
    assert job.task.join(10)
    assert isinstance(job.outcome, greenpg.errors.QueryCanceled), job.outcome
    assert one(conn) == 1
""",
    "a deadline stops a query": """
def check(conn):
    try:
        with conn.deadline(0.2):
            one(conn, "select 1 from pg_sleep(15)")
    except greenpg.DeadlineExceeded:
        pass
    else:
        raise AssertionError("nothing was stopped")
    assert conn.closed or one(conn) == 1
""",
    "an interrupted transaction is not committed": """
def check(conn):
    conn.autocommit = False
    one(conn)
    try:
        with conn.deadline(0.2):
            one(conn, "select 1 from pg_sleep(15)")
    except greenpg.DeadlineExceeded:
        pass
    if not conn.closed:
        try:
            conn.commit()
        except greenpg.errors.InFailedSqlTransaction:
            pass
        else:
            raise AssertionError("it was committed")
        conn.rollback()
        assert one(conn) == 1
""",
    "what needs libpq says so": """
def check(conn):
    try:
        libpq.PQflush
    except greenpg.errors.FeatureUnavailable as err:
        assert "cannot be reached" in str(err) and "psycopg2-binary" in str(err), err
    else:
        raise AssertionError("no error")
""",
    "close ends another task's query": """
def check(conn):
    other = greenpg.connect(dsn)
    job = started(other, "select 1 from pg_sleep(15)")
    other.close()
    assert job.task.join(10)
    assert isinstance(job.outcome, greenpg.InterfaceError), job.outcome
""",
    "a refused connection is one error": """
def check(conn):
    try:
        greenpg.connect(dsn, host="127.0.0.1", port=1)
    except greenpg.OperationalError:
        pass
    else:
        raise AssertionError("connected")
""",
}


@pytest.mark.parametrize("check", CHECKS)
def test_without_libpq(dsn, check):
    code = "\n".join([PRELUDE, CHECKS[check], "finish()"])

    done = programs.run(code, current().name, dsn)

    assert done.stdout == "done\n", done.stderr
