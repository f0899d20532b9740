"""The numbers of pools, and how Prometheus and OpenTelemetry see them."""

from bisect import bisect_left
from contextlib import suppress
from time import monotonic
from typing import Any

import pytest

from greenpg.backend import current
from greenpg.errors import PoolTimeout
from greenpg.pool import ConnectionPool, PoolSet
from greenpg.pool.core import BOUNDS
from tests.db.conftest import until
from tests.db.pool.conftest import answer, pid, terminate

prometheus = pytest.importorskip("prometheus_client")


def test_a_scrape_has_metrics_of_each_pool(dsn, driver):
    from greenpg.metrics import PoolCollector

    registry = prometheus.CollectorRegistry()
    pools = PoolSet(dsn, driver=driver.__name__)
    with ConnectionPool(dsn, driver=driver.__name__, min_size=1, name="web") as pool:
        registry.register(PoolCollector(pool, pools))
        with pool.connection():
            pass

        def sample(name, pool="web", **labels):
            return registry.get_sample_value(f"greenpg_pool_{name}", {"pool": pool, **labels})

        assert sample("max_size") == 1
        assert sample("idle") == 1
        assert sample("in_use") == 0
        assert sample("requests_total") == 1
        assert sample("connects_seconds_total") >= 0
        assert sample("connect_seconds_count") == 1
        assert sample("wait_seconds_bucket", le="+Inf") == 1
        assert sample("loan_seconds_bucket", le="60.0") == 1
        assert sample("loan_seconds_sum") > 0
        assert sample("sessions", "pools.primary") == 0
        pool.drain()
        assert sample("closed_total", reason="drained") == 1


def test_now_is_told_by_gauges(make, spawn):
    pool = make(min_size=2)
    pool.wait()
    lent = [pool.getconn()]

    found = pool.measures()
    lent.append(pool.getconn())
    job = spawn(pool.getconn)
    until(lambda: pool.measures().waiting, "one waits")
    later = pool.measures()
    until(lambda: pool.measures().oldest_loan > later.oldest_loan, "the loan gets older")

    assert (found.in_use, found.idle, found.waiting, found.oldest_wait) == (1, 1, 0, 0.0)
    assert (later.in_use, later.idle, later.waiting) == (2, 0, 1)
    assert later.oldest_loan > later.oldest_wait > 0
    pool.putconn(lent[0])
    lent[0] = job.result()
    for conn in lent:
        pool.putconn(conn)


def long_and_brief(pool):
    """Make three loans, of which one takes long; return the seconds that it took at least.

    They are measured, since a library's timers may end a little early.
    """
    for _ in range(2):
        with pool.connection():
            pass
    with pool.connection():
        began = monotonic()
        current().sleep(0.06)
        return monotonic() - began


def test_each_loan_and_each_wait_is_in_a_histogram(make, spawn):
    pool = make()
    job = spawn(long_and_brief, pool)
    until(lambda: pool.measures().in_use, "the first loan")
    seconds = job.result()

    loans = pool.measures().loans
    waits = pool.measures().waits

    assert sum(loans.counts) == sum(waits.counts) == 3
    assert sum(loans.counts[bisect_left(BOUNDS, seconds) :]) >= 1
    assert loans.total >= seconds
    assert sum(pool.measures().connects.counts) == 1


def test_what_is_popped_from_the_statistics_stays_in_the_histograms(make):
    pool = make()
    seconds = long_and_brief(pool)

    first, second = pool.pop_stats(), pool.get_stats()

    assert (first["requests_num"], first["usage_ms"] >= int(1000 * seconds)) == (3, True)
    assert second.keys().isdisjoint({"requests_num", "usage_ms"})
    assert sum(pool.measures().loans.counts) == 3
    with pool.connection():
        pass
    assert pool.get_stats()["requests_num"] == 1


def test_a_suspect_connection_is_one_loan_and_one_wait(make, dsn):
    pool = make()
    with pool.connection() as conn:
        first = pid(conn)
    terminate(dsn, first)

    with pool.connection() as conn:
        assert pid(conn) != first

    found = pool.measures()
    assert sum(found.waits.counts) == sum(found.loans.counts) == 2
    assert found.closed == {"broken": 1}


def test_a_timeout_is_counted_and_is_no_wait_that_was_served(make):
    pool = make()
    with pool.connection(), pytest.raises(PoolTimeout):
        pool.getconn(timeout=0.02)

    found = pool.measures()

    assert found.timeouts == 1
    assert sum(found.waits.counts) == 1


def use_up(pool):
    for _ in range(2):
        with pool.connection():
            pass


def expire(pool):
    with pool.connection():
        current().sleep(0.06)


def break_off(pool):
    with suppress(LookupError), pool.connection() as conn:
        conn.close()
        raise LookupError


def wait_for_the_lost(pool):
    pool.getconn()
    until(lambda: not pool.measures().in_use, "lost")


def forget(pool):
    with pytest.warns(ResourceWarning, match="never given back"):
        wait_for_the_lost(pool)


REASONS: dict[str, tuple[dict[str, Any], Any]] = {
    "uses": ({"max_uses": 2}, use_up),
    "lifetime": ({"max_lifetime": 0.05}, expire),
    "idle": ({"min_size": 0, "max_size": 1, "max_idle": 0.05}, expire),
    "broken": ({}, break_off),
    "drained": ({}, lambda pool: (expire(pool), pool.drain())),
    "surplus": ({"min_size": 2}, lambda pool: (pool.wait(), pool.resize(0, 1))),
    "closed": ({}, lambda pool: (expire(pool), pool.close())),
    "lost": ({}, forget),
}


@pytest.mark.parametrize("reason", REASONS)
def test_closed_connections_are_counted_by_reason(make, reason):
    options, act = REASONS[reason]
    pool = make(**options)

    act(pool)

    until(lambda: pool.measures().closed.get(reason), f"closed: {reason}")
    assert pool.measures().closed.keys() == {reason}


def test_opentelemetry_sees_a_pool_by_its_conventions(make, meters):
    from greenpg.otel import PoolObserver

    pool = make(name="web", min_size=2)
    PoolObserver(pool, meter_provider=meters.provider, use_time=True)
    pool.wait()
    with pool.connection() as conn:
        answer(conn)

    with pool.connection():
        points = meters.read()

    count = {
        point.attributes["db.client.connection.state"]: point.value
        for point in points["db.client.connection.count"]
    }
    assert count == {"used": 1, "idle": 1}
    assert points["db.client.connection.max"][0].value == 2
    assert points["db.client.connection.pending_requests"][0].value == 0
    (used,) = points["db.client.connection.use_time"]
    assert (used.count, used.attributes["db.client.connection.pool.name"]) == (1, "web")
    assert points["db.client.connection.create_time"][0].count == 2
