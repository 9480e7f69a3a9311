"""Metrics for Prometheus, by `prometheus-client`, which is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from osdisco.errors import ConfigError
from osdisco.metrics._catalog import METRICS, Kind, Metric
from osdisco.metrics._hooks import Metrics, Source, Sources

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import GaugeMetricFamily


class PrometheusMetrics(Metrics):
    """Counts into a registry of `prometheus-client`. One of it serves all clients of a process.

    Args:
        registry: where to; the default registry of `prometheus-client` when None.

    Raises:
        ConfigError: `prometheus-client` is not installed, or the registry has these metrics already.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        try:
            import prometheus_client
        except ImportError as exc:
            raise ConfigError(f"PrometheusMetrics needs a package ({exc}): pip install 'osdisco[prometheus]'") from exc
        self.registry: CollectorRegistry = prometheus_client.REGISTRY if registry is None else registry
        self._sources = Sources()
        try:
            self.registry.register(_Gauges(self._sources))
            self._made = {metric: self._make(metric) for metric in METRICS if metric.kind is not Kind.GAUGE}
        except ValueError as exc:
            raise ConfigError("the registry has osdisco's metrics already: share one PrometheusMetrics") from exc

    def _make(self, metric: Metric) -> Any:
        from prometheus_client import Counter, Histogram

        make = Counter if metric.kind is Kind.COUNTER else Histogram
        return make(metric.name, metric.help, metric.labels, registry=self.registry)

    def count(self, metric: Metric, *labels: str) -> None:
        """Add one to a counter."""
        counter = self._made[metric]
        (counter.labels(*labels) if labels else counter).inc()

    def time(self, metric: Metric, seconds: float, *labels: str) -> None:
        """Note a duration."""
        histogram = self._made[metric]
        (histogram.labels(*labels) if labels else histogram).observe(seconds)

    def follow(self, source: Source) -> Callable[[], None]:
        """Show the gauges of a source from now on; returns a function that ends it."""
        return self._sources.follow(source)


class _Gauges:
    """Asked by the registry at each scrape."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[GaugeMetricFamily]:
        families = _families()
        for (metric, labels), value in self._sources.collect().items():
            families[metric].add_metric(labels, value)
        yield from families.values()

    def describe(self) -> list[GaugeMetricFamily]:
        """Tell the registry the names, so that it refuses them a second time."""
        return list(_families().values())


def _families() -> dict[Metric, GaugeMetricFamily]:
    from prometheus_client.core import GaugeMetricFamily

    gauges = (metric for metric in METRICS if metric.kind is Kind.GAUGE)
    return {metric: GaugeMetricFamily(metric.name, metric.help, labels=metric.labels) for metric in gauges}
