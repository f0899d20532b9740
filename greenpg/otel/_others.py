"""Numbers of multiplexers, of listeners and of the process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Final, Literal
from weakref import ref

from opentelemetry.metrics import MeterProvider, Observation, get_meter

from greenpg.pool.core import Instances
from greenpg.sync import counts

if TYPE_CHECKING:
    from greenpg.multiplexer import Multiplexer
    from greenpg.notify import Listener

Kind = Literal["up_down_counter", "counter", "gauge"]
Instrument = tuple[str, Kind, str, str]  # its name, the last part of which is the number's
Read = Callable[[], Mapping[str, Mapping[str, float]]]  # numbers by the object's name

MULTIPLEXER: Final[tuple[Instrument, ...]] = (
    ("connections", "up_down_counter", "{connection}", "Connections that serve"),
    ("waiting", "up_down_counter", "{statement}", "Statements that are not sent yet"),
    ("in_flight", "up_down_counter", "{statement}", "Statements sent that have no answer yet"),
    ("oldest_wait", "gauge", "s", "Time since the oldest waiting statement"),
    ("statements", "counter", "{statement}", "Statements; a call of executemany is one"),
    ("failed", "counter", "{statement}", "Statements that had no answer"),
)
LISTENER: Final[tuple[Instrument, ...]] = (
    ("connected", "up_down_counter", "{connection}", "1 if the listener has its connection"),
    ("subscriptions", "up_down_counter", "{subscription}", "Subscriptions"),
    ("channels", "up_down_counter", "{channel}", "Channels that are listened to"),
    ("notifications", "counter", "{notification}", "Notifications from the server"),
    ("connects", "counter", "{connection}", "Connections made"),
    ("failures", "counter", "{connection}", "Connections lost or not made"),
)
PROCESS: Final[tuple[Instrument, ...]] = (
    ("cancels", "counter", "{request}", "Cancel requests sent"),
    ("failed_repairs", "counter", "{connection}", "Connections closed, as a repair has failed"),
    ("stalls", "counter", "{stall}", "Stalls of the event loop, if it is watched"),
    ("stalled", "counter", "s", "Time that the event loop was held up"),
)
INTERRUPTS: Final[tuple[Instrument, ...]] = (
    ("interrupts", "counter", "{operation}", "Operations ended by an interrupt, by kind"),
)


class MultiplexerObserver:
    """Reports multiplexers as `greenpg.multiplexer.*`, while they exist."""

    def __init__(
        self, *multiplexers: Multiplexer, meter_provider: MeterProvider | None = None
    ) -> None:
        self._multiplexers: Instances[Multiplexer] = Instances()
        for one in multiplexers:
            self.add(one)
        _observe("greenpg.multiplexer", "name", MULTIPLEXER, self._read, meter_provider)

    def add(self, multiplexer: Multiplexer) -> None:
        """Report one more multiplexer."""
        self._multiplexers.add(multiplexer)

    def _read(self) -> dict[str, dict[str, float]]:
        return {one.name: asdict(one.measures()) for one in self._multiplexers.all()}


class ListenerObserver:
    """Reports listeners as `greenpg.listener.*` by the names given, while they exist."""

    def __init__(
        self, *, meter_provider: MeterProvider | None = None, **listeners: Listener
    ) -> None:
        self._listeners = {name: ref(listener) for name, listener in listeners.items()}
        _observe("greenpg.listener", "name", LISTENER, self._read, meter_provider)

    def _read(self) -> dict[str, dict[str, int]]:
        found = {name: reference() for name, reference in self._listeners.items()}
        return {name: one.get_stats() for name, one in found.items() if one is not None}


class ProcessObserver:
    """Reports what interrupted the process's operations, and stalls, as `greenpg.*`."""

    def __init__(self, *, meter_provider: MeterProvider | None = None) -> None:
        _observe("greenpg", "", PROCESS, self._read, meter_provider)
        _observe("greenpg", "kind", INTERRUPTS, self._interrupts, meter_provider)

    def _read(self) -> dict[str, dict[str, float]]:
        return {"": {name: getattr(counts, name) for name, *_ in PROCESS}}

    def _interrupts(self) -> dict[str, dict[str, float]]:
        return {kind: {"interrupts": number} for kind, number in counts.interrupts.items()}


def _observe(
    prefix: str,
    label: str,
    instruments: Iterable[Instrument],
    read: Read,
    provider: MeterProvider | None,
) -> None:
    meter = get_meter("greenpg", meter_provider=provider)
    for name, kind, unit, text in instruments:
        make = getattr(meter, f"create_observable_{kind}")
        observed = partial(_observed, read, name, f"{prefix}.{label}" if label else "")
        make(f"{prefix}.{name}", [observed], unit, text)


def _observed(read: Read, number: str, label: str, _: object) -> Iterator[Observation]:
    for name, numbers in read().items():
        yield Observation(numbers[number], {label: name} if label else {})
