"""What the tests of clusters share: the stores, and what their leases and failovers take."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any

from attrs import frozen

import osdisco
from osdisco.client import Client
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


class Party:
    """Clients by one way to a store, in a namespace of their own, and tasks that end with `stop`."""

    def __init__(self, store: Store, way: str, stack: AsyncExitStack) -> None:
        self.way = way
        self.tasks: list[asyncio.Task[None]] = []
        self._store = store
        self._stack = stack
        self._namespace = f"cluster-{random.SystemRandom().randrange(10**9)}"

    async def connect(self, addresses: Sequence[str]) -> Client:
        """Return a client of some nodes, which asks the first one first."""
        url = self._store.url(self.way, list(addresses), self._namespace)
        return await self._stack.enter_async_context(osdisco.connect(url))

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something go on beside all else."""
        self.tasks.append(asyncio.create_task(work))

    async def stop(self) -> None:
        """End all tasks."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
