"""Numbers of pools, by OpenTelemetry's conventions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.metrics import Meter, MeterProvider, Observation, get_meter

from greenpg.pool.core import Instances, check_members

if TYPE_CHECKING:
    from greenpg.pool import ConnectionPool, PoolSet
    from greenpg.pool.core import Measures

# https://opentelemetry.io/docs/specs/semconv/database/database-metrics/, "Connection pools"
PREFIX: Final = "db.client.connection"
NAME: Final = f"{PREFIX}.pool.name"
STATE: Final = f"{PREFIX}.state"
REASON: Final = "greenpg.reason"

Numbers = Callable[["ConnectionPool", "Measures"], dict[str, int]]  # by the attribute's value
GAUGES: Final[tuple[tuple[str, str, str, str, Numbers], ...]] = (
    ("count", "{connection}", "Sessions by state", STATE, lambda _, m: _by_state(m)),
    ("max", "{connection}", "Sessions allowed", "", lambda p, _: {"": p.max_size}),
    ("idle.min", "{connection}", "Sessions kept open", "", lambda p, _: {"": p.min_size}),
    ("pending_requests", "{request}", "Tasks that wait", "", lambda _, m: {"": m.waiting}),
)
COUNTERS: Final[tuple[tuple[str, str, str, str, Numbers], ...]] = (
    ("timeouts", "{timeout}", "Requests timed out", "", lambda _, m: {"": m.timeouts}),
    ("closed", "{connection}", "Sessions closed", REASON, lambda _, m: dict(m.closed)),
)
HISTOGRAMS: Final = (
    ("wait_time", "Time until a request that had to wait got a connection", "waits"),
    ("use_time", "Time that a connection was lent", "loans"),
    ("create_time", "Time that connecting took", "connects"),
)


class PoolObserver:
    """Reports pools by OpenTelemetry's conventions for `db.client.connection`; one per process.

    With `use_time`, each loan is recorded, which makes it about twice as expensive.
    """

    def __init__(
        self,
        *pools: ConnectionPool | PoolSet,
        meter_provider: MeterProvider | None = None,
        use_time: bool = False,
    ) -> None:
        check_members("a ConnectionPool or PoolSet", "_each", *pools)
        self._pools: Instances[ConnectionPool] = Instances()
        self._use_time = use_time
        meter = get_meter("greenpg", meter_provider=meter_provider)
        for name, unit, text, label, numbers in GAUGES:
            meter.create_observable_up_down_counter(
                f"{PREFIX}.{name}", [partial(self._observed, label, numbers)], unit, text
            )
        for name, unit, text, label, numbers in COUNTERS:
            meter.create_observable_counter(
                f"{PREFIX}.{name}", [partial(self._observed, label, numbers)], unit, text
            )
        self._histograms = self._made(meter)
        for pool in pools:
            self.add(pool)

    def _made(self, meter: Meter) -> dict[str, Any]:
        return {
            times: meter.create_histogram(f"{PREFIX}.{name}", "s", text)
            for name, text, times in HISTOGRAMS
            if self._use_time or times != "loans"
        }

    def add(self, pool: ConnectionPool | PoolSet) -> None:
        """Report one more pool, while it exists."""
        check_members("a ConnectionPool or PoolSet", "_each", pool)
        for one in pool._each():
            self._pools.add(one)
            for times, histogram in self._histograms.items():
                record = partial(histogram.record, attributes={NAME: one.name})
                one._pool.listen_to(times, record)

    def _observed(self, label: str, numbers: Numbers, _: object) -> Iterator[Observation]:
        for pool in self._pools.all():
            for value, number in numbers(pool, pool.measures()).items():
                named = {label: value} if label else {}
                yield Observation(number, {NAME: pool.name, **named})


def _by_state(measures: Measures) -> dict[str, int]:
    return {"idle": measures.idle, "used": measures.in_use}
