"""What stands in the registry: a service's instance as it is registered, and as others find it."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve, field, frozen

from osdisco.discovery._changing import changed
from osdisco.discovery.extension import ExtensionStatus
from osdisco.registry._fields import (
    check_address,
    check_label,
    check_metadata,
    check_name,
    check_url,
    check_version,
    check_weight,
    copied,
    refuse,
    validated,
)


def _status(instance: object, attribute: object, value: object) -> None:
    if not isinstance(value, ExtensionStatus):
        raise refuse("status", f"must be one of ExtensionStatus, not {type(value).__name__}")


@frozen
class ServiceEndpoint:
    """One instance of a service, as others find it.

    `extension_id` tells instances apart; `address` is `host:port`, an IPv6 address in brackets; of `weight` 0 nothing
    new is to be sent there. It is frozen, and its metadata is not to be changed.
    """

    extension_id: str = field(validator=validated(check_name))
    address: str = field(validator=validated(check_address))
    metadata: Mapping[str, str] = field(factory=dict, converter=copied, validator=validated(check_metadata))
    health_check_url: str | None = field(default=None, validator=validated(check_url, optional=True))
    weight: int = field(default=100, validator=validated(check_weight))
    zone: str | None = field(default=None, validator=validated(check_label, optional=True))
    version: str = field(default="0", validator=validated(check_version))
    status: ExtensionStatus = field(default=ExtensionStatus.STARTING, validator=_status)


@frozen
class ServiceDefinition:
    """What an instance says of itself when it is registered.

    Args:
        name: of the service, the same for all its instances: one segment of a key.
        version: of this instance, best as `1.2.3`.
        address: where it is reached: `host:port` or `[IPv6]:port`. Needed to register it.
        weight: its share of the calls against that of others, 0 to 65,535; 0 takes it out of the picks.
        zone: where it runs, for those who prefer what is near.
        metadata: text by name, at most 128 entries of 4096 characters. Everybody can read it.
        health_check_url: where others may ask how it is, http or https.
        extension_id: unique in the service; of two processes with one id the newer counts. Default: the address, so
            that a restarted process takes the place of its dead predecessor at once.

    Raises:
        DiscoveryError: naming the field that cannot be registered, and what is allowed.
    """

    name: str = field(validator=validated(check_name))
    version: str = field(validator=validated(check_version))
    address: str | None = field(default=None, validator=validated(check_address, optional=True))
    weight: int = field(default=100, validator=validated(check_weight))
    zone: str | None = field(default=None, validator=validated(check_label, optional=True))
    metadata: Mapping[str, str] = field(factory=dict, converter=copied, validator=validated(check_metadata))
    health_check_url: str | None = field(default=None, validator=validated(check_url, optional=True))
    extension_id: str | None = field(default=None, validator=validated(check_name, optional=True))

    def endpoint(self, status: ExtensionStatus) -> ServiceEndpoint:
        """Return what others are to find. Raises DiscoveryError without an address."""
        if self.address is None:
            raise refuse("address", "is missing; give host:port, such as 10.0.0.7:9700, under which others reach it")
        return ServiceEndpoint(
            extension_id=self.extension_id or self.address,
            address=self.address,
            metadata=self.metadata,
            health_check_url=self.health_check_url,
            weight=self.weight,
            zone=self.zone,
            version=self.version,
            status=status,
        )

    def changed(self, **changes: object) -> ServiceDefinition:
        """Return it with fields changed; `metadata` is merged. The name and the id stay. Raises DiscoveryError."""
        new = changed(self, "a service", ("name", "extension_id"), changes)
        return evolve(new, extension_id=self.extension_id or self.address)  # a new address is no new instance
