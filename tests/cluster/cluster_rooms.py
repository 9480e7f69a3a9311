"""What the tests of clusters share: the stores, and what their leases and failovers take."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from attrs import frozen

from osdisco.testing._stores import in_namespace

TTL = 3
TIMEOUT = 2

EVERYWHERE = ("etcd", "etcd+http", "consul")


@frozen
class Store:
    """A cluster, the ways to it by name, and bounds in seconds.

    `expiry` is for a lease of TTL that nobody renews; `failover` is until another node leads and writes. A storm has
    `strikes` at the leader.
    """

    cluster: Any
    ways: dict[str, Callable[[list[str]], str]]
    expiry: float
    failover: float
    strikes: int

    def url(self, way: str, addresses: list[str], namespace: str, ttl: float = TTL) -> str:
        """Return the URL for clients."""
        return f"{in_namespace(self.ways[way](addresses), namespace)}?ttl={ttl}s&timeout={TIMEOUT}s"

    def any_order(self, chance: random.Random) -> list[str]:
        """Return the addresses of all nodes."""
        return chance.sample(self.cluster.addresses, len(self.cluster.addresses))
