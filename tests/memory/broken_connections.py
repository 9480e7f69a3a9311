"""Backends that break one rule of errors, timeouts and closing each, for proving that the suite would tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Self, TypeVar

from osdisco.backend import Batch, Condition, EndpointStatus, Item, Lease, Op, Snapshot
from osdisco.errors import IndeterminateError, UnavailableError
from osdisco.runtime import Runtime
from osdisco.url import StoreURL
from osdisco_memory import MemoryBackend, MemoryStore

T = TypeVar("T")


class WatchesOn(MemoryBackend):
    """Closing does not end open watches."""

    def _check_watch(self, target: str) -> float:
        return 0.0


class StaysOpen(MemoryBackend):
    """Closing closes nothing."""

    def _check_open(self) -> None:
        pass


class LeavesATask(MemoryBackend):
    """Starts upkeep that nobody ends."""

    async def get(self, key: str, *, timeout: float) -> Item | None:
        self._upkeep = asyncio.create_task(asyncio.sleep(1000))
        return await super().get(key, timeout=timeout)


class SaysNoAndAppliesIt(MemoryBackend):
    """Takes a timeout for a refusal."""

    async def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition], *, timeout: float) -> Mapping[str, int]:
        answer = await super().commit(ops, expect, timeout=timeout)
        if timeout < 0.001:
            raise UnavailableError("timed out")
        return answer


class TakesAnyOption(MemoryBackend):
    """A typing error in a URL goes unnoticed."""

    @classmethod
    def from_url(cls, url: StoreURL, runtime: Runtime) -> Self:
        return cls(MemoryStore(), runtime)


class BreaksWhenCancelled(MemoryBackend):
    """A cancelled call takes the connection with it."""

    async def _at_once(self, apply: Callable[[], T]) -> T:
        try:
            return await super()._at_once(apply)
        except asyncio.CancelledError:
            await self.aclose()
            raise


class SwallowsCancellation(MemoryBackend):
    """A cancelled watch takes the connection with it."""

    async def watch(self, target: str, *, after: int | None = None) -> AsyncGenerator[Snapshot | Batch, None]:
        try:
            async for frame in super().watch(target, after=after):
                yield frame
        except asyncio.CancelledError:
            await self.aclose()
            raise


class RaisesItsOwnErrors(MemoryBackend):
    """Errors of the driver come through."""

    async def grant(self, ttl: float, *, timeout: float) -> Lease:
        if timeout < 0.001:
            raise TimeoutError
        return await super().grant(ttl, timeout=timeout)


class DoubtsItsReads(MemoryBackend):
    """A read that timed out is Indeterminate."""

    async def get(self, key: str, *, timeout: float) -> Item | None:
        if timeout < 0.001:
            raise IndeterminateError("who knows")
        return await super().get(key, timeout=timeout)


class TakesItsTime(MemoryBackend):
    """A timeout is a mere wish."""

    async def scan(self, prefix: str, *, timeout: float) -> Snapshot:
        if timeout < 0.001:
            await asyncio.sleep(3)
        return await super().scan(prefix, timeout=timeout)


class ClosesWhatItOpened(MemoryBackend):
    """Closing an unused backend fails."""

    _used = False

    async def _at_once(self, apply: Callable[[], T]) -> T:
        self._used = True
        return await super()._at_once(apply)

    async def aclose(self) -> None:
        if not self._used:
            raise AttributeError("no session yet")
        await super().aclose()


class TidiesUp(MemoryBackend):
    """Closing takes leases along that others still count on."""

    async def aclose(self) -> None:
        for lease in list(self.store._leases):
            self.store.revoke(lease)
        await super().aclose()


class SaysNothing(MemoryBackend):
    """Inspects no endpoint."""

    async def inspect(self, *, timeout: float) -> Sequence[EndpointStatus]:
        return []
