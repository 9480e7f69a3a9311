"""What the fields of a service may hold. Refused for the caller who registers, and in records of other writers.

Every error names the field, says what is wrong with it and what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any, Final
from urllib.parse import urlsplit

from osdisco.errors import DiscoveryError, InvalidNameError
from osdisco.names import escape

WEIGHT_MAX: Final = 65_535
"""The most that DNS SRV and Consul take, too."""

METADATA_MAX: Final = 64
METADATA_KEY_MAX: Final = 128
METADATA_VALUE_MAX: Final = 512
"""Pairs, and bytes of a key and of a value: what Consul's own catalog takes."""

TEXT_MAX: Final = 255
URL_MAX: Final = 2048

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOSTNAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\Z")
_NUMERIC = re.compile(r"[0-9.]+\Z")
_PORT = re.compile(r"[1-9][0-9]{0,4}\Z")
_VISIBLE = re.compile(r"[!-~]+\Z")


def refuse(field: str, why: str) -> DiscoveryError:
    """Return the error for a field."""
    return DiscoveryError(f"the field {field} of a service {why}")


def check_name(field: str, value: object) -> None:
    """Refuse what cannot be one segment of a key. Raises DiscoveryError."""
    if not isinstance(value, str):
        raise refuse(field, f"must be text, not {type(value).__name__}")
    try:
        escape(value)
    except InvalidNameError as exc:
        raise refuse(field, f"is no name: {exc}") from None


def check_text(field: str, value: object, most: int = TEXT_MAX) -> None:
    """Refuse what is no text of 1 to `most` bytes. Raises DiscoveryError."""
    if not isinstance(value, str):
        raise refuse(field, f"must be text, not {type(value).__name__}")
    if not 0 < (size := len(_bytes(field, value))) <= most:
        raise refuse(field, f"has {size} bytes; from 1 to {most} are allowed")


def check_weight(field: str, value: object) -> None:
    """Refuse what is no whole number from 0 to WEIGHT_MAX. Raises DiscoveryError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise refuse(field, f"must be a whole number, not {type(value).__name__}")
    if not 0 <= value <= WEIGHT_MAX:
        raise refuse(field, f"is {value}; from 0 (nothing new is sent there) to {WEIGHT_MAX} is allowed")


def check_metadata(field: str, value: object) -> None:
    """Refuse what is not text by name, or too much of it. Raises DiscoveryError."""
    if not isinstance(value, Mapping):
        raise refuse(field, f"must be a Mapping of text to text, not {type(value).__name__}")
    if len(value) > METADATA_MAX:
        raise refuse(field, f"has {len(value)} entries; {METADATA_MAX} are allowed")
    for key, text in value.items():
        check_text(f"{field} (a key)", key, METADATA_KEY_MAX)
        _check_value(f"{field}[{key!a:.40}]", text)


def _check_value(field: str, text: object) -> None:
    if not isinstance(text, str):
        raise refuse(field, f"must be text, not {type(text).__name__}")
    if (size := len(_bytes(field, text))) > METADATA_VALUE_MAX:
        raise refuse(field, f"has {size} bytes; {METADATA_VALUE_MAX} are allowed")


def check_address(field: str, value: object) -> None:
    """Refuse what is not `host:port` or `[IPv6]:port` that others can connect to. Raises DiscoveryError."""
    if not isinstance(value, str):
        raise refuse(field, f"must be text such as 10.0.0.7:9700, not {type(value).__name__}")
    if "://" in value or "/" in value:
        raise refuse(field, "is host:port alone, such as 10.0.0.7:9700; a scheme or path belongs into the metadata")
    if "@" in value:
        raise refuse(field, "holds an '@'; it is host:port without user or password, for everybody can read it")
    host, colon, port = value.rpartition(":")
    if not colon or not _PORT.match(port) or int(port) > 65_535:
        raise refuse(field, "must end in ':' and a port from 1 to 65535, such as 10.0.0.7:9700 or [fd00::7]:9700")
    _check_host(field, host)


def _check_host(field: str, host: str) -> None:
    address = _ip(field, host)
    if address is None and not _HOSTNAME.match(host):
        raise refuse(field, "has no host name or address before its port; write an IPv6 address in brackets")
    if address is not None and address.is_unspecified:
        raise refuse(field, f"says {host}, where a server listens, not where others reach it; write the host's address")
    if address is not None and address.is_multicast:
        raise refuse(field, f"says {host}, a multicast address, to which nobody can connect")


def _ip(field: str, host: str) -> IPv4Address | IPv6Address | None:
    """Return the address that is written there; None for the name of a host."""
    try:
        if host.startswith("[") and host.endswith("]") and "%" not in host:
            return IPv6Address(host[1:-1])
        return IPv4Address(host) if _NUMERIC.match(host) else None
    except AddressValueError:
        raise refuse(field, f"says {host!a:.60}, which looks like an IP address and is none") from None


def check_url(field: str, value: object) -> None:
    """Refuse what is no plain http or https URL. Raises DiscoveryError."""
    check_text(field, value, URL_MAX)
    assert isinstance(value, str)
    if not _VISIBLE.match(value):
        raise refuse(field, "holds what is no visible ASCII character; write a space as %20, and so on")
    try:
        url = urlsplit(value)
        host, port = url.hostname, url.port
    except ValueError:
        raise refuse(field, "is not a URL such as http://10.0.0.7:9700/health") from None
    if url.scheme not in ("http", "https") or not host or port == 0:
        raise refuse(field, "must be an http or https URL with a host, such as http://10.0.0.7:9700/health")
    if "@" in url.netloc:
        raise refuse(field, "holds a user or password, which everybody could read")


def validated(check: Any, *, optional: bool = False) -> Any:
    """Return a validator of attrs that runs `check(field, value)`."""

    def validate(_: object, attribute: Any, value: object) -> None:
        if value is not None or not optional:
            check(attribute.name, value)

    return validate


def copied(metadata: Any) -> Any:
    """Copy what the caller may go on to change. What is no Mapping is refused by its check."""
    return dict(metadata) if isinstance(metadata, Mapping) else metadata


def _bytes(field: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise refuse(field, "holds a lone surrogate, which has no UTF-8 form") from None
