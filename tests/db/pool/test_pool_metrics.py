"""The metrics of pools for Prometheus."""

import pytest

from greenpg.pool import ConnectionPool, PoolSet

prometheus = pytest.importorskip("prometheus_client")


def test_a_scrape_has_metrics_of_each_pool(dsn, driver):
    from greenpg.metrics import PoolCollector

    registry = prometheus.CollectorRegistry()
    pools = PoolSet(dsn, driver=driver.__name__)
    with ConnectionPool(dsn, driver=driver.__name__, min_size=1, name="web") as pool:
        registry.register(PoolCollector(pool, pools))
        with pool.connection():
            pass

        def sample(name, pool="web"):
            return registry.get_sample_value(f"greenpg_pool_{name}", {"pool": pool})

        assert sample("max_size") == 1
        assert sample("idle") == 1
        assert sample("requests_total") == 1
        assert sample("connects_seconds_total") >= 0
        assert sample("sessions", "pools.primary") == 0
