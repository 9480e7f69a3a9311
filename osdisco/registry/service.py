"""The registry of services: instances register, and others find them by the service's name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from osdisco._guard import checked_share, checked_window
from osdisco.client import Client
from osdisco.discovery.checks import Check
from osdisco.discovery.extension import ExtensionStatus
from osdisco.discovery.leaving import Drain
from osdisco.discovery.probing import Probing
from osdisco.registry.definition import ServiceDefinition, ServiceEndpoint
from osdisco.registry.record import fold, table_of
from osdisco.registry.registration import Registration
from osdisco.registry.view import ServiceView
from osdisco.registry.watch import ServiceWatch

PROTECTION: Final = 0.5
"""Envoy's panic threshold, and Finagle's."""


class ServiceRegistry:
    """Services of a client's namespace. Registrations hang on the client's shared session.

    Args:
        protection: the share of its recent size that a view keeps of a service when too many of its instances vanish
            at once, from 0 (off) to 1.
        protection_window: seconds for which it keeps them at most; two ttls of the client when None, in which whoever
            lives has registered again.

    Raises:
        ConfigError: a share or a window out of range.
    """

    def __init__(
        self, client: Client, *, protection: float = PROTECTION, protection_window: float | None = None
    ) -> None:
        self._client = client
        self._share = checked_share(protection)
        self._window = checked_window(protection_window, client.options.ttl)

    def __repr__(self) -> str:
        return f"<ServiceRegistry of {self._client!r}>"

    def register(
        self,
        definition: ServiceDefinition,
        *,
        status: ExtensionStatus = ExtensionStatus.HEALTHY,
        checks: Iterable[Check] = (),
        drain: Drain | None = None,
    ) -> Registration:
        """Return a registration; enter or await it. It comes back by itself after any outage, from its latest state.

        Args:
            status: to begin with, until `set_status`.
            checks: what decides how it is: STARTING until all have passed, then HEALTHY, DEGRADED or UNHEALTHY.
            drain: how long `deregister` waits for calls under way; see `Drain`.

        Raises:
            DiscoveryError: naming the field that cannot be registered. InvalidNameError: names too long for a key.
            ConfigError: two checks of one name, or something that is no check.
        """
        return Registration(self._client, definition, status, checks, drain)

    async def get_endpoints(self, service: str, *, timeout: float | None = None) -> list[ServiceEndpoint]:
        """Ask the store which endpoints a service has, of all statuses, by id. Linearizable, and never protected.

        Whoever asks often takes a `view`: it answers from memory, and when the store is away.
        """
        connection = self._client._connection
        connection.check_open()
        table = table_of(self._client._keys, service)
        return fold(table, await connection.scan(table.target, timeout))

    def view(
        self,
        service: str,
        *,
        protection: float | None = None,
        protection_window: float | None = None,
        probing: Probing | None = None,
    ) -> ServiceView:
        """Return a live Mapping of a service's endpoints; enter or await it. However many share one watch.

        Args:
            probing: how this process asks endpoints at their `health_check_url`, if it is to; of all processes that do
                two ask each. It changes nothing about what is shown: `view.findings()` says what came of it.

        Raises:
            InvalidNameError: the name cannot be one. ConfigError: a share or a window out of range.
        """
        share = self._share if protection is None else checked_share(protection)
        ttl = self._client.options.ttl
        window = self._window if protection_window is None else checked_window(protection_window, ttl)
        return ServiceView(self._client, service, share, window, probing)

    def watch(
        self, service: str, *, protection: float | None = None, protection_window: float | None = None
    ) -> ServiceWatch:
        """Return `async with` around an iterator: who is there, then what happens. Raises as `view` does."""
        return ServiceWatch(self.view(service, protection=protection, protection_window=protection_window))
