"""Under which address others reach what this process listens on, when its definition does not say so."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from typing import Final

from osdisco.errors import ConfigError
from osdisco.url import Host, StoreURL

_DISCARD: Final = 9
"""A port; nothing is sent there."""


async def reachable(host: str, port: int, store: StoreURL | None) -> str:
    """Return `host:port` for others.

    Who listens on all addresses is reached by the one from which it goes to the store: others go there, too. A store on
    this machine, or in this process, means that the others are on this machine.

    Raises:
        ConfigError: there is no way to tell.
    """
    family = _listened_on(host)
    if family is None:
        return Host(host).address(port)
    try:
        return Host(await _towards(store, family)).address(port)
    except OSError as exc:
        raise ConfigError(
            f"under which address others reach {host} is unknown ({exc}); give the definition one"
        ) from exc


def _listened_on(host: str) -> socket.AddressFamily | None:
    """Return of which kind the addresses are that `host` stands for, any for an empty one; None when it is itself one.

    Who listens on `::` is not reached by IPv4: asyncio does not let it.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return socket.AF_UNSPEC if host == "" else None
    if not address.is_unspecified:
        return None
    return socket.AF_INET6 if address.version == 6 else socket.AF_INET


async def _towards(store: StoreURL | None, family: socket.AddressFamily) -> str:
    if store is None or store.scheme == "memory" or not store.hosts or store.hosts[0].loopback:
        return "::1" if family is socket.AF_INET6 else "127.0.0.1"
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(store.hosts[0].name, _DISCARD, family=family, type=socket.SOCK_DGRAM)
    kind, protocol, _, place = found[0][1:]
    with socket.socket(found[0][0], kind, protocol) as probe:
        probe.setblocking(False)
        probe.connect(place)  # of a datagram socket: it only looks for the way
        own: str = probe.getsockname()[0]
        return own
