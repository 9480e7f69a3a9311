"""Which extensions, or endpoints of services, are meant: those that are all of what is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from attrs import field, frozen

from osdisco.discovery.extension import ExtensionStatus, check_metadata, check_text, copied
from osdisco.discovery.versions import Specifier, specifier
from osdisco.errors import DiscoveryError


@frozen
class Filter:
    """What is asked for; nothing that is empty or None.

    Args:
        names, statuses: one of which it has.
        capabilities, metadata: all of which it has.
        zone: the field, which endpoints of services have; extensions have an entry in their metadata.
    """

    names: frozenset[str] = frozenset()
    statuses: frozenset[ExtensionStatus] = frozenset()
    capabilities: frozenset[str] = frozenset()
    metadata: Mapping[str, str] = field(factory=dict)
    versions: Specifier | None = None
    zone: str | None = None

    @classmethod
    def of_extensions(
        cls,
        *,
        name: str | None = None,
        version: str | None = None,
        status: ExtensionStatus | None = None,
        capability: str | None = None,
        metadata: Mapping[str, str] | None = None,
        zone: str | None = None,
    ) -> Self:
        """Return the filter of `Extensions.find`. Raises DiscoveryError for an argument that is none."""
        wanted = _checked(metadata)
        return cls(
            names=_texts("a name", name),
            statuses=_statuses(status),
            capabilities=_texts("a capability", capability),
            metadata=wanted if zone is None else _checked({**wanted, "zone": zone}),
            versions=None if version is None else specifier(version),
        )

    @classmethod
    def of_endpoints(
        cls,
        *,
        version: str | None = None,
        status: ExtensionStatus | None = None,
        zone: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Self:
        """Return the filter of `ServiceView.find`. Raises DiscoveryError for an argument that is none."""
        return cls(
            statuses=_statuses(status),
            metadata=_checked(metadata),
            versions=None if version is None else specifier(version),
            zone=_zone(zone),
        )

    def __call__(self, one: Any) -> bool:
        """Whether an extension, or an endpoint, is meant."""
        return (
            (not self.names or one.name in self.names)
            and (not self.statuses or one.status in self.statuses)
            and (not self.capabilities or self.capabilities.issubset(one.capabilities))
            and self.metadata.items() <= one.metadata.items()
            and (self.zone is None or one.zone == self.zone)
            and (self.versions is None or self.versions.matches(one.version))
        )


def _texts(what: str, value: str | None) -> frozenset[str]:
    if value is not None and not isinstance(value, str):
        raise DiscoveryError(f"{what} is text, not {type(value).__name__}")
    return frozenset() if value is None else frozenset({value})


def _statuses(status: ExtensionStatus | None) -> frozenset[ExtensionStatus]:
    if status is not None and not isinstance(status, ExtensionStatus):
        known = ", ".join(one.name for one in ExtensionStatus)
        raise DiscoveryError(f"a status is one of ExtensionStatus ({known}), not {type(status).__name__}")
    return frozenset() if status is None else frozenset({status})


def _zone(zone: str | None) -> str | None:
    if zone is not None:
        check_text("a zone", zone, empty=True)
    return zone


def _checked(metadata: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return a copy. What is empty but no Mapping is refused, too: it would find everything."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise DiscoveryError(f"metadata is texts by name, such as {{'tier': 'new'}}, not {type(metadata).__name__}")
    wanted = copied(metadata)
    check_metadata(wanted)
    return wanted
