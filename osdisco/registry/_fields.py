"""What the fields of a service may hold. Refused for the caller who registers, and in records of other writers.

Every error names the field, says what is wrong with it and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final

from osdisco.discovery import extension
from osdisco.discovery._target import RefusedError, Target, is_address, split_address
from osdisco.discovery.extension import VERSION_MAX, check_text
from osdisco.errors import DiscoveryError, InvalidNameError
from osdisco.names import escape

WEIGHT_MAX: Final = 65_535
"""The most that DNS SRV and Consul take, too."""

URL_MAX: Final = 2048


def refuse(field: str, why: str) -> DiscoveryError:
    """Return the error for a field."""
    return DiscoveryError(f"{_what(field)} {why}")


def _what(field: str) -> str:
    return f"the field {field} of a service"


def check_name(field: str, value: object) -> None:
    """Refuse what cannot be one segment of a key. Raises DiscoveryError."""
    if not isinstance(value, str):
        raise refuse(field, f"must be text, not {type(value).__name__}")
    try:
        escape(value)
    except InvalidNameError as exc:
        raise refuse(field, f"is no name: {exc}") from None


def check_label(field: str, value: object) -> None:
    """Refuse what is no text, or too long. Raises DiscoveryError."""
    check_text(_what(field), value)


def check_version(field: str, value: object) -> None:
    """Refuse what is no text, or too long. Raises DiscoveryError."""
    check_text(_what(field), value, VERSION_MAX)


def check_weight(field: str, value: object) -> None:
    """Refuse what is no whole number from 0 to WEIGHT_MAX. Raises DiscoveryError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise refuse(field, f"must be a whole number, not {type(value).__name__}")
    if not 0 <= value <= WEIGHT_MAX:
        raise refuse(field, f"is {value}; from 0 (nothing new is sent there) to {WEIGHT_MAX} is allowed")


def check_metadata(field: str, value: object) -> None:
    """Refuse what is no text by name, or too much of it. Raises DiscoveryError."""
    if not isinstance(value, Mapping):
        raise refuse(field, f"must be a Mapping of text to text, not {type(value).__name__}")
    extension.check_metadata(value)


def check_address(field: str, value: object) -> None:
    """Refuse what is not `host:port` or `[IPv6]:port` that others can connect to. Raises DiscoveryError."""
    check_text(_what(field), value)
    text = str(value)
    if "://" in text or "/" in text:
        raise refuse(field, "is host:port alone, such as 10.0.0.7:9700; a scheme or path belongs into the metadata")
    if "@" in text:
        raise refuse(field, "holds an '@'; it is host:port without user or password, for everybody can read it")
    try:
        host, port = split_address(text)
    except RefusedError as exc:
        raise refuse(field, f"is not host:port, such as 10.0.0.7:9700: {exc}") from None
    if port is None:
        raise refuse(field, "must end in ':' and a port from 1 to 65535, such as 10.0.0.7:9700 or [fd00::7]:9700")
    _check_reachable(field, host)


def _check_reachable(field: str, host: str) -> None:
    if not is_address(host):
        return
    address = ip_address(host)
    if address.is_unspecified:
        raise refuse(field, f"says {host}, where a server listens, not where others reach it; write the host's address")
    if address.is_multicast:
        raise refuse(field, f"says {host}, a multicast address, to which nobody can connect")


def check_url(field: str, value: object) -> None:
    """Refuse what no check of health asks: see `HttpCheck`. Raises DiscoveryError."""
    check_text(_what(field), value, URL_MAX)
    try:
        Target.parse(str(value))
    except RefusedError as exc:
        raise refuse(field, f"is not asked by any check: {exc}") from None


def validated(check: Any, *, optional: bool = False) -> Any:
    """Return a validator of attrs that runs `check(field, value)`."""

    def validate(_: object, attribute: Any, value: object) -> None:
        if value is not None or not optional:
            check(attribute.name, value)

    return validate


def copied(metadata: Any) -> Any:
    """Copy what the caller may go on to change. What is no Mapping is refused by its check."""
    return dict(metadata) if isinstance(metadata, Mapping) else metadata
