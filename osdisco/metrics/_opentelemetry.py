"""Metrics for OpenTelemetry, by its API alone: without an SDK they go nowhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from osdisco._version import __version__
from osdisco.errors import ConfigError
from osdisco.metrics._catalog import METRICS, Kind, Metric
from osdisco.metrics._hooks import Metrics, Source, Sources

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider, Observation


class OpenTelemetryMetrics(Metrics):
    """Counts by a meter of OpenTelemetry, under the same names as Prometheus.

    Args:
        meter_provider: of the SDK; the global one when None.

    Raises:
        ConfigError: `opentelemetry-api` is not installed.
    """

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        try:
            from opentelemetry.metrics import get_meter
        except ImportError as exc:
            raise ConfigError(f"OpenTelemetryMetrics needs a package ({exc}): pip install 'osdisco[otel]'") from exc
        self._meter = get_meter("osdisco", __version__, meter_provider)
        self._sources = Sources()
        self._made = {metric: self._make(metric) for metric in METRICS}

    def _make(self, metric: Metric) -> Any:
        if metric.kind is Kind.COUNTER:
            return self._meter.create_counter(metric.name, description=metric.help)
        if metric.kind is Kind.DURATION:
            return self._meter.create_histogram(metric.name, unit="s", description=metric.help)
        return self._meter.create_observable_gauge(
            metric.name, [lambda _: self._observe(metric)], description=metric.help
        )

    def _observe(self, metric: Metric) -> Iterable[Observation]:
        from opentelemetry.metrics import Observation

        for (seen, labels), value in self._sources.collect().items():
            if seen is metric:
                yield Observation(value, dict(zip(metric.labels, labels, strict=True)))

    def count(self, metric: Metric, *labels: str) -> None:
        """Add one to a counter."""
        self._made[metric].add(1, dict(zip(metric.labels, labels, strict=True)))

    def time(self, metric: Metric, seconds: float, *labels: str) -> None:
        """Note a duration."""
        self._made[metric].record(seconds, dict(zip(metric.labels, labels, strict=True)))

    def follow(self, source: Source) -> Callable[[], None]:
        """Show the gauges of a source from now on; returns a function that ends it."""
        return self._sources.follow(source)
