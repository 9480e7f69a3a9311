"""The seam between those who know something and those who count it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from attrs import field, frozen

from osdisco.metrics._catalog import Metric

log = logging.getLogger("osdisco")

ATTEMPTS: Final = 3
"""How often a source is asked whose table changed under the thread that reads it."""


@frozen
class Sample:
    """What a gauge shows now; `labels` in the order of the metric's."""

    metric: Metric
    value: float = field(converter=float)
    labels: tuple[str, ...] = ()


Source = Callable[[], Iterable[Sample]]
"""Asked for gauges whenever somebody collects them, perhaps from another thread; does no I/O."""


class Metrics:
    """Takes what is counted; this one does nothing. Subclass it to count in a way of your own: no method may raise."""

    def count(self, metric: Metric, *labels: str) -> None:
        """Add one to a counter."""

    def time(self, metric: Metric, seconds: float, *labels: str) -> None:
        """Note a duration."""

    def follow(self, source: Source) -> Callable[[], None]:
        """Show the gauges of a source from now on; returns a function that ends it."""
        return _nothing


def _nothing() -> None:
    pass


NONE: Final = Metrics()
"""What is used unless something else is given."""


class Sources:
    """The sources of one collector of gauges."""

    def __init__(self) -> None:
        self._sources: dict[object, Source] = {}

    def follow(self, source: Source) -> Callable[[], None]:
        """Ask a source from now on; returns a function that ends it."""
        token = object()
        self._sources[token] = source
        return lambda: self._sources.pop(token, None) and None

    def collect(self) -> Mapping[tuple[Metric, tuple[str, ...]], float]:
        """Return what all gauges show. Of two that are the same, seen from two places, the greater counts."""
        found: dict[tuple[Metric, tuple[str, ...]], float] = {}
        for source in list(self._sources.values()):
            for sample in _ask(source):
                key = sample.metric, sample.labels
                found[key] = max(sample.value, found.get(key, sample.value))
        return found


def _ask(source: Source) -> list[Sample]:
    for attempt in range(ATTEMPTS):
        try:
            return list(source())
        except Exception as exc:  # a scrape must not fail for one source, nor the loop for a scrape
            if not isinstance(exc, RuntimeError) or attempt == ATTEMPTS - 1:
                log.exception("a source of metrics failed; the others are shown")
                break
    return []
