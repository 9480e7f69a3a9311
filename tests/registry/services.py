"""Services, and a diary of what is told of them: what tests of the registry use."""

from __future__ import annotations

from typing import Any

from worlds import World

from osdisco.backend import Delete
from osdisco.client import Client
from osdisco.discovery import ExtensionStatus, ViewFresh, ViewStale
from osdisco.discovery.events import ViewEvent
from osdisco.registry import (
    Registration,
    ServiceDefinition,
    ServiceEndpoint,
    ServiceEvent,
    ServiceRegistry,
    ServiceView,
    ViewProtecting,
    ViewProtectionOver,
)


def definition(number: int = 7, **changes: Any) -> ServiceDefinition:
    return ServiceDefinition(**{"name": "geo", "version": "2.1.0", "address": f"10.0.0.{number}:9700", **changes})


def found(number: int = 7, **changes: Any) -> ServiceEndpoint:
    """What is found of `definition(number, …)`."""
    status = changes.pop("status", ExtensionStatus.HEALTHY)
    return definition(number, **changes).endpoint(status)


async def registered(client: Client, number: int = 7, **changes: Any) -> Registration:
    """Register, until the client ends."""
    return await ServiceRegistry(client).register(definition(number, **changes))


async def viewed(client: Client, service: str = "geo", **options: Any) -> ServiceView:
    """Follow a service, until the client ends."""
    return await ServiceRegistry(client).view(service, **options)


def delete_records(world: World) -> None:
    world.store.commit([Delete(f"ns/{key}") for key in world.keys("svc/")], {})


class Diary:
    """Listens, and keeps what it was told as short text."""

    def __init__(self, view: ServiceView) -> None:
        self.lines: list[str] = []
        self.remove = view.add_listener(self.write)

    def write(self, event: ServiceEvent | ViewEvent) -> None:
        self.lines.append(shown(event))


OF_THE_VIEW = {
    ViewStale: "stale",
    ViewFresh: "fresh",
    ViewProtecting: "protecting",
    ViewProtectionOver: "protection over",
}


def shown(event: ServiceEvent | ViewEvent) -> str:
    if not isinstance(event, ServiceEvent):
        return OF_THE_VIEW[type(event)]
    what = "added" if event.old is None else "removed" if event.new is None else "changed"
    return f"{what} {event.endpoint.address} {event.endpoint.status.value}"
