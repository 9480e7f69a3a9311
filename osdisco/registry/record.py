"""What stands in the store for an endpoint, and how it is read: strictly, and ten thousand of them at once.

As with extensions (`osdisco.discovery.registration`): what is exactly of the form that osdisco writes is read here with
each of its checks, everything else by `decode`, which takes it or says what is wrong. A test holds that both agree.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from operator import itemgetter
from sys import intern
from typing import Any, Final

from attrs import frozen

from osdisco._feed import Change
from osdisco._folded import Folded, Kind
from osdisco._keys import Keyspace
from osdisco._records import RECORD_MAX, decode, finite, no_constant
from osdisco.backend import Snapshot
from osdisco.client import Client
from osdisco.discovery._roster import Roster
from osdisco.discovery.extension import ExtensionStatus
from osdisco.errors import DiscoveryError
from osdisco.names import escape
from osdisco.registry._fields import (
    check_address,
    check_label,
    check_metadata,
    check_url,
    check_version,
    check_weight,
)
from osdisco.registry.definition import ServiceEndpoint

PREFIX: Final = "svc"

SHARED_MAX: Final = 1024
"""How many texts of each kind are remembered, and kept once for all endpoints that have them."""


@frozen
class Record:
    """What stands in the store under `svc/<service>/<extension_id>/<process>.<number>`.

    `incarnation` is the token of the process's first record, epoch and creation; that very record tells only the epoch.
    """

    endpoint: ServiceEndpoint
    incarnation: int = 0


def read(value: bytes) -> tuple[ServiceEndpoint, int]:
    """Read a record's value. Raises RecordError."""
    quick = read_quickly(value) if len(value) <= RECORD_MAX else None
    if quick is not None:
        return quick
    record = decode(value, Record)
    return record.endpoint, record.incarnation


SERVICES: Final = Kind("service endpoint", read, lambda endpoint: endpoint.extension_id)


def roster_of(client: Client, service: str) -> Roster[ServiceEndpoint]:
    """Return the live table of a service. Raises InvalidNameError."""
    return Roster.of(client, lambda _: SERVICES, PREFIX, service)


def table_of(keys: Keyspace, service: str) -> Folded[ServiceEndpoint]:
    """Return an empty table of a service. Raises InvalidNameError."""
    return Folded(SERVICES, keys, PREFIX, service)


def fold(table: Folded[ServiceEndpoint], snapshot: Snapshot) -> list[ServiceEndpoint]:
    """Return what a snapshot holds, by id."""
    table.apply(Change(snapshot.items, {}, snapshot.revision))
    return [endpoint for _, endpoint in sorted(table.items())]


_FIELDS: Final = ("extension_id", "address", "metadata", "health_check_url", "weight", "zone", "version", "status")
_STATUSES: Final = {status.value: status for status in ExtensionStatus}
_SETTERS: Final = tuple(vars(ServiceEndpoint)[name].__set__ for name in _FIELDS)
_ODD: Final = ("\\u", '" ', '"\n', '"\t', '"\r')
"""What may hide a lone surrogate, or a name from being counted."""

_PART = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_PLAIN_ADDRESS: Final = re.compile(
    rf"(?:[1-9]|[1-9]\d|1\d\d|2[01]\d|22[0-3])(?:\.{_PART}){{3}}:[1-9]\d{{0,3}}", re.ASCII
)
"""The usual one, which needs no closer look: an IPv4 address that is no multicast, and a port of up to four digits."""

_parse = json.JSONDecoder(parse_constant=no_constant, parse_float=finite).decode
_fields = itemgetter(*_FIELDS)


def read_quickly(value: bytes) -> tuple[ServiceEndpoint, int] | None:
    """Read what is exactly of the form that osdisco writes; None when anything is different."""
    try:
        text = value.decode()  # strictly: `json.loads` would take encoded surrogates
        record = _parse(text)
        given, incarnation = record["endpoint"], record["incarnation"]
        values = _fields(given)
        if (
            type(incarnation) is not int
            or type(values[2]) is not dict
            or len(record) + len(given) + len(values[2]) != text.count('":')
            or any(map(text.__contains__, _ODD))
        ):
            return None
        return _built(*values), incarnation
    except (ValueError, LookupError, TypeError, RecursionError, DiscoveryError):
        return None


def _built(
    extension_id: Any, address: Any, metadata: Any, health: Any, weight: Any, zone: Any, version: Any, status: Any
) -> ServiceEndpoint:
    """Make an endpoint as its constructor does, but check texts that many share only once."""
    if type(extension_id) is not str or type(address) is not str or type(weight) is not int:
        raise TypeError
    escape(extension_id)
    if not _PLAIN_ADDRESS.fullmatch(address):
        check_address("address", address)
    check_weight("weight", weight)
    if health is not None:
        check_url("health_check_url", health)
    values = (
        extension_id,
        extension_id if address == extension_id else address,
        dict(_metadata(tuple(metadata.items()))),
        health,
        weight,
        None if zone is None else _zone(zone),
        _version(version),
        _STATUSES[status],
    )
    new = ServiceEndpoint.__new__(ServiceEndpoint)
    for set_, value in zip(_SETTERS, values, strict=True):
        set_(new, value)
    return new


@lru_cache(SHARED_MAX, typed=True)
def _zone(text: str) -> str:
    check_label("zone", text)
    return text


@lru_cache(SHARED_MAX, typed=True)
def _version(text: str) -> str:
    check_version("version", text)
    return text


@lru_cache(SHARED_MAX, typed=True)
def _metadata(items: tuple[tuple[str, str], ...]) -> dict[str, str]:
    metadata = {intern(name): value if len(value) > 64 else intern(value) for name, value in items}
    check_metadata("metadata", metadata)
    return metadata
