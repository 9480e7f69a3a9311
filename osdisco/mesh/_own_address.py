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
    if not _is_unspecified(host):
        return Host(host).address(port)
    try:
        return Host(await _towards(store)).address(port)
    except OSError as exc:
        raise ConfigError(
            f"under which address others reach {host} is unknown ({exc}); give the definition one"
        ) from exc


def _is_unspecified(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return host == ""


async def _towards(store: StoreURL | None) -> str:
    if store is None or store.scheme == "memory" or not store.hosts or store.hosts[0].loopback:
        return "127.0.0.1"
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(store.hosts[0].name, _DISCARD, type=socket.SOCK_DGRAM)
    family, kind, protocol, _, place = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setblocking(False)
        probe.connect(place)  # of a datagram socket: it only looks for the way
        own: str = probe.getsockname()[0]
        return own
