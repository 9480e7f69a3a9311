"""What a discovery service shows to metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import isfinite
from typing import TYPE_CHECKING

from osdisco.discovery._watching import CheckState
from osdisco.discovery.extension import ExtensionStatus
from osdisco.metrics._catalog import CHECK, EXTENSIONS, REGISTERED, VIEW_AGE, VIEW_SKIPPED, VIEW_STALE
from osdisco.metrics._hooks import Sample

if TYPE_CHECKING:
    from osdisco.discovery.publication import Publishers
    from osdisco.discovery.registrar import ExtensionRegistrar
    from osdisco.discovery.service import DiscoveryService


def gauges(
    namespace: str, service: DiscoveryService, registrar: ExtensionRegistrar | None, publishers: Publishers
) -> Iterator[Sample]:
    """Yield how the view is, and how this process's own extension."""
    extensions = service.extensions
    found = Counter(extension.status for extension in list(extensions.values()))
    for status in ExtensionStatus:
        yield Sample(EXTENSIONS, found[status], (namespace, status.value))
    yield Sample(VIEW_STALE, extensions.stale, (namespace,))
    if isfinite(age := extensions.age):
        yield Sample(VIEW_AGE, age, (namespace,))
    yield Sample(VIEW_SKIPPED, len(extensions.skipped), (namespace,))
    if registrar is not None:
        yield Sample(REGISTERED, registrar.registered, (namespace, registrar.desired.id))
    for name, check in service.health.items():
        for state in CheckState:
            yield Sample(CHECK, check.state is state, (namespace, name, state.value))
    yield from publishers.gauges(namespace)
