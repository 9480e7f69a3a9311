"""What an extension says of itself."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol, Self, TypeVar

from attrs import Attribute, field, frozen

from osdisco.discovery._frozen import FrozenDict
from osdisco.errors import DiscoveryError, InvalidNameError
from osdisco.names import escape

V = TypeVar("V")

TEXT_MAX: Final = 255
"""Characters of a name, a host, a capability, or a name in metadata or endpoints."""
VERSION_MAX: Final = 128
VALUE_MAX: Final = 4096
"""Characters of a value in metadata."""
PATH_MAX: Final = 2048
CAPABILITIES_MAX: Final = 256
METADATA_MAX: Final = 128
ENDPOINTS_MAX: Final = 64

HOST: Final = re.compile(r"[^\s\x00-\x1f\x7f/@?#\\\[\]]{1,255}")


class ExtensionStatus(enum.Enum):
    """How an extension is, as it says itself."""

    STARTING = "starting"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    STOPPING = "stopping"


class Sight(Protocol):
    """Knows until when all that it shows is known to be there."""

    @property
    def seen(self) -> float | None:
        """Seconds since the epoch."""


class Sighted:
    """What was seen in a view. It is no field, and so in neither equality, JSON, `asdict` nor pickles."""

    __slots__ = ("__weakref__", "_sight")
    _sight: Sight | float | None

    @property
    def last_seen(self) -> float | None:
        """When this process last knew its lease alive, in seconds since the epoch; None for what no store showed."""
        sight = getattr(self, "_sight", None)
        return sight if sight is None or isinstance(sight, float) else sight.seen

    def _see(self, sight: Sight | float | None) -> Self:
        object.__setattr__(self, "_sight", sight)
        return self


def check_text(what: str, value: object, most: int = TEXT_MAX, *, empty: bool = False) -> None:
    """Raise DiscoveryError for what is no text of `most` characters at most. The message never holds the text."""
    if not isinstance(value, str):
        raise DiscoveryError(f"{what} must be text, not {type(value).__name__}")
    if not value and not empty:
        raise DiscoveryError(f"{what} must not be empty")
    if len(value) > most:
        raise DiscoveryError(f"{what} has {len(value)} characters; {most} are allowed")
    try:
        value.isascii() or value.encode()
    except UnicodeEncodeError:
        raise DiscoveryError(f"{what} holds a lone surrogate") from None


def check_count(what: str, count: int, most: int) -> None:
    """Raise DiscoveryError for too many."""
    if count > most:
        raise DiscoveryError(f"{count} {what}; {most} are allowed")


def check_port(what: str, value: object) -> None:
    """Raise DiscoveryError for what is no port."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
        raise DiscoveryError(f"{what} is a number from 1 to 65535")


def check_host(what: str, value: object) -> None:
    """Raise DiscoveryError for what is neither a host's name nor an address."""
    check_text(what, value)
    if not HOST.fullmatch(str(value)):
        raise DiscoveryError(
            f"{what} is a name or an address such as 10.0.0.7 or ::1, without spaces, brackets, scheme, port and path"
        )


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raise DiscoveryError for what is no text by name, or too much of it."""
    check_count("entries in metadata", len(metadata), METADATA_MAX)
    for name, value in metadata.items():
        check_text("a name in metadata", name)
        check_text(f"metadata[{name!a}]", value, VALUE_MAX, empty=True)


def texts(values: Iterable[str]) -> tuple[str, ...]:
    """Return a tuple of what is no single text, which would become its letters. Raises DiscoveryError."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise DiscoveryError(f"capabilities are a list of texts, not one {type(values).__name__}")
    return tuple(values)


def copied(values: Mapping[str, V]) -> Mapping[str, V]:
    """Return a copy, which whoever gave it can no longer change. Raises DiscoveryError for what is no Mapping."""
    if not isinstance(values, Mapping):
        raise DiscoveryError(f"metadata and endpoints are given by name, not as {type(values).__name__}")
    return FrozenDict(values)


def _port(instance: object, attribute: Attribute[int], value: object) -> None:
    check_port(f"a {attribute.name}", value)


@frozen
class EndpointInfo:
    """One way to reach an extension.

    Raises:
        DiscoveryError: a port out of range, or text that is none or too long.
    """

    protocol: str
    port: int = field(validator=_port)
    path: str = "/"

    def __attrs_post_init__(self) -> None:
        check_text("the protocol of an endpoint", self.protocol)
        check_text("the path of an endpoint", self.path, PATH_MAX, empty=True)


@frozen
class ExtensionInfo(Sighted):
    """An extension: who it is, where it is, and what it can do.

    Args:
        id: unique among all extensions; of two processes with one id the newer wins.
        version: compared as SemVer by `find`.
        host: a name or an address at which others reach it.
        capabilities: what others find it by, such as `geo.search`; at most 256.
        endpoints: ways to reach it, by name; at most 64.
        metadata: text by name, for filters such as `zone`; at most 128 entries of 4096 characters.

    Raises:
        DiscoveryError: a field that is wrong, and what is allowed. InvalidNameError: an id that cannot be a name.
    """

    id: str
    name: str
    version: str
    host: str
    port: int = field(validator=_port)
    capabilities: tuple[str, ...] = field(default=(), converter=texts)
    endpoints: Mapping[str, EndpointInfo] = field(factory=dict, converter=copied)
    metadata: Mapping[str, str] = field(factory=dict, converter=copied)
    status: ExtensionStatus = ExtensionStatus.STARTING

    def __attrs_post_init__(self) -> None:
        escape(self.id)
        check_text("the name", self.name)
        check_text("the version", self.version, VERSION_MAX)
        check_host("the host", self.host)
        check_count("capabilities", len(self.capabilities), CAPABILITIES_MAX)
        for capability in self.capabilities:
            check_text("a capability", capability)
        check_count("endpoints", len(self.endpoints), ENDPOINTS_MAX)
        for name, endpoint in self.endpoints.items():
            check_text("the name of an endpoint", name)
            if not isinstance(endpoint, EndpointInfo):
                raise DiscoveryError(f"endpoints[{name!a}] must be an EndpointInfo, not {type(endpoint).__name__}")
        check_metadata(self.metadata)
        if not isinstance(self.status, ExtensionStatus):
            raise DiscoveryError(f"the status is one of ExtensionStatus, not {type(self.status).__name__}")

    @classmethod
    def from_extension_json(cls, body: Mapping[str, Any] | str | bytes) -> ExtensionInfo:
        """Read the body with which an extension is registered at OpenSearch (`POST /_extensions/initialize`).

        `uniqueId` is the id, `hostAddress` the host; the versions of OpenSearch and the dependencies become metadata
        `opensearch.…`, implemented interfaces capabilities. Unknown fields are ignored.

        Raises:
            DiscoveryError: a field that is missing or wrong, by its name in the body.
        """
        from osdisco.discovery._opensearch import fields_of

        try:
            return cls(**fields_of(body))
        except InvalidNameError as exc:
            raise DiscoveryError(f"uniqueId: {exc}") from None
