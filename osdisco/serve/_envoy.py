"""Endpoints of services as Envoy takes them by EDS over REST: a poll that is answered when something changed.

Nothing is known of Envoy but its JSON, so no protobuf is needed. An address that is a name is left out, because Envoy
would refuse the whole answer for it (`resolveProtoAddress` in its `eds.cc`).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Final, Self

from attrs import field, frozen

from osdisco.client import Client
from osdisco.discovery import ExtensionStatus
from osdisco.errors import ConfigError, TimedOutError, UnavailableError
from osdisco.registry.definition import ServiceEndpoint
from osdisco.registry.service import ServiceRegistry
from osdisco.registry.view import ServiceView

log = logging.getLogger("osdisco")

TYPE: Final = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"

NAMES_MAX: Final = 64
"""Services that one request may ask for; Envoy asks for one."""

VIEWS_MAX: Final = 256
"""Services that are followed; of more, whoever was not asked for longest is let go of."""

PATIENCE: Final = 0.5
"""Seconds that a service which nobody asked for before may take; Envoy waits for one second by default."""

AT_ONCE: Final = 250
"""Endpoints that are written in one step of the loop."""

HEALTH: Final[Mapping[ExtensionStatus, str]] = {
    ExtensionStatus.HEALTHY: "HEALTHY",
    ExtensionStatus.DEGRADED: "DEGRADED",
    ExtensionStatus.STOPPING: "DRAINING",
    ExtensionStatus.UNHEALTHY: "UNHEALTHY",
    ExtensionStatus.STARTING: "UNHEALTHY",  # Envoy takes UNKNOWN for healthy
}

_WEIGHT_MAX: Final = 2**32 - 1


@frozen
class DiscoveryRequest:
    """What Envoy asks for, and the version that it has."""

    names: tuple[str, ...]
    version: str = ""

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read a request; names of fields as protobuf writes them in JSON, either way. Raises ConfigError."""
        try:
            given = json.loads(body)
        except (ValueError, RecursionError):
            raise ConfigError("a DiscoveryRequest is JSON") from None
        if not isinstance(given, dict):
            raise ConfigError("a DiscoveryRequest is a JSON object")
        if _of(given, "type_url", "typeUrl", TYPE) != TYPE:
            raise ConfigError(f"only {TYPE} is served here")
        names = _of(given, "resource_names", "resourceNames", [])
        version = _of(given, "version_info", "versionInfo", "")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ConfigError("resource_names are texts")
        if not 1 <= len(names) <= NAMES_MAX:
            raise ConfigError(f"resource_names name 1 to {NAMES_MAX} services; Envoy takes eds_cluster_config for it")
        return cls(tuple(dict.fromkeys(names)), version if isinstance(version, str) else "")


def _of(given: Mapping[str, Any], name: str, camel: str, default: Any) -> Any:
    return given.get(name, given.get(camel, default)) or default


@frozen
class Assignment:
    """A service as it was written: the endpoints that were, and the text."""

    endpoints: Sequence[ServiceEndpoint] = field(eq=False)
    text: str


class Assignments:
    """Follows the services that were asked for, and writes what is there of them."""

    def __init__(self, client: Client) -> None:
        self._registry = ServiceRegistry(client)
        self._views: OrderedDict[str, ServiceView] = OrderedDict()
        self._written: dict[str, Assignment] = {}

    async def answer(self, request: DiscoveryRequest) -> str | None:
        """Return a DiscoveryResponse; None when it would be the same as before.

        Raises:
            UnavailableError: the store was not seen yet; at an empty answer Envoy would drop what it has.
            InvalidNameError: a name that no service can have.
        """
        resources = [await self._resource(name) for name in request.names]
        joined = ",".join(resources)
        version = hashlib.sha256(joined.encode()).hexdigest()[:32]
        if version == request.version:
            return None
        return f'{{"version_info":"{version}","type_url":"{TYPE}","resources":[{joined}]}}'

    async def _resource(self, service: str) -> str:
        view = await self._view(service)
        try:
            await view.until(lambda _: view.known, PATIENCE)
        except TimedOutError:
            raise UnavailableError(f"the store was not seen yet: {view.error or 'no answer'}") from None
        endpoints = view.endpoints
        written = self._written.get(service)
        if written is None or written.endpoints is not endpoints:
            written = Assignment(endpoints, await assignment(service, endpoints))
            if service in self._views:
                self._written[service] = written
        return written.text

    async def _view(self, service: str) -> ServiceView:
        view = self._views.get(service)
        if view is None:
            view = self._views[service] = self._registry.view(service)
            view.start()
        self._views.move_to_end(service)
        while len(self._views) > VIEWS_MAX:
            await self._let_go()
        return view

    async def _let_go(self) -> None:
        service, view = self._views.popitem(last=False)
        self._written.pop(service, None)
        await view.aclose()

    async def aclose(self) -> None:
        """Follow nobody any more."""
        while self._views:
            await self._let_go()


async def assignment(service: str, endpoints: Sequence[ServiceEndpoint]) -> str:
    """Return a ClusterLoadAssignment: the same text for the same endpoints, in every process and order."""
    zones: dict[str, list[dict[str, Any]]] = {}
    left_out = []
    for number, endpoint in enumerate(sorted(endpoints, key=lambda one: one.extension_id), 1):
        host, _, port = endpoint.address.rpartition(":")
        if (address := _ip(host)) is None:
            left_out.append(endpoint.address)
        else:
            zones.setdefault(endpoint.zone or "", []).append(_lb_endpoint(endpoint, address, int(port)))
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)
    if left_out:
        log.warning("Envoy is not told of endpoints of %r whose address is a name: %s", service, ", ".join(left_out))
    localities = [_locality(zone, zones[zone]) for zone in sorted(zones)]
    return json.dumps({"@type": TYPE, "cluster_name": service, "endpoints": localities}, separators=(",", ":"))


def _ip(host: str) -> str | None:
    try:
        return None if "%" in host else str(ip_address(host.strip("[]")))
    except ValueError:
        return None


def _lb_endpoint(endpoint: ServiceEndpoint, address: str, port: int) -> dict[str, Any]:
    picked = endpoint.weight > 0
    return {
        "endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}},
        "health_status": HEALTH[endpoint.status] if picked else "DRAINING",  # nothing new for it; Envoy knows no 0
        "load_balancing_weight": max(endpoint.weight, 1),
        "metadata": {"filter_metadata": {"envoy.lb": {**endpoint.metadata, "version": endpoint.version}}},
    }


def _locality(zone: str, members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    weight = min(sum(member["load_balancing_weight"] for member in members), _WEIGHT_MAX)
    where = {"locality": {"zone": zone}} if zone else {}
    return {**where, "lb_endpoints": members, "load_balancing_weight": weight}
