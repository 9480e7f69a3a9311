"""What stands in the store for an extension, and how it is read: strictly, and ten thousand of them at once.

`decode` of `_records` is strict, but takes ten times as long as the JSON parser under it. What is exactly of the form
that osdisco writes is therefore read here, with each of its checks; everything else is left to `decode`, which takes it
or says what is wrong. A test holds that both agree.
"""

from __future__ import annotations

import json
from functools import lru_cache
from operator import itemgetter
from sys import intern
from typing import Any, Final

from attrs import frozen

from osdisco._feed import Change
from osdisco._keys import Keyspace
from osdisco._records import RECORD_MAX, decode, finite, no_constant
from osdisco.backend import Snapshot
from osdisco.discovery.extension import (
    CAPABILITIES_MAX,
    ENDPOINTS_MAX,
    HOST,
    VERSION_MAX,
    EndpointInfo,
    ExtensionInfo,
    ExtensionStatus,
    Sight,
    check_count,
    check_metadata,
    check_port,
    check_text,
)
from osdisco.discovery.table import Folded, Kind
from osdisco.errors import DiscoveryError
from osdisco.names import escape

PREFIX: Final = "ext"

SHARED_MAX: Final = 1024
"""How many texts of each kind are remembered, and kept once for all extensions that have them."""


@frozen
class Registration:
    """What stands in the store under `ext/<id>/<process>.<number>`.

    `incarnation` is the creation revision of the process's first record; 0 in that very record, whose own then counts.
    It is kept over every re-registration, so that an old process that returns after an outage never wins back.
    """

    extension: ExtensionInfo
    incarnation: int = 0


def read(value: bytes) -> tuple[ExtensionInfo, int]:
    """Read a record's value. Raises RecordError."""
    quick = _read_quickly(value) if len(value) <= RECORD_MAX else None
    if quick is not None:
        return quick
    registration = decode(value, Registration)
    return registration.extension, registration.incarnation


def kind(sight: Sight | float | None = None) -> Kind[ExtensionInfo]:
    """Return extensions as a table holds them. `sight` knows until when what it shows was seen."""

    def seen(value: bytes) -> tuple[ExtensionInfo, int]:
        extension, incarnation = read(value)
        return extension._see(sight), incarnation

    return Kind("registration", seen, lambda extension: extension.id)


def fold(keys: Keyspace, snapshot: Snapshot, sight: float | None = None) -> dict[str, ExtensionInfo]:
    """Return the extension that counts for each id: the newest incarnation."""
    folded = Folded(kind(sight), keys, PREFIX)
    folded.apply(Change(snapshot.items, {}, snapshot.revision))
    return dict(sorted(folded.items()))


_FIELDS: Final = ("id", "name", "version", "host", "port", "capabilities", "endpoints", "metadata", "status")
_TYPES: Final = (str, str, str, str, int, list, dict, dict, str)
_STATUSES: Final = {status.value: status for status in ExtensionStatus}
_SETTERS: Final = tuple(vars(ExtensionInfo)[name].__set__ for name in _FIELDS)
_ODD: Final = ("\\u", '" ', '"\n', '"\t', '"\r')
"""What may hide a lone surrogate, or a name from being counted."""

_parse = json.JSONDecoder(parse_constant=no_constant, parse_float=finite).decode
_fields = itemgetter(*_FIELDS)
_way = itemgetter("protocol", "port", "path")


def _read_quickly(value: bytes) -> tuple[ExtensionInfo, int] | None:
    """Read what is exactly of the form that osdisco writes; None when anything is different."""
    try:
        text = value.decode()
        record = _parse(text)
        given, incarnation = record["extension"], record["incarnation"]
        values = _fields(given)
        if (
            tuple(map(type, values)) != _TYPES
            or type(incarnation) is not int
            or _count(record, given, values[6], values[7]) != text.count('":')
            or any(map(text.__contains__, _ODD))
        ):
            return None
        return _built(*values), incarnation
    except (ValueError, LookupError, TypeError, RecursionError, DiscoveryError):
        return None


def _count(record: Any, given: Any, endpoints: Any, metadata: Any) -> int:
    """Return how many names the objects of a record hold: fewer than are written when one is written twice."""
    return len(record) + len(given) + len(endpoints) + sum(map(len, endpoints.values())) + len(metadata)


def _built(
    id_: str,
    name: str,
    version: str,
    host: str,
    port: int,
    capabilities: list[str],
    endpoints: dict[str, Any],
    metadata: dict[str, Any],
    status: str,
) -> ExtensionInfo:
    """Make an extension as its constructor does, but check texts that many extensions share only once."""
    escape(id_)
    check_port("", port)
    if not HOST.fullmatch(host):
        raise DiscoveryError("the host")
    ways = {_name(key): _endpoint(*_way(way)) for key, way in endpoints.items()}
    check_count("", len(ways), ENDPOINTS_MAX)
    values = (
        id_,
        _name(name),
        _version(version),
        host,
        port,
        _capabilities(tuple(capabilities)),
        ways,
        dict(_metadata(tuple(metadata.items()))),
        _STATUSES[status],
    )
    new = ExtensionInfo.__new__(ExtensionInfo)
    for set_, value in zip(_SETTERS, values, strict=True):
        set_(new, value)
    return new


_endpoint = lru_cache(SHARED_MAX, typed=True)(EndpointInfo)


@lru_cache(SHARED_MAX)
def _name(text: str) -> str:
    check_text("", text)
    return text


@lru_cache(SHARED_MAX)
def _version(text: str) -> str:
    check_text("", text, VERSION_MAX)
    return text


@lru_cache(SHARED_MAX)
def _capabilities(given: tuple[str, ...]) -> tuple[str, ...]:
    check_count("", len(given), CAPABILITIES_MAX)
    return tuple(map(_name, given))


@lru_cache(SHARED_MAX)
def _metadata(items: tuple[tuple[str, str], ...]) -> dict[str, str]:
    metadata = {_name(name): intern(value) for name, value in items}
    check_metadata(metadata)
    return metadata
