"""Numbers for Prometheus; requires the extra `metrics` (prometheus_client)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

try:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.registry import Collector
except ImportError as err:
    raise ImportError(
        "greenpg.metrics requires prometheus_client; pip install 'greenpg[metrics]'"
    ) from err

from .instruments import INTERRUPTS, LISTENER, MULTIPLEXER, PROCESS
from .pool.core import BOUNDS, Measures, check_members
from .sync import counts

if TYPE_CHECKING:
    from .instruments import Instrument
    from .multiplexer import Multiplexer
    from .notify import Listener
    from .pool import ConnectionPool, PoolSet

__all__ = ["ListenerCollector", "MultiplexerCollector", "PoolCollector", "ProcessCollector"]


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
MOMENTARY: Final = (
    _Measure("in_use", "in_use", "Sessions that are lent"),
    _Measure("connecting", "connecting", "Sessions that are being made"),
    _Measure("oldest_wait", "oldest_wait_seconds", "Time since the oldest unserved request"),
    _Measure("oldest_loan", "oldest_loan_seconds", "Time since the oldest loan began"),
)
HISTOGRAMS: Final = (
    _Measure("waits", "wait_seconds", "Times until requests got a connection"),
    _Measure("loans", "loan_seconds", "Times that connections were lent"),
    _Measure("connects", "connect_seconds", "Times that connecting took"),
)
SHORT: Final = ("failed", "answered", "slow", "prepared")  # keys that alone say too little
NAMES: Final = {key: f"statements_{key}" for key in SHORT}
BUCKETS: Final = (*map(str, BOUNDS), "+Inf")


class _Unread(Collector):
    """A collector that is not read when it is registered (see `Collector.describe`)."""

    def describe(self) -> Iterable[Metric]:
        """Return no metrics."""
        return ()


class PoolCollector(_Unread):
    """Reports pools' statistics at each scrape: `REGISTRY.register(PoolCollector(pool))`.

    Times are in seconds. A call of a pool's `pop_stats` sets the counters of `get_stats` back to
    zero; histograms and closed connections are counted on.
    """

    def __init__(self, *pools: ConnectionPool | PoolSet) -> None:
        check_members("a ConnectionPool or PoolSet", "_each", *pools)
        self._pools = pools

    def collect(self) -> Iterator[Metric]:
        """Yield one metric for each measure, with a sample for each pool."""
        pools = [one for pool in self._pools for one in pool._each()]
        stats = {pool.name: pool.get_stats() for pool in pools}
        yield from _simple("pool", stats, GAUGES, COUNTERS)
        yield from _measured({pool.name: pool.measures() for pool in pools})


def _simple(
    kind: str,
    found: Mapping[str, Mapping[str, float]],
    gauges: Iterable[_Measure],
    counters: Iterable[_Measure] = (),
) -> Iterator[Metric]:
    """Yield a metric for each measure, with a sample for each of the objects found, by name."""
    for family, chosen in ((GaugeMetricFamily, gauges), (CounterMetricFamily, counters)):
        for measure in chosen:
            metric = family(f"greenpg_{kind}_{measure.name}", measure.help, labels=[kind])
            scale = 1000 if measure.key.endswith("_ms") else 1
            for name, values in found.items():
                metric.add_metric([name], values.get(measure.key, 0) / scale)
            yield metric


def _named(instruments: Iterable[Instrument]) -> tuple[list[_Measure], list[_Measure]]:
    """Return gauges and counters by Prometheus's rules for names."""
    gauges, counters = list[_Measure](), list[_Measure]()
    for one in instruments:
        name = NAMES.get(one.key, one.key) + ("_seconds" if one.unit == "s" else "")
        (counters if one.kind == "counter" else gauges).append(_Measure(one.key, name, one.text))
    return gauges, counters


def _measured(found: dict[str, Measures]) -> Iterator[Metric]:
    yield from _simple("pool", {name: asdict(one) for name, one in found.items()}, MOMENTARY)
    for measure in HISTOGRAMS:
        yield _histogram(measure, found)
    text = "Requests that got no connection in time"
    late = CounterMetricFamily("greenpg_pool_requests_timed_out", text, labels=["pool"])
    text = "Connections closed, by reason"
    closed = CounterMetricFamily("greenpg_pool_closed", text, labels=["pool", "reason"])
    for name, numbers in found.items():
        late.add_metric([name], numbers.timeouts)
        for reason, count in numbers.closed.items():
            closed.add_metric([name, reason], count)
    yield late
    yield closed


def _histogram(measure: _Measure, found: dict[str, Measures]) -> Metric:
    name = f"greenpg_pool_{measure.name}"
    metric = HistogramMetricFamily(name, measure.help, labels=["pool"])
    for pool, numbers in found.items():
        durations = getattr(numbers, measure.key)
        buckets = list(zip(BUCKETS, accumulate(durations.counts), strict=True))
        metric.add_metric([pool], buckets, durations.total)
    return metric


class ListenerCollector(_Unread):
    """Reports listeners at each scrape, by the names given: `ListenerCollector(web=listener)`."""

    def __init__(self, **listeners: Listener) -> None:
        check_members("a Listener", "subscribers", *listeners.values())
        self._listeners = listeners

    def collect(self) -> Iterator[Metric]:
        """Yield one metric for each measure, with a sample for each listener."""
        stats = {name: listener.get_stats() for name, listener in self._listeners.items()}
        yield from _simple("listener", stats, *_named(LISTENER))


class MultiplexerCollector(_Unread):
    """Reports multiplexers at each scrape: `REGISTRY.register(MultiplexerCollector(multiplexer))`.

    The pools of their connections are not reported.
    """

    def __init__(self, *multiplexers: Multiplexer) -> None:
        check_members("a Multiplexer", "lines", *multiplexers)
        self._multiplexers = multiplexers

    def collect(self) -> Iterator[Metric]:
        """Yield one metric for each measure, with a sample for each multiplexer."""
        found = {one.name: asdict(one.measures()) for one in self._multiplexers}
        yield from _simple("multiplexer", found, *_named(MULTIPLEXER))


class ProcessCollector(_Unread):
    """Reports what interrupted the process's operations, and stalls seen by `greenpg.watch`."""

    def collect(self) -> Iterator[Metric]:
        """Yield the numbers of interrupts by kind, cancels, failed repairs and stalls."""
        interrupts = CounterMetricFamily("greenpg_interrupts", INTERRUPTS.text, labels=["kind"])
        for kind, count in counts.interrupts.items():
            interrupts.add_metric([kind], count)
        yield interrupts
        for measure in _named(PROCESS)[1]:
            name = f"greenpg_{measure.name}"
            yield CounterMetricFamily(name, measure.help, getattr(counts, measure.key))
