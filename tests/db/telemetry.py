"""What the tests see of numbers and spans: OpenTelemetry's SDK, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest


class Meters:
    """A meter provider, and its numbers."""

    def __init__(self) -> None:
        metrics = pytest.importorskip("opentelemetry.sdk.metrics")
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.resources import Resource

        self._reader = InMemoryMetricReader()
        # empty: else it is looked for in OS threads, which on eventlet's asyncio get a hub for good
        self.provider = metrics.MeterProvider([self._reader], Resource.get_empty())

    def read(self) -> dict[str, list[Any]]:
        """Return the data points by the names of their instruments."""
        data: Any = self._reader.get_metrics_data()
        (scope,) = data.resource_metrics[0].scope_metrics
        return {metric.name: list(metric.data.data_points) for metric in scope.metrics}

    def numbers(self, prefix: str, attributes: Mapping[str, object]) -> dict[str, Any]:
        """Return the numbers whose points have these attributes, by their names without prefix."""
        return {
            name.removeprefix(prefix): point.value
            for name, points in self.read().items()
            for point in points
            if name.startswith(prefix) and point.attributes == attributes
        }


class Spans:
    """A tracer provider, and what it has traced."""

    def __init__(self) -> None:
        trace = pytest.importorskip("opentelemetry.sdk.trace")
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self._exporter = InMemorySpanExporter()
        self.provider = trace.TracerProvider(resource=Resource.get_empty())
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("test")

    def ended(self) -> list[Any]:
        """Return the spans that have ended since the last call."""
        found = list(self._exporter.get_finished_spans())
        self._exporter.clear()
        return found

    def only(self) -> Any:
        """Return the one span that has ended."""
        (span,) = self.ended()
        return span
