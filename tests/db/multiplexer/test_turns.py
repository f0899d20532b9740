"""A statement's turn: none is lost, none comes too late, and none takes memory before it."""

from __future__ import annotations

from time import monotonic

import psycopg2
import pytest

from greenpg.backend import current
from greenpg.errors import DeadlineExceeded, PoolTimeout, TooManyRequests
from greenpg.multiplexer import _dispatcher, _measures
from tests.db.multiplexer.conftest import NOWHERE, until

LARGE = 1_000_000


def count(mux, table):
    return mux.execute(f"select count(*) from {table}").fetchone()[0]


def test_statement_is_not_sent_once_its_deadline_has_passed(mux, create):
    table = create("(n int)")
    mux.execute("select 1")

    for seconds in (0, -1):
        with pytest.raises(DeadlineExceeded), mux.deadline(seconds):
            mux.execute(f"insert into {table} values (1)")

    assert count(mux, table) == 0


def test_statement_whose_deadline_has_passed_in_the_queue_is_not_sent(mux):
    mux.execute("select 1")
    late, next_one = (mux._writer.one("select 1") for _ in range(2))
    late.deadline = monotonic()

    for group in (late, next_one):
        mux._dispatcher.queue[group] = None
    mux._dispatcher.push()

    until(lambda: next_one.ended, "the next one is answered")
    next_one.free()
    assert late.line is None


def test_statement_is_not_sent_once_its_timeout_has_passed(make):
    mux = make(timeout=5.0)
    mux.execute("select 1")
    group = mux._writer.one("select 1")
    group.asked -= 5.0

    mux._dispatcher.queue[group] = None
    mux._dispatcher.push()

    assert isinstance(group.error, PoolTimeout)
    assert group.line is None


@pytest.fixture
def unattended(monkeypatch):
    """Let nothing but a wake-up serve a statement; only OS threads can lose one."""
    if "hub" in current().capabilities:
        pytest.skip("capability missing: tasks that run at the same time")
    monkeypatch.setattr(_dispatcher, "LOOK", 60.0)
    monkeypatch.setattr(_dispatcher, "LINGER", 60.0)


def test_statement_is_sent_though_another_thread_has_held_the_lock(
    unattended, make, spawn, monkeypatch
):
    mux, jobs, numbers = make(timeout=60.0), [], _measures.MultiplexerMeasures
    mux.execute("select 1")

    def slowly(**options):
        jobs.append(spawn(mux.execute, "select 1"))
        queue = mux._dispatcher.queue
        until(lambda: any(group.waiter for group in list(queue)), "it waits for its turn")
        return numbers(**options)

    monkeypatch.setattr(_measures, "MultiplexerMeasures", slowly)
    mux.measures()

    assert jobs[0].result().fetchone() == (1,)


def test_statement_is_sent_though_a_line_opens_while_another_thread_looks(
    unattended, make, spawn, monkeypatch
):
    """The thread that has found no room is about to leave the lock as the line opens."""
    mux = make(max_size=1, timeout=60.0)
    mux.execute("select 1")
    dispatcher = mux._dispatcher
    (line,) = dispatcher.lines
    distribute = dispatcher._distribute

    def distributed():
        left = distribute()
        line.open = True
        other = spawn(dispatcher.push)
        other.join()
        return left

    line.open = False
    dispatcher._looks_often = True  # as if the keeper had just looked
    monkeypatch.setattr(dispatcher, "_distribute", distributed)

    assert mux.execute("select 2").fetchone() == (2,)


def test_no_call_is_left_uncounted(make, spawn):
    mux = make()

    def ask():
        for _ in range(200):
            mux.execute("select 1")

    jobs = [spawn(ask) for _ in range(8)]
    for job in jobs:
        job.result(30)

    assert mux.measures().statements == 1600


def test_each_timeout_names_the_servers_last_error(make, spawn):
    mux = make(NOWHERE, timeout=1.0, max_waiting=1)
    until(lambda: spawn(expired, mux).join().value, "the first connect has failed")

    waiting = spawn(mux.execute, "select 1")
    until(lambda: mux.measures().waiting == 1, "it waits")
    with pytest.raises(TooManyRequests, match=r"no connection: .*refused") as refused:
        mux.execute("select 1")
    late = waiting.join().error

    assert isinstance(late, PoolTimeout)
    assert "refused" in str(late)
    assert isinstance(late.__cause__, psycopg2.OperationalError)
    assert isinstance(refused.value.__cause__, psycopg2.OperationalError)


def expired(mux):
    """Return True if a deadline's error names the refused connection."""
    with pytest.raises(DeadlineExceeded) as caught, mux.deadline(0.2):
        mux.execute("select 1")
    return "refused" in str(caught.value) and caught.value.__cause__ is not None


@pytest.mark.parametrize("threshold", [None, 0], ids=["plain", "prepared"])
def test_slow_network_keeps_statements_out_of_libpq(make, proxy, spawn, threshold):
    mux = make(proxy.dsn, max_size=1, slow=600, timeout=60.0, prepare_threshold=threshold)
    query, text = "select length(%s)", "x" * LARGE
    for _ in range(3):
        mux.execute(query, (text,))
    proxy.stall("up")

    jobs = [spawn(mux.execute, query, (text,)) for _ in range(60)]
    until(lambda: mux.measures().statements == 63, "all have asked")
    current().sleep(0.1)

    assert mux.measures().in_flight < 30
    proxy.flow()
    assert [job.result(30).fetchone() for job in jobs] == [(LARGE,)] * 60


def test_megabytes_in_both_directions_at_once(make, spawn):
    mux = make(max_size=1, slow=600)
    rows = [("x" * 100_000,)] * 100

    jobs = [spawn(mux.executemany, "select %s", rows) for _ in range(3)]

    for job in jobs:
        assert [result.fetchone() for result in job.result(30)] == rows
