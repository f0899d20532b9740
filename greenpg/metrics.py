"""Pool statistics for Prometheus; requires the extra `metrics` (prometheus_client)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as err:
    raise ImportError(
        "greenpg.metrics requires prometheus_client; pip install 'greenpg[metrics]'"
    ) from err

from .pool import ConnectionPool, PoolSet

__all__ = ["PoolCollector"]


class _Measure(NamedTuple):
    key: str
    name: str
    help: str


GAUGES: Final = (
    _Measure("pool_min", "min_size", "Sessions that the pool keeps open"),
    _Measure("pool_max", "max_size", "Sessions that the pool may have"),
    _Measure("pool_size", "sessions", "Sessions that the pool has or is making"),
    _Measure("pool_available", "idle", "Sessions that are not in use"),
    _Measure("requests_waiting", "waiting", "Tasks that wait for a connection"),
)
COUNTERS: Final = (
    _Measure("requests_num", "requests", "Requests for a connection"),
    _Measure("requests_queued", "requests_queued", "Requests that had to wait"),
    _Measure("requests_wait_ms", "requests_wait_seconds", "Time spent waiting for a connection"),
    _Measure("requests_errors", "requests_failed", "Requests that got no connection"),
    _Measure("usage_ms", "usage_seconds", "Time that connections were in use"),
    _Measure("returns_bad", "returns_bad", "Connections returned broken"),
    _Measure("connections_num", "connects", "Attempts to connect"),
    _Measure("connections_ms", "connects_seconds", "Time that connecting took"),
    _Measure("connections_errors", "connects_failed", "Attempts to connect that failed"),
    _Measure("connections_lost", "connections_lost", "Connections found broken while idle"),
)


class PoolCollector(Collector):
    """Reports pools' statistics at each scrape: `REGISTRY.register(PoolCollector(pool))`.

    Times are in seconds. A call of a pool's `pop_stats` sets its counters back to zero.
    """

    def __init__(self, *pools: ConnectionPool | PoolSet) -> None:
        self._pools = pools

    def collect(self) -> Iterator[Metric]:
        """Yield one metric for each measure, with a sample for each pool."""
        stats = dict(self._stats())
        for measure in GAUGES:
            yield self._filled(GaugeMetricFamily, measure, stats)
        for measure in COUNTERS:
            yield self._filled(CounterMetricFamily, measure, stats)

    def describe(self) -> Iterable[Metric]:
        """Return no metrics, so that registering does not read the pools (see `Collector`)."""
        return ()

    def _stats(self) -> Iterator[tuple[str, dict[str, int]]]:
        for pool in self._pools:
            for one in (pool.primary, pool.replica) if isinstance(pool, PoolSet) else (pool,):
                yield one.name, one.get_stats()

    def _filled(
        self,
        family: type[GaugeMetricFamily] | type[CounterMetricFamily],
        measure: _Measure,
        stats: dict[str, dict[str, int]],
    ) -> Metric:
        metric = family(f"greenpg_pool_{measure.name}", measure.help, labels=["pool"])
        scale = 1000 if measure.key.endswith("_ms") else 1
        for name, values in stats.items():
            metric.add_metric([name], values.get(measure.key, 0) / scale)
        return metric
