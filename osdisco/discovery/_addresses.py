"""Which addresses may be probed: those of an allow-list, and of them never what no extension lives at.

A record of the store says where an extension is, and whoever can write one must not make others' processes ask a
cloud's metadata service, or whatever else trusts its own network.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

from attrs import field, frozen

from osdisco.discovery._target import RefusedError
from osdisco.errors import ConfigError

Network = IPv4Network | IPv6Network

_NEVER: Final = {
    "unspecified": ["0.0.0.0/8", "::/128"],
    "link-local, where clouds keep their metadata": ["169.254.0.0/16", "fe80::/10", "fec0::/10"],
    "multicast": ["224.0.0.0/4", "ff00::/8"],
    "reserved or broadcast": ["240.0.0.0/4", "192.0.0.0/24", "100::/64"],
    "of a cloud's metadata": ["100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::/32", "fd20:ce::/32"],
}
"""https://www.iana.org/assignments/iana-ipv4-special-registry; the last are Alibaba's, Azure's, AWS's and Google's, and
192.0.0.192 is Oracle's."""

_CARRIERS: Final = {
    "IPv4-mapped": "::ffff:0:0/96",
    "IPv4-translated": "::ffff:0:0:0/96",
    "IPv4-compatible": "::/96",
    "NAT64": "64:ff9b::/96",
    "local NAT64": "64:ff9b:1::/48",
    "6to4": "2002::/16",
    "Teredo": "2001::/32",
}
"""IPv6 addresses that lead to an IPv4 one; all are refused, so that none is a way around the rules for that."""

_REFUSED: Final = [(ip_network(text), why) for why, texts in _NEVER.items() for text in texts]
_CARRYING: Final = [(IPv6Network(text), f"a form of an IPv4 address ({why})") for why, text in _CARRIERS.items()]
_ISATAP: Final = (0x00005EFE, 0x02005EFE)


def networks(texts: Iterable[str | Network]) -> tuple[Network, ...]:
    """Return networks. Raises ConfigError for what is none, and for none at all."""
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise ConfigError(f"Probing.allow must be a list of networks such as 10.0.0.0/8, not {texts!a}")
    found = tuple(_network(text) for text in texts)
    if not found:
        raise ConfigError("Probing.allow must name at least one network, such as 10.0.0.0/8: nothing else is probed")
    return found


def _network(text: str | Network) -> Network:
    try:
        return ip_network(text)
    except ValueError as exc:
        raise ConfigError(f"Probing.allow: {text!a} is no network such as 10.0.0.0/8 or fd00::/8: {exc}") from None


@frozen
class Gate:
    """Lets through what lies in the allowed networks and is nothing that is always refused."""

    allowed: tuple[Network, ...] = field(converter=networks)

    def admit(self, addresses: Sequence[str]) -> None:
        """Raise RefusedError unless there are addresses and all of them may be gone to."""
        if not addresses:
            raise RefusedError("there is no address")
        for address in addresses:
            self._check(address)

    def _check(self, text: str) -> None:
        if "%" in text:
            raise RefusedError(f"{text} has a zone")
        address = ip_address(text)
        if why := _always_refused(address) or self._broadcast(address):
            raise RefusedError(f"{text} is {why}")
        if not any(address in network for network in self.allowed):
            raise RefusedError(f"{text} is in none of the networks that may be probed")

    def _broadcast(self, address: IPv4Address | IPv6Address) -> str:
        small = (network for network in self.allowed if network.version == 4 and network.prefixlen < 31)
        return "a broadcast address" if any(address == network.broadcast_address for network in small) else ""


def _always_refused(address: IPv4Address | IPv6Address) -> str:
    """Return why; nothing when it is not."""
    for network, why in _REFUSED:
        if address in network:
            return why
    if isinstance(address, IPv4Address) or address.is_loopback:
        return ""
    if int(address) >> 32 & 0xFFFFFFFF in _ISATAP:
        return "a form of an IPv4 address (ISATAP)"
    return next((why for network, why in _CARRYING if address in network), "")
