"""What osdisco counts and measures, and who takes it: nobody, Prometheus or OpenTelemetry.

    client = osdisco.connect(metrics=PrometheusMetrics())

Code that knows something calls `runtime.metrics`, which by default does nothing and imports nothing.
"""

from osdisco.metrics._catalog import METRICS, Kind, Metric
from osdisco.metrics._hooks import Metrics, Sample, Source
from osdisco.metrics._opentelemetry import OpenTelemetryMetrics
from osdisco.metrics._prometheus import PrometheusMetrics

__all__ = ["METRICS", "Kind", "Metric", "Metrics", "OpenTelemetryMetrics", "PrometheusMetrics", "Sample", "Source"]
