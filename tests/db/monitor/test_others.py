"""What the monitor shows of multiplexers and listeners, on every backend."""

from __future__ import annotations

from contextlib import closing

import psycopg2
import pytest

from greenpg.backend import current
from greenpg.monitor._history import History
from greenpg.monitor._snapshot import snapshot
from greenpg.monitor._watched import watched
from greenpg.multiplexer import Multiplexer
from greenpg.notify import Listener
from tests.db.conftest import until
from tests.db.pool.conftest import NOWHERE, terminate

SECRET = "hunter4"


@pytest.fixture
def many(dsn):
    with closing(Multiplexer(dsn, name="many", max_size=2, timeout=5.0)) as multiplexer:
        yield multiplexer
        multiplexer.close(0)


@pytest.fixture
def news(dsn, driver):
    with Listener(dsn, name="news", driver=driver.__name__) as listener:
        yield listener


def look(details=False):
    """Return what is shown; that of a server may be as old as its last tick."""
    return snapshot(current(), watched(), History(), details=details)


def run_at(gate, many):
    """Wait until the statement at the gate is seen to run: a first answer may have come late."""
    gate.wait_for()
    until(lambda: many.lines()[0].seconds > 0, "it runs")


def only(shown, kind):
    (one,) = shown[kind]
    return one


def test_a_multiplexer_is_shown_with_its_connections_and_without_its_pool(serve, many, spawn, gate):
    many.execute("select 1")
    slow = spawn(many.execute, gate.sql)
    run_at(gate, many)

    shown = look()
    found = only(shown, "multiplexers")

    assert (found["name"], found["max"], found["in_flight"]) == ("many", 2, 1)
    assert (found["statements"], found["answered"], found["failed"]) == (2, 1, 0)
    first = found["lines"][0]
    assert (first["in_flight"], first["seconds"] > 0, first["text"]) == (1, True, None)
    assert first["pid"] in {line.pid for line in many.lines()}
    assert shown["pools"] == []
    gate.open()
    slow.result()


def test_texts_of_statements_are_shown_to_whom_asks_without_literals(many, spawn, gate):
    many.execute(f"select '{SECRET}', pg_sleep(1)")
    job = spawn(many.execute, f"{gate.sql}, %s", (SECRET,))
    run_at(gate, many)

    silent, open_ = (only(look(details), "multiplexers") for details in (False, True))

    assert (silent["slowest"], silent["lines"][0]["text"]) == ([], None)
    assert open_["lines"][0]["text"] == f"select {gate.function}(?), ?"
    (slowest,) = open_["slowest"]
    assert (slowest["text"], slowest["seconds"] > 0) == ("select ?, pg_sleep(?)", True)
    assert open_["slow"] >= 1
    assert SECRET not in str((silent, open_))
    gate.open()
    job.result()


def test_lost_connections_and_refused_ones_are_among_the_errors(many, spawn, gate, dsn):
    job = spawn(many.execute, gate.sql)
    gate.wait_for()
    terminate(dsn, *[line.pid for line in many.lines()])
    with pytest.raises(psycopg2.OperationalError):
        job.result()
    with closing(Multiplexer(NOWHERE, name="nowhere", timeout=0.3)) as nowhere:
        with pytest.raises(psycopg2.OperationalError):
            nowhere.execute("select 1")

        errors = look()["errors"]

    found = {(error["source"], error["what"]) for error in errors}
    assert ("multiplexer many", "connection") in found
    assert {("multiplexer nowhere", "connect"), ("multiplexer nowhere", "request")} <= found
    gate.open()


def test_answers_per_second_and_their_latency_are_sampled(many, spawn, gate):
    history = History()
    history.note(0.0, [many])
    for _ in range(4):
        many.execute("select 1")
    history.note(2.0, [many])
    job = spawn(many.execute, gate.sql)
    run_at(gate, many)

    history.note(3.0, [many])

    (rate, latency), (none, growing) = history.of(many).samples
    assert (rate, none) == (2.0, 0.0)
    assert latency > 0
    assert growing > 0
    gate.open()
    job.result()


def test_a_listener_is_shown_with_its_channels(news, auto):
    before = only(look(), "listeners")
    with news.subscribe("a", "b"), news.subscribe("b") as subscription:
        auto.cursor().execute("notify b")
        subscription.get()

        found = only(look(), "listeners")

    assert (before["name"], before["state"]) == ("news", "unused")
    assert (found["state"], found["subscriptions"], found["channels"]) == ("connected", 2, 2)
    assert (found["notifications"], found["connects"], found["failures"]) == (1, 1, 0)
    assert found["listened"] == [
        {"name": "b", "subscribers": 2},
        {"name": "a", "subscribers": 1},
    ]


def test_a_listeners_lost_connection_is_among_the_errors(news, dsn):
    with news.subscribe("a"):
        terminate(dsn, news._connection._conn.info.backend_pid)
        until(lambda: news.get_stats()["connects"] == 2, "connected again")

        (error,) = look()["errors"]

    assert (error["source"], error["what"]) == ("listener news", "connection")


def test_a_listener_that_cannot_connect_says_so(driver):
    with Listener(NOWHERE, name="nowhere", driver=driver.__name__) as listener:
        with pytest.raises(listener._errors.operational):
            listener.subscribe("a", timeout=0.3)
        found = only(look(), "listeners")
        errors = look()["errors"]

    assert (found["state"], found["failures"] > 0) == ("connecting", True)
    assert ("listener nowhere", "connect") in {(one["source"], one["what"]) for one in errors}
    assert look()["listeners"] == []


def test_a_stream_has_the_samples_of_all_kinds(serve, listen, many, dsn):
    with Listener(dsn, name="news"):
        stream = listen(serve())

        first, second = stream.event(), stream.event()

    for kind in ("multiplexers", "listeners"):
        assert "samples" in only(first, kind)
        assert "samples" not in only(second, kind)
