"""Which backend a connection uses."""

from __future__ import annotations

import pytest

import greenpg
from greenpg.backend import choose, chosen, current


def pid(conn):
    with conn.cursor() as cur:
        cur.execute("select pg_backend_pid() from pg_sleep(0.05)")
        return cur.fetchone()[0]


class Counting:
    """The current backend, which counts the waiters that it makes."""

    def __init__(self, backend):
        self._backend = backend
        self.waiters = 0

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def waiter(self):
        self.waiters += 1
        return self._backend.waiter()


@pytest.fixture
def counting():
    before = chosen()
    yield Counting(current())
    choose(before)


def test_use_returns_the_backend_and_makes_it_the_default():
    name = current().name

    assert greenpg.use(name) is current()
    assert greenpg.use(current()).name == name


def test_connections_made_from_now_on_use_the_chosen_backend(connect, counting):
    before = connect()
    greenpg.use(counting)
    made = counting.waiters

    pid(before)
    untouched = counting.waiters == made
    pid(connect())

    assert untouched
    assert counting.waiters > made


def test_one_connection_may_have_a_backend_of_its_own(dsn, counting):
    conn = greenpg.connect(dsn, backend=counting)

    assert pid(conn) == conn.info.backend_pid
    assert counting.waiters > 0
    assert current() is not counting
    conn.close()


def test_asynchronous_connection_keeps_the_backend_it_was_given(dsn, counting):
    conn = greenpg.connect(dsn, backend=counting, async_=True)
    greenpg.wait(conn)

    cur = conn.cursor()
    cur.execute("select 1")
    greenpg.wait(conn)

    assert counting.waiters == 1
    conn.close()


def test_backend_of_one_connection_is_not_that_of_the_next(connect, dsn, counting):
    with pytest.raises(greenpg.OperationalError):
        greenpg.connect(dsn, dbname="no_such_database", backend=counting)
    made = counting.waiters

    pid(connect())

    assert counting.waiters == made


@pytest.mark.green
def test_connection_on_threads_stays_plainly_blocking(dsn, spawn):
    conn = greenpg.connect(dsn, backend="threads")
    order: list[str] = []

    job = spawn(order.append, "other task")
    pid(conn)
    order.append("query")
    job.result()

    assert order == ["query", "other task"]
    conn.close()


@pytest.mark.green
def test_connection_on_this_backend_lets_other_tasks_run(conn, spawn):
    order: list[str] = []

    job = spawn(order.append, "other task")
    pid(conn)
    order.append("query")
    job.result()

    assert order == ["other task", "query"]


def test_threadsafety_is_that_of_the_backend():
    shared_by_threads = "hub" not in current().capabilities

    assert greenpg.threadsafety == (2 if shared_by_threads else 1)


@pytest.mark.parametrize("given", ["no_such_backend", 7, object(), dict])
def test_wrong_backend_is_refused_and_nothing_changes(dsn, given):
    before = current()

    with pytest.raises(greenpg.errors.BackendError):
        greenpg.use(given)
    with pytest.raises(greenpg.errors.BackendError):
        greenpg.connect(dsn, backend=given)

    assert current() is before
