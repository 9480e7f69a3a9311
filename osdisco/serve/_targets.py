"""Extensions as Prometheus' `http_sd` takes them.

Whatever an extension says of itself ends up in values of labels named here, never in `__address__` tricks, a scheme or
a path: a host that is none is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any, Final, Self

from attrs import field, frozen

from osdisco.discovery import EndpointInfo, ExtensionInfo, ExtensionStatus
from osdisco.discovery._filter import Filter
from osdisco.errors import ConfigError, nearest

PREFIX: Final = "__meta_osdisco_"
PARAMETERS: Final = ("capability", "endpoint", "name", "status")

_NO_LABEL: Final = re.compile(r"[^A-Za-z0-9_]")
_HOST: Final = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\Z")


@frozen
class Query:
    """What a request asks for. An extension has all the capabilities, one of the names and one of the statuses."""

    meant: Filter = field(factory=Filter)
    endpoint: str | None = None

    @classmethod
    def parse(cls, pairs: Iterable[tuple[str, str]]) -> Self:
        """Read a query. Raises ConfigError for what is unknown: a typo must not answer with everything."""
        given: dict[str, list[str]] = {}
        for parameter, value in pairs:
            if parameter not in PARAMETERS:
                known = ", ".join(PARAMETERS)
                raise ConfigError(f"no parameter {parameter!a}{nearest(parameter, PARAMETERS)}; known are {known}")
            given.setdefault(parameter, []).append(value)
        endpoints = given.get("endpoint", [None])
        if len(endpoints) > 1:
            raise ConfigError("one endpoint at most: each target is one address")
        meant = Filter(
            names=frozenset(given.get("name", ())),
            statuses=frozenset(map(_status, given.get("status", ()))),
            capabilities=frozenset(given.get("capability", ())),
        )
        return cls(meant, endpoints[0])

    def fits(self, extension: ExtensionInfo) -> bool:
        """Return whether an extension is asked for."""
        return self.meant(extension) and (self.endpoint is None or self.endpoint in extension.endpoints)


def _status(text: str) -> ExtensionStatus:
    try:
        return ExtensionStatus(text)
    except ValueError:
        known = [status.value for status in ExtensionStatus]
        raise ConfigError(f"no status {text!a}{nearest(text, known)}; known are {', '.join(known)}") from None


def target_groups(extensions: Iterable[ExtensionInfo], query: Query) -> Iterator[Mapping[str, Any]]:
    """Yield a group of one target for each extension that is asked for and has an address that can be one."""
    for extension in extensions:
        host = _host(extension.host)
        if host is not None and query.fits(extension):
            endpoint = None if query.endpoint is None else extension.endpoints[query.endpoint]
            port = extension.port if endpoint is None else endpoint.port
            yield {"targets": [f"{host}:{port}"], "labels": _labels(extension, endpoint)}


def _host(host: str) -> str | None:
    if _HOST.match(host):
        return host
    try:
        return f"[{ip_address(host)}]" if "%" not in host else None
    except ValueError:
        return None


def _labels(extension: ExtensionInfo, endpoint: EndpointInfo | None) -> dict[str, str]:
    labels = {
        "id": extension.id,
        "name": extension.name,
        "version": extension.version,
        "status": extension.status.value,
        "capabilities": f",{','.join(extension.capabilities)}," if extension.capabilities else "",
    }
    if endpoint is not None:
        labels |= {"endpoint_protocol": endpoint.protocol, "endpoint_path": endpoint.path}
    for name, value in sorted(extension.metadata.items()):
        labels.setdefault(f"metadata_{_NO_LABEL.sub('_', name)}", value)
    return {f"{PREFIX}{name}": value for name, value in labels.items()}
