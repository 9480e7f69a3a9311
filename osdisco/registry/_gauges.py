"""What views of services, and registrations in them, show to metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from osdisco.metrics._catalog import SERVICE_ENDPOINTS, SERVICE_PROTECTING, SERVICE_REGISTERED, SERVICE_STALE
from osdisco.metrics._hooks import Sample

if TYPE_CHECKING:
    from osdisco.registry.registration import Registration
    from osdisco.registry.view import ServiceView


def gauges(namespace: str, service: str, view: ServiceView) -> Iterator[Sample]:
    """Yield how many it shows, and how true that is."""
    labels = namespace, service
    yield Sample(SERVICE_ENDPOINTS, len(view), labels)
    yield Sample(SERVICE_STALE, view.stale, labels)
    yield Sample(SERVICE_PROTECTING, view.protecting, labels)


def registered(namespace: str, registration: Registration) -> Iterator[Sample]:
    """Yield whether this process's own instance stands in the store, as it is."""
    labels = namespace, registration.definition.name, registration.endpoint.extension_id
    yield Sample(SERVICE_REGISTERED, registration.registered, labels)
