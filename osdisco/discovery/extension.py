"""What an extension says of itself."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

from attrs import field, frozen

from osdisco.errors import DiscoveryError
from osdisco.names import escape


class ExtensionStatus(enum.Enum):
    """How an extension is, as it says itself."""

    STARTING = "starting"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    STOPPING = "stopping"


def _port(instance: object, attribute: object, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
        raise DiscoveryError("a port is a number from 1 to 65535")


def _status(instance: object, attribute: object, value: ExtensionStatus) -> None:
    if not isinstance(value, ExtensionStatus):
        raise DiscoveryError("a status is one of ExtensionStatus")


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, str):  # would become its letters
        raise DiscoveryError("capabilities are a list of texts, not one text")
    return tuple(values)


@frozen
class EndpointInfo:
    """One way to reach an extension."""

    protocol: str
    port: int = field(validator=_port)
    path: str = "/"


@frozen
class ExtensionInfo:
    """An extension: who it is, where it is, and what it can do.

    Args:
        id: unique among all extensions; of two processes with one id the newer wins.
        capabilities: what others find it by, such as `geo.search`.
        metadata: text by name, for filters such as `zone`.

    Raises:
        DiscoveryError: a port out of range. InvalidNameError: an id that cannot be a name.
    """

    id: str
    name: str
    version: str
    host: str
    port: int = field(validator=_port)
    capabilities: tuple[str, ...] = field(default=(), converter=_texts)
    endpoints: Mapping[str, EndpointInfo] = field(factory=dict)
    metadata: Mapping[str, str] = field(factory=dict)
    status: ExtensionStatus = field(default=ExtensionStatus.STARTING, validator=_status)

    def __attrs_post_init__(self) -> None:
        escape(self.id)
