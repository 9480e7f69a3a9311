"""What a service of cluster state shows to metrics."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import TYPE_CHECKING

from osdisco.metrics._catalog import CLUSTER_AGE, CLUSTER_MIRRORING, CLUSTER_STALE, CLUSTER_VERSION
from osdisco.metrics._hooks import Sample

if TYPE_CHECKING:
    from osdisco.cluster.service import ClusterStateService


def gauges(namespace: str, service: ClusterStateService) -> Iterator[Sample]:
    """Yield which state is shown, how true that is, and whether this process mirrors it."""
    labels = namespace, service.cluster
    yield Sample(CLUSTER_STALE, service.stale, labels)
    if isfinite(age := service.age):
        yield Sample(CLUSTER_AGE, age, labels)
    if (state := service._state) is not None:
        yield Sample(CLUSTER_VERSION, state.version, labels)
    yield Sample(CLUSTER_MIRRORING, service.mirroring, labels)
