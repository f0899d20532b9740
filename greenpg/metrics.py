"""Pools as Prometheus sees them; wants the extra `metrics` (prometheus_client)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as err:
    raise ImportError(
        "greenpg.metrics wants prometheus_client; pip install 'greenpg[metrics]'"
    ) from err

from .pool import ConnectionPool, PoolSet

__all__ = ["PoolCollector"]


class _Measure(NamedTuple):
    key: str
    name: str
    help: str


GAUGES: Final = (
    _Measure("pool_min", "min_size", "Sessions that the pool keeps"),
    _Measure("pool_max", "max_size", "Sessions that the pool may have"),
    _Measure("pool_size", "sessions", "Sessions that the pool has or is making"),
    _Measure("pool_available", "idle", "Sessions that nobody uses"),
    _Measure("requests_waiting", "waiting", "Tasks that wait for a connection"),
)
COUNTERS: Final = (
    _Measure("requests_num", "requests", "Connections asked for"),
    _Measure("requests_queued", "requests_queued", "Requests that had to wait"),
    _Measure("requests_wait_ms", "requests_wait_seconds", "Time that requests waited"),
    _Measure("requests_errors", "requests_failed", "Requests that got no connection"),
    _Measure("usage_ms", "usage_seconds", "Time that connections were lent"),
    _Measure("returns_bad", "returns_bad", "Connections that came back broken"),
    _Measure("connections_num", "connects", "Attempts to connect"),
    _Measure("connections_ms", "connects_seconds", "Time that connecting took"),
    _Measure("connections_errors", "connects_failed", "Attempts that failed"),
    _Measure("connections_lost", "connections_lost", "Connections found broken while idle"),
)


class PoolCollector(Collector):
    """Reports pools' statistics at each scrape: `REGISTRY.register(PoolCollector(pool))`.

    Counters go back if `pop_stats` is called beside it.
    """

    def __init__(self, *pools: ConnectionPool | PoolSet) -> None:
        self._pools = pools

    def collect(self) -> Iterator[Metric]:
        """Yield a metric for each measure, with a sample for each pool."""
        stats = dict(self._stats())
        for measure in GAUGES:
            yield self._filled(GaugeMetricFamily, measure, stats)
        for measure in COUNTERS:
            yield self._filled(CounterMetricFamily, measure, stats)

    def describe(self) -> Iterable[Metric]:
        """Tell the registry nothing, so that registering needs no pool that works."""
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
