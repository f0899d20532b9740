"""Wrong arguments: an error at once that names the argument, and nothing is lost by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from io import StringIO
from math import inf, nan
from typing import Any

import psycopg
import pytest

import greenpg
from greenpg import ConnectionPool, Listener, Multiplexer, monitor, psycopg3
from greenpg.backend import current
from greenpg.errors import BackendError
from greenpg.metrics import ListenerCollector, MultiplexerCollector, PoolCollector
from greenpg.otel import ListenerObserver, MultiplexerObserver, PoolObserver
from greenpg.pool import PoolSet
from greenpg.replication import follow
from greenpg.sqlalchemy import GreenQueuePool

NO_NUMBERS: tuple[Any, ...] = ("", "1", b"x", [], {"a": 1}, timedelta(seconds=1), 10**400)
SECRET = {"password": "swordfish"}


@pytest.fixture
def pool(dsn: str) -> Iterator[ConnectionPool[Any]]:
    with ConnectionPool(dsn, min_size=1, max_size=1) as made:
        yield made


@pytest.fixture
def listener(dsn: str) -> Iterator[Listener]:
    with Listener(dsn) as made:
        yield made


@pytest.fixture
def multiplexer(dsn: str) -> Iterator[Multiplexer]:
    with Multiplexer(dsn) as made:
        yield made


def refused(call: Callable[[Any], object], value: Any, name: str) -> None:
    """Check that a wrong value is refused, by an error that names the argument and a remedy."""
    with pytest.raises((TypeError, ValueError), match=rf"^{name}\b.*: give ") as caught:
        call(value)

    assert "swordfish" not in str(caught.value)


def each(*rows: tuple[str, Callable[..., object], tuple[Any, ...]]) -> Any:
    """Return a parameter for each value that a call must refuse."""
    return pytest.mark.parametrize(
        ("name", "call", "value"),
        [(name, call, value) for name, call, values in rows for value in values],
        ids=lambda part: repr(part)[:20] if not callable(part) else "",
    )


def bounded(conn: Any, seconds: Any) -> None:
    with conn.deadline(seconds):
        pass


@each(
    ("seconds", bounded, (None, nan, *NO_NUMBERS)),
    ("timeout", lambda conn, value: conn.exclusive().acquire(value), (nan, *NO_NUMBERS)),
)
def test_seconds_of_a_connection(driver, dsn, name, call, value):
    module: Any = psycopg3 if driver is psycopg else greenpg

    with closing(module.connect(dsn)) as conn:
        refused(lambda wrong: call(conn, wrong), value, name)

        cur = conn.cursor()
        cur.execute("select 1")
        assert cur.fetchall() == [(1,)]


@each(
    ("timeout", lambda conn, value: conn.listen("a", timeout=value), (nan, *NO_NUMBERS)),
    ("size", lambda c, value: c.cursor().copy_from(StringIO(), "t", size=value), (None, 0, "1")),
    ("size", lambda c, value: c.cursor().copy_expert("copy", StringIO(), value), (None, 0, "1")),
    ("size", lambda conn, value: conn.cursor().fetchmany(value), ("1", [])),
)
def test_arguments_of_psycopg2s_connection(conn, name, call, value):
    refused(lambda wrong: call(conn, wrong), value, name)

    cur = conn.cursor()
    cur.execute("select 1")
    assert cur.fetchall() == [(1,)]


@each(
    ("timeout", lambda pool, value: pool.connection(value), ("key", nan, *NO_NUMBERS)),
    ("timeout", lambda pool, value: pool.getconn(value), ("key", nan, *NO_NUMBERS)),
    ("timeout", lambda pool, value: pool.health(value), (None, nan, "1")),
    ("timeout", lambda pool, value: pool.wait(value), (None, nan, "1")),
    ("timeout", lambda pool, value: pool.open(True, value), (None, nan, "1")),
    ("timeout", lambda pool, value: pool.close(value), (None, nan, "1")),
)
def test_arguments_of_a_pool(pool, name, call, value):
    refused(lambda wrong: call(pool, wrong), value, name)

    with pool.connection() as conn:
        assert not conn.closed


def test_time_that_is_over_is_no_mistake(pool):
    with pool.connection(), pytest.raises(greenpg.errors.PoolTimeout):
        pool.getconn(-1)


@each(
    ("heartbeat", lambda dsn, value: Listener(dsn, heartbeat=value), (0, -1, nan, None, "1")),
    ("patience", lambda dsn, value: Listener(dsn, patience=value), (0, -1, nan, None, "1")),
    ("max_queue", lambda dsn, value: Listener(dsn, max_queue=value), (0, -1, None, "1", inf)),
    ("name", lambda dsn, value: Listener(dsn, name=value), (1, b"x", [])),
    ("slow", lambda dsn, value: Multiplexer(dsn, slow=value), (0, -1, nan, None, "1")),
    ("max_size", lambda dsn, value: Multiplexer(dsn, max_size=value), (0, -1, None, "1", inf)),
    ("max_in_flight", lambda dsn, v: Multiplexer(dsn, max_in_flight=v), (0, None, "1", inf)),
    ("prepared_max", lambda dsn, v: Multiplexer(dsn, prepared_max=v), (0, None, "1", inf)),
    ("prepare_threshold", lambda dsn, v: Multiplexer(dsn, prepare_threshold=v), (-1, "1", [])),
    ("max_waiting", lambda dsn, v: Multiplexer(dsn, max_waiting=v), (-1, nan, None, "1")),
    ("configure", lambda dsn, v: Multiplexer(dsn, configure=v), ("x", True)),
    ("primary", lambda dsn, v: PoolSet(dsn, primary=v), ("x", [1])),
    ("discard_on", lambda dsn, v: PoolSet(dsn, discard_on=v), ("x", None, [ValueError])),
    ("name", lambda dsn, v: PoolSet(dsn, name=v), (1, [1])),
    ("start_lsn", lambda dsn, v: follow(dsn, "s", print, start_lsn=v), (-1, None, "0/0", inf)),
    ("patience", lambda dsn, v: follow(dsn, "s", print, patience=v), ("1", nan)),
    ("status_interval", lambda d, v: follow(d, "s", print, status_interval=v), (None, nan, "9")),
    ("options", lambda dsn, v: follow(dsn, "s", print, options=v), ("x", [("a", 1)])),
    ("threshold", lambda dsn, v: greenpg.watch(v), (0, -1, nan, None, "1")),
    ("port", lambda dsn, v: monitor.serve(v), (-1, None, "1", nan)),
    ("host", lambda dsn, v: monitor.serve(0, host=v), (1, b"127.0.0.1")),
    ("token", lambda dsn, v: monitor.Monitor(token=v), (1, b"x", SECRET)),
    ("pool_size", lambda dsn, v: GreenQueuePool(lambda: None, pool_size=v), (-1, None, "1")),
    ("max_overflow", lambda dsn, v: GreenQueuePool(lambda: None, 1, v), (None, "1", inf)),
    ("timeout", lambda dsn, v: GreenQueuePool(lambda: None, timeout=v), (nan, "1", [])),
    ("creator", lambda dsn, v: GreenQueuePool(v), ("x", True)),
)
def test_arguments_of_what_is_made(dsn, name, call, value):
    refused(lambda wrong: call(dsn, wrong), value, name)


@each(
    ("max_queue", lambda one, v: one.subscribe("a", max_queue=v), (0, -1, "1", inf)),
    ("timeout", lambda one, v: one.subscribe("a", timeout=v), (None, nan, "1")),
    ("timeout", lambda one, v: one.subscribe("a").get(v), (nan, "1")),
    ("timeout", lambda one, v: one.subscribe("a").add("b", timeout=v), (None, nan, "1")),
    ("timeout", lambda one, v: one.close(v), (None, nan, "1")),
)
def test_arguments_of_a_listener(listener, name, call, value):
    refused(lambda wrong: call(listener, wrong), value, name)

    assert listener.subscribe("a").get(0) is None


@pytest.mark.parametrize("name", [["a"], {"a": 1}, None, 1, b"a"])
def test_channel_that_is_no_str(listener, conn, name):
    kept = listener.subscribe("a")

    for call in (listener.subscribe, kept.add, kept.drop, conn.listen):
        with pytest.raises(TypeError, match="a channel's name is a str, not "):
            call(name)

    assert listener.get_stats()["failures"] == 0
    assert kept.channels == {"a"}


@pytest.mark.parametrize("value", [None, nan, *NO_NUMBERS])
def test_deadline_of_a_multiplexer(multiplexer, value):
    def bound(seconds: Any) -> None:
        with multiplexer.deadline(seconds):
            pass

    refused(bound, value, "seconds")

    assert multiplexer.execute("select 1").fetchall() == [(1,)]


@pytest.mark.parametrize("value", [SECRET, 1, ["dbname=x"]])
@pytest.mark.parametrize("make", [ConnectionPool, Multiplexer, greenpg.connect])
def test_connection_string_that_is_none_is_not_shown(make, value):
    refused(make, value, "dsn" if make is greenpg.connect else "conninfo")


@pytest.mark.parametrize("value", [None, 1, [], SECRET])
def test_what_is_no_backend(value):
    with pytest.raises(BackendError, match=r"is not a backend; give a name \(.*threads"):
        greenpg.use(value)


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (PoolCollector, "a ConnectionPool"), (MultiplexerCollector, "a Multiplexer"),
        (lambda wrong: ListenerCollector(a=wrong), "a Listener"), (PoolObserver, "a ConnectionP"),
        (MultiplexerObserver, "a Multiplexer"), (lambda wrong: ListenerObserver(a=wrong), "a Lis"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [None, "web", []])
def test_what_has_no_numbers(make, wanted, value):
    with pytest.raises(TypeError, match=f"give {wanted}"):
        make(value)


@pytest.mark.parametrize("seconds", [inf, 1e300, 3e6])
def test_time_without_an_end(conn, auto, spawn, seconds):
    conn.autocommit = True
    ended = current().event()

    with conn.listen("a", timeout=seconds) as notes:
        job = spawn(auto.cursor().execute, "select pg_sleep(0.1); notify a")
        assert next(notes).channel == "a"
    with conn.deadline(seconds):
        conn.cursor().execute("select pg_sleep(0.1)")
    spawn(ended.set)

    assert ended.wait(seconds)
    job.result()
