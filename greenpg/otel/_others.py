"""Numbers of multiplexers, of listeners and of the process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING
from weakref import ref

from opentelemetry.metrics import MeterProvider, Observation, get_meter

from greenpg.instruments import INTERRUPTS, LISTENER, MULTIPLEXER, PROCESS
from greenpg.pool.core import Instances, check_members
from greenpg.sync import counts

if TYPE_CHECKING:
    from greenpg.instruments import Instrument
    from greenpg.multiplexer import Multiplexer
    from greenpg.notify import Listener

Read = Callable[[], Mapping[str, Mapping[str, float]]]  # numbers by the object's name


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
        check_members("a Multiplexer", "lines", multiplexer)
        self._multiplexers.add(multiplexer)

    def _read(self) -> dict[str, dict[str, float]]:
        return {one.name: asdict(one.measures()) for one in self._multiplexers.all()}


class ListenerObserver:
    """Reports listeners as `greenpg.listener.*` by the names given, while they exist."""

    def __init__(
        self, *, meter_provider: MeterProvider | None = None, **listeners: Listener
    ) -> None:
        check_members("a Listener", "subscribers", *listeners.values())
        self._listeners = {name: ref(listener) for name, listener in listeners.items()}
        _observe("greenpg.listener", "name", LISTENER, self._read, meter_provider)

    def _read(self) -> dict[str, dict[str, int]]:
        found = {name: reference() for name, reference in self._listeners.items()}
        return {name: one.get_stats() for name, one in found.items() if one is not None}


class ProcessObserver:
    """Reports what interrupted the process's operations, and stalls, as `greenpg.*`."""

    def __init__(self, *, meter_provider: MeterProvider | None = None) -> None:
        _observe("greenpg", "", PROCESS, self._read, meter_provider)
        _observe("greenpg", "kind", [INTERRUPTS], self._interrupts, meter_provider)

    def _read(self) -> dict[str, dict[str, float]]:
        return {"": {one.key: getattr(counts, one.key) for one in PROCESS}}

    def _interrupts(self) -> dict[str, dict[str, float]]:
        return {kind: {INTERRUPTS.key: number} for kind, number in counts.interrupts.items()}


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
