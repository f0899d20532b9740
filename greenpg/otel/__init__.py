"""Numbers and spans for OpenTelemetry; requires the extra `otel` (opentelemetry-api)."""

try:
    import opentelemetry.metrics as _  # noqa: F401
except ImportError as err:
    raise ImportError(
        "greenpg.otel requires opentelemetry-api; pip install 'greenpg[otel]'"
    ) from err

from ._instrument import instrument, uninstrument
from ._others import ListenerObserver, MultiplexerObserver, ProcessObserver
from ._pools import PoolObserver

__all__ = [
    "ListenerObserver", "MultiplexerObserver", "PoolObserver", "ProcessObserver", "instrument",
    "uninstrument",
]  # fmt: skip
