"""The body with which an extension is registered at OpenSearch, as `ExtensionInfo.from_extension_json` reads it.

See `RestInitializeExtensionAction` of OpenSearch: all fields are text there; a port that is a number is taken, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from osdisco._records import parse
from osdisco.errors import DiscoveryError, RecordError

VERSIONS = {
    "opensearchVersion": "opensearch.version",
    "minimumCompatibleVersion": "opensearch.minimumCompatibleVersion",
}


def fields_of(body: Mapping[str, Any] | str | bytes) -> dict[str, Any]:
    """Return the fields of an ExtensionInfo. Raises DiscoveryError."""
    given = _object(body)
    return {
        "id": _text(given, "uniqueId"),
        "name": _text(given, "name"),
        "version": _text(given, "version"),
        "host": _text(given, "hostAddress"),
        "port": _port(given),
        "capabilities": list(_interfaces(given)),
        "metadata": {ours: _text(given, theirs) for theirs, ours in VERSIONS.items()} | dict(_dependencies(given)),
    }


def _object(body: Mapping[str, Any] | str | bytes) -> Mapping[str, Any]:
    if isinstance(body, str | bytes):
        try:
            body = parse(body.encode() if isinstance(body, str) else body)
        except (RecordError, UnicodeEncodeError) as exc:
            raise DiscoveryError(f"the registration of an extension cannot be read: {exc}") from None
    if not isinstance(body, Mapping):
        raise DiscoveryError(f"the registration of an extension is a JSON object, not {type(body).__name__}")
    return body


def _text(given: Mapping[str, Any], name: str) -> str:
    if name not in given:
        raise DiscoveryError(f"the registration of an extension lacks {name!r}")
    value = given[name]
    if not isinstance(value, str):
        raise DiscoveryError(f"{name!r} must be text, not {type(value).__name__}")
    return value


def _port(given: Mapping[str, Any]) -> int:
    value = given.get("port")
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = _text(given, "port")
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise DiscoveryError("'port' is a number from 1 to 65535")
    return int(text)


def _interfaces(given: Mapping[str, Any]) -> Iterator[str]:
    names = given.get("implemented_interfaces", given.get("implementedInterfaces", []))
    for name in _list(names, "implemented_interfaces"):
        if not isinstance(name, str):
            raise DiscoveryError(f"'implemented_interfaces' must hold texts, not {type(name).__name__}")
        yield name


def _dependencies(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for one in _list(given.get("dependencies", []), "dependencies"):
        if not isinstance(one, Mapping):
            raise DiscoveryError(f"'dependencies' must hold objects, not {type(one).__name__}")
        yield f"opensearch.dependencies.{_text(one, 'uniqueId')}", _text(one, "version")


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise DiscoveryError(f"{name!r} must be a list, not {type(value).__name__}")
    return value
