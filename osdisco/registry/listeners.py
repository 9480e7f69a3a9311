"""What listeners of a service are, and how what happens is told to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from osdisco.discovery._telling import Manners
from osdisco.discovery.events import Single
from osdisco.discovery.listeners import ViewListener, meanings, methods_of
from osdisco.registry.definition import ServiceEndpoint
from osdisco.registry.events import ServiceEvent


class ServiceListener(ViewListener):
    """What can be told; any object with some of these methods will do. They may be coroutines."""

    def on_endpoints_discovered(self, endpoints: Sequence[ServiceEndpoint]) -> Any:
        """Endpoints appeared; those that are there already come first, when the listener is added."""

    def on_endpoints_removed(self, endpoints: Sequence[ServiceEndpoint]) -> Any:
        """Endpoints are gone: they left, or their lease ran out."""

    def on_endpoint_changed(self, old: ServiceEndpoint, new: ServiceEndpoint) -> Any:
        """An endpoint changed its status, or anything else: its weight, say."""


def _meanings(told: Sequence[ServiceEvent] | Single) -> Iterable[tuple[Any, ...]]:
    return meanings(
        told, discovered="on_endpoints_discovered", removed="on_endpoints_removed", changed="on_endpoint_changed"
    )


MANNERS: Final = Manners[ServiceEvent]("ServiceListener", methods_of(ServiceListener), _meanings, single=True)
