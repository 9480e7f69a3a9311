"""What is told of a service: who came, changed and went, and how far the view can be trusted."""

from __future__ import annotations

from attrs import frozen

from osdisco.discovery.events import Difference, ViewEvent
from osdisco.registry.definition import ServiceEndpoint


@frozen
class ServiceEvent(Difference[ServiceEndpoint]):
    """One endpoint of a service came (`old` is None), went (`new` is None) or changed."""

    @property
    def id(self) -> str:
        """The id of the endpoint."""
        return self._last.extension_id

    @property
    def endpoint(self) -> ServiceEndpoint:
        """The endpoint as it is, or as it last was."""
        return self._last


Event = ServiceEvent | ViewEvent
