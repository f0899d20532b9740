"""Servers and networks that fail: nothing hangs, each statement gets its answer or an error.

What was not sent goes to another connection; what was sent raises an error that says so.
"""

from __future__ import annotations

import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from greenpg.embedded import running
from greenpg.errors import DeadlineExceeded, PoolClosed, PoolTimeout
from greenpg_conformance.toolkit.fake_server import message
from tests.db.bouncer import bouncing
from tests.db.conftest import Gate
from tests.db.multiplexer.conftest import pid, terminate, until

SLEEP = "select 7 from pg_sleep(60)"
LARGE = "select repeat('x', 50000000)"  # more than sockets and a proxy take ahead
BRIEF = 0.3  # seconds, of limits that are to pass
TASKS = 10
PATIENCE = 30.0
PARSED = message(b"1") + message(b"2")
NONSENSE = {
    "no message": b"\xff" * 8,
    "of an unknown type": message(b"\x01", b"what"),
    "of a COPY": PARSED + message(b"G", b"\0\0\0"),
}


@pytest.fixture(scope="module")
def server():
    """A server of this module's own, which it may stop."""
    with running() as made:
        yield made


class Busy:
    """A multiplexer of one connection with a statement that runs, and others that wait."""

    def __init__(self, mux, spawn):
        self.mux = mux
        self.session = pid(mux)
        self.sent = spawn(mux.execute, SLEEP)
        until(lambda: mux.measures().in_flight, "it is sent")
        self.waiting = [spawn(mux.execute, "select %s", (n,)) for n in range(TASKS)]
        until(lambda: mux.measures().waiting == TASKS, "the others wait")

    def assert_survived(self):
        assert_may_have_run(self.sent)
        assert_answered(self.waiting)
        assert_works(self.mux)


def assert_may_have_run(job):
    error = job.join(PATIENCE).error
    assert isinstance(error, psycopg2.OperationalError)
    assert "may have run" in str(error)


def assert_answered(jobs):
    """Each has asked for its number in the list."""
    found = [job.result(PATIENCE).fetchone() for job in jobs]
    assert found == [(n,) for n in range(len(jobs))]


def assert_works(mux):
    until(lambda: answers(mux), "it works")
    found = mux.measures()
    assert (found.waiting, found.in_flight) == (0, 0)


def answers(mux):
    """Return True once it answers."""
    try:
        return mux.execute("select 42").fetchone() == (42,)
    except psycopg2.OperationalError:
        return False


def refusal(mux):
    """Return the error of a statement that was not sent in time because of the server."""
    try:
        mux.execute("select 42")
    except PoolTimeout as error:
        return error if "no connection" in str(error) else None
    except psycopg2.OperationalError:
        return None  # it was sent


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_server_restarts(server, make, spawn, mode):
    busy = Busy(make(server.dsn, max_size=1, timeout=PATIENCE), spawn)

    server.restart(mode)

    busy.assert_survived()


def test_server_is_away_for_longer_than_the_timeout(server, make):
    mux = make(server.dsn, timeout=BRIEF)
    assert_works(mux)

    server.halt()
    try:
        error = until(lambda: refusal(mux), "the timeout names the server's fault")
    finally:
        server.resume()

    assert isinstance(error.__cause__, psycopg2.OperationalError)
    assert_works(mux)


def test_fatal_error_in_the_midst_of_a_pipeline(make, spawn):
    mux = make(max_size=1, slow=60, timeout=PATIENCE)
    mux.execute("select %s", (0,))
    killer = "select pg_terminate_backend(pg_backend_pid()), pg_sleep(60)"
    mux._writer.texts.pace(killer).seconds = 0.0  # else nothing is sent behind it

    ended = spawn(mux.execute, killer)
    jobs = [spawn(mux.execute, "select %s", (n,)) for n in range(TASKS)]

    assert "terminating connection" in str(ended.join(PATIENCE).error)
    for n, job in enumerate(jobs):
        job.join(PATIENCE)
        if job.error is None:  # sent on the next connection
            assert job.value.fetchone() == (n,)
        else:
            assert_may_have_run(job)
    assert_works(mux)


def test_network_is_cut_in_the_midst_of_an_answer(make, proxy, spawn, auto):
    mux = make(proxy.dsn, max_size=1, timeout=PATIENCE)
    session = pid(mux)
    proxy.drip(100, 0.01, scope="present")
    sent = spawn(mux.execute, LARGE)
    until(lambda: waits_for_its_client(auto.cursor(), session), "a part of it is on the way")
    waiting = [spawn(mux.execute, "select %s", (n,)) for n in range(TASKS)]
    until(lambda: mux.measures().waiting == TASKS, "the others wait")

    proxy.cut()

    assert_may_have_run(sent)
    assert_answered(waiting)
    assert_works(mux)


def waits_for_its_client(cur, session):
    cur.execute("select wait_event from pg_stat_activity where pid = %s", (session,))
    return cur.fetchone() == ("ClientWrite",)


def test_silent_network_ends_waits_in_the_queue_in_time(make, proxy, spawn):
    mux = make(proxy.dsn, max_size=1, timeout=BRIEF)
    assert_works(mux)
    proxy.stall()
    sent = spawn(mux.execute, SLEEP)
    until(lambda: mux.measures().in_flight, "it is sent")

    def bounded():
        with mux.deadline(BRIEF / 2):
            mux.execute("select 42")

    hurried = [spawn(bounded) for _ in range(TASKS)]
    patient = [spawn(mux.execute, "select 42") for _ in range(TASKS)]

    assert {type(job.join(PATIENCE).error) for job in hurried} == {DeadlineExceeded}
    assert {type(job.join(PATIENCE).error) for job in patient} == {PoolTimeout}
    assert not sent.ended
    proxy.cut()
    proxy.flow()
    assert_may_have_run(sent)
    assert_works(mux)


def test_connections_are_refused_for_a_while(make, proxy, spawn):
    mux = make(proxy.dsn, max_size=1, timeout=PATIENCE)
    assert_works(mux)
    proxy.refuse()
    proxy.cut()
    until(lambda: not mux.measures().connections, "it is noticed")
    jobs = [spawn(mux.execute, "select %s", (n,)) for n in range(TASKS)]
    until(lambda: mux._pool._pool.last_error, "a connect has failed")

    proxy.admit()

    assert_answered(jobs)
    assert_works(mux)


@pytest.mark.parametrize("behind", [0, TASKS])
@pytest.mark.parametrize("case", NONSENSE)
def test_server_answers_nonsense(fake, make, spawn, case, behind):
    mux = make(fake.dsn, max_size=1, timeout=PATIENCE, slow=60)
    mux.execute("select 1")
    fake.answer(b"odd", NONSENSE[case])

    odd = spawn(mux.execute, "select odd")
    others = [spawn(mux.execute, "select 2") for _ in range(behind)]

    assert isinstance(odd.join(PATIENCE).error, psycopg2.DatabaseError)
    errors = [job.join(PATIENCE).error for job in others]
    assert all(error is None or "may have run" in str(error) for error in errors)
    until(lambda: spawn(mux.execute, "select 1").join().error is None, "it works")


@pytest.fixture
def admin(connect, server):
    """A connection that may change the role "few", which may have one session."""
    made = connect(server.dsn)
    made.autocommit = True
    made.cursor().execute("create role few login password 'old' connection limit 1")
    yield made
    made.cursor().execute("drop role few")


def test_server_has_no_room_for_a_second_connection(make, server, admin, spawn):
    gate = Gate(admin)
    mux = make(make_dsn(server.dsn, user="few", password="old"), max_size=4, timeout=PATIENCE)
    slow = spawn(mux.execute, gate.sql)
    gate.wait_for()

    jobs = [spawn(mux.execute, "select %s", (n,)) for n in range(TASKS)]
    until(lambda: mux._pool._pool.last_error, "a connect has failed")
    gate.open()

    assert slow.result(PATIENCE).rowcount == 1
    assert_answered(jobs)
    mux.close(0)


def test_password_is_changed(make, server, admin):
    mux = make(make_dsn(server.dsn, user="few", password="old"), max_size=1, timeout=BRIEF)
    assert_works(mux)
    session = until(lambda: [line.pid for line in mux.lines()], "it is connected")[0]
    admin.cursor().execute("alter role few password 'new'")
    terminate(server.dsn, session)

    assert "password" in str(until(lambda: refusal(mux), "it is refused"))
    admin.cursor().execute("alter role few password 'old'")

    assert_works(mux)
    mux.close(0)


def test_pgbouncer_goes_away_and_comes_back(make, dsn, spawn, tmp_path):
    with bouncing(dsn, tmp_path) as bouncer:
        busy = Busy(make(bouncer.dsn, max_size=1, timeout=PATIENCE, prepare_threshold=None), spawn)

        bouncer.stop()
        bouncer.start()

        busy.assert_survived()
        terminate(dsn, busy.session)  # a server that sleeps does not look at its client


def test_close_during_connects(make, proxy, spawn):
    mux = make(proxy.dsn, timeout=PATIENCE)
    proxy.stall()
    jobs = [spawn(mux.execute, "select 1") for _ in range(TASKS)]
    until(lambda: proxy.accepted(), "it connects")

    mux.close(0)

    assert all(isinstance(job.join().error, PoolClosed) for job in jobs)
    proxy.flow()
