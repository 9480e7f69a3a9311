"""What stands in the store for an extension, and how it is read: strictly, and ten thousand of them at once.

`decode` of `_records` is strict, but takes ten times as long as the JSON parser under it. What is exactly of the form
that osdisco writes is therefore taken apart here, and parts that many extensions share are parsed and checked once;
everything else is left to `decode`, which takes it or says what is wrong. A test holds that both agree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from sys import intern
from typing import Any, Final

from attrs import frozen

from osdisco._feed import Change
from osdisco._folded import Folded, Kind
from osdisco._keys import Keyspace
from osdisco._records import RECORD_MAX, decode
from osdisco.backend import Snapshot
from osdisco.discovery._frozen import FrozenDict
from osdisco.discovery.extension import (
    CAPABILITIES_MAX,
    ENDPOINTS_MAX,
    METADATA_MAX,
    VALUE_MAX,
    VERSION_MAX,
    EndpointInfo,
    ExtensionInfo,
    ExtensionStatus,
    Sight,
    Sighted,
    check_count,
    check_port,
    check_text,
)
from osdisco.errors import DiscoveryError

PREFIX: Final = "ext"

SHARED_MAX: Final = 1024
"""How many texts of each kind are remembered, and kept once for all extensions that have them."""


@frozen
class Registration:
    """What stands in the store under `ext/<id>/<process>.<number>`.

    `incarnation` is the token of the process's first record, epoch and creation; that very record tells only the epoch.
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


_TEXT = r'[^"\\\x00-\x1f]'
_NUMBER = "(0|[1-9][0-9]{0,18})"
_WRITTEN: Final = re.compile(
    r'\{"extension":\{"id":"((?!\.{1,2}")[A-Za-z0-9_.-]{1,255})","name":"(' + _TEXT + r'+)","version":"(' + _TEXT + "+)"
    r'","host":"([^"\s\x00-\x1f\x7f/@?#\\\[\]]{1,255})","port":' + _NUMBER + r',"capabilities":(\[[^\]\\]*\])'
    r',"endpoints":(\{[^\\]*?\}),"metadata":(\{[^}\\]*\}),"status":"([a-z]+)"\},"incarnation":' + _NUMBER + r"\}"
)
"""A record as osdisco writes it, without anything escaped. Each part is JSON by itself, so the whole is, too."""

_STATUSES: Final = {status.value: status for status in ExtensionStatus}


class _Made(Sighted):
    """An ExtensionInfo in the making: the same slots, but not frozen, which makes setting them ten times as fast."""

    __slots__ = ("capabilities", "endpoints", "host", "id", "metadata", "name", "port", "status", "version")


def _read_quickly(value: bytes) -> tuple[ExtensionInfo, int] | None:
    """Read what is exactly of the form that osdisco writes; None when anything is different, or wrong."""
    try:
        found = _WRITTEN.fullmatch(value.decode())
        if found is None:
            return None
        id_, name, version, host, port, capabilities, endpoints, metadata, status, incarnation = found.groups()
        made: Any = _Made()
        made.id = id_
        made.name = _name(name)
        made.version = _version(version)
        made.host = host
        made.port = _port(port)
        made.capabilities = _capabilities(capabilities)
        made.endpoints = _endpoints(endpoints)
        made.metadata = _metadata(metadata)
        made.status = _STATUSES[status]
        made.__class__ = ExtensionInfo
        return made, int(incarnation)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, DiscoveryError):
        return None


@lru_cache(SHARED_MAX)
def _name(text: str) -> str:
    check_text("", text)
    return text


@lru_cache(SHARED_MAX)
def _version(text: str) -> str:
    check_text("", text, VERSION_MAX)
    return text


@lru_cache(SHARED_MAX)
def _port(text: str) -> int:
    port = int(text)
    check_port("", port)
    return port


@lru_cache(SHARED_MAX)
def _capabilities(text: str) -> tuple[str, ...]:
    given = json.loads(text)
    check_count("", len(given), CAPABILITIES_MAX)
    return tuple(map(_name, given))


@lru_cache(SHARED_MAX)
def _endpoints(text: str) -> Mapping[str, EndpointInfo]:
    given = json.loads(text)
    _check_once(text, len(given) + sum(map(len, given.values())))
    check_count("", len(given), ENDPOINTS_MAX)
    return FrozenDict({_name(name): _endpoint(**way) for name, way in given.items()})


@lru_cache(SHARED_MAX)
def _metadata(text: str) -> Mapping[str, str]:
    given = json.loads(text)
    _check_once(text, len(given))
    if not _TEXTS.issuperset(map(type, given.values())) or max(map(len, given.values()), default=0) > VALUE_MAX:
        raise ValueError
    check_count("", len(given), METADATA_MAX)
    return FrozenDict({_name(name): intern(value) for name, value in given.items()})


_TEXTS: Final = {str}
_BEFORE_COLONS: Final = ('" ', "\n", "\r", "\t")


def _check_once(text: str, names: int) -> None:
    """Raise ValueError when there are more names written than there are: one is twice, or not written as we do."""
    if text.count('":') != names or any(map(text.__contains__, _BEFORE_COLONS)):
        raise ValueError


_endpoint = lru_cache(SHARED_MAX, typed=True)(EndpointInfo)
