"""A third party's backend: `example://NAME[/NAMESPACE]`, a store in this process, with an option of its own.

It stands on the store in memory, to stay small; what matters is that it uses nothing of osdisco but what is public.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Self

from attrs import frozen

from osdisco.backend import Backend, Batch, Condition, EndpointStatus, Item, Lease, LeaseStatus, Op, Snapshot
from osdisco.runtime import Runtime
from osdisco.url import ClientOptions, StoreURL
from osdisco_memory import MemoryBackend, MemoryStore


@frozen
class ExampleOptions(ClientOptions):
    """What `example://` knows besides the options of all stores."""

    colour: str = "green"


class ExampleBackend(Backend):
    """The backend."""

    def __init__(self, inner: Backend, colour: str) -> None:
        self._inner = inner
        self._colour = colour
        self.limits = inner.limits

    @classmethod
    def from_url(cls, url: StoreURL, runtime: Runtime) -> Self:
        """Open the store of the URL's host."""
        options = url.structure(ExampleOptions)
        return cls(MemoryBackend(MemoryStore.named(f"example-{url.hosts[0].name}"), runtime), options.colour)

    async def get(self, key: str, *, timeout: float) -> Item | None:
        """Read one key."""
        return await self._inner.get(key, timeout=timeout)

    async def scan(self, prefix: str, *, timeout: float) -> Snapshot:
        """Read all under a prefix."""
        return await self._inner.scan(prefix, timeout=timeout)

    async def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition], *, timeout: float) -> Mapping[str, int]:
        """Apply all or nothing."""
        return await self._inner.commit(ops, expect, timeout=timeout)

    def watch(self, target: str, *, after: int | None = None) -> AsyncGenerator[Snapshot | Batch, None]:
        """Follow a key or a prefix."""
        return self._inner.watch(target, after=after)

    async def grant(self, ttl: float, *, timeout: float) -> Lease:
        """Open a lease."""
        return await self._inner.grant(ttl, timeout=timeout)

    async def renew(self, lease: Lease, *, timeout: float) -> float:
        """Renew a lease."""
        return await self._inner.renew(lease, timeout=timeout)

    async def revoke(self, lease: Lease, *, timeout: float) -> None:
        """End a lease."""
        await self._inner.revoke(lease, timeout=timeout)

    async def lease_status(self, lease: str, *, timeout: float) -> LeaseStatus | None:
        """Tell how long a lease lasts."""
        return await self._inner.lease_status(lease, timeout=timeout)

    async def inspect(self, *, timeout: float) -> Sequence[EndpointStatus]:
        """Tell how it is."""
        return [EndpointStatus("example", details={"colour": self._colour})]

    async def aclose(self) -> None:
        """Close."""
        await self._inner.aclose()
