"""Discovery on clusters whose leader is killed, whose quorum is lost and regained, and one of whose nodes is cut off.

All three transports live through it at the same time, each with one process that is registered and one that looks.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from cluster_rooms import EVERYWHERE, TIMEOUT, Party, Store
from worlds import until

from osdisco.backend import WATCH_SILENCE
from osdisco.discovery import DiscoveryService, ExtensionInfo

BUSY = 5.0
"""Seconds that a machine which does other things may take longer."""


class Pair(Party):
    """Who is registered, and who looks, by one way to a store."""

    said = 0

    async def start(self, addresses: list[str]) -> None:
        extension = ExtensionInfo(id=self.way, name="geo", version="1.0.0", host="10.0.0.7", port=9700)
        self.service = DiscoveryService(await self.connect(addresses), extension)
        await self._stack.enter_async_context(self.service)
        await self.service.wait_registered(20)
        self.seer = await self.looking(addresses)

    async def looking(self, addresses: list[str]) -> DiscoveryService:
        """Start to look by way of some nodes, the first one first."""
        seer = DiscoveryService(await self.connect(addresses))
        await self._stack.enter_async_context(seer)
        await seer.wait_known(20)
        return seer

    async def say(self) -> None:
        """Change the registration; it is published when it can be."""
        self.said += 1
        await self.service.update(metadata={"said": str(self.said)})

    async def is_heard(self, seer: DiscoveryService, within: float) -> float:
        """Wait until the latest is seen, by the view and by a read; returns the seconds until the view did."""
        now = self.service._client.runtime.clock.now
        begun = now()
        await until(lambda: self._heard(seer.extensions), within)
        seconds = now() - begun
        async with asyncio.timeout(within):
            assert self._heard({one.id: one for one in await seer.discover_extensions()})
        return seconds

    async def says_and_is_heard(self, within: float) -> float:
        """Say something new; returns the seconds until it is seen."""
        now = self.service._client.runtime.clock.now
        begun = now()
        await self.say()
        await self.is_heard(self.seer, within)
        return now() - begun

    def _heard(self, extensions: Any) -> bool:
        return self.way in extensions and extensions[self.way].metadata.get("said") == str(self.said)


class DiscoveryRun:
    """What one cluster goes through, and what everybody sees of it."""

    def __init__(self, store: Store, stack: AsyncExitStack) -> None:
        self.store = store
        self.cluster = store.cluster
        self.pairs = [Pair(store, way, stack) for way in store.ways]

    async def rage(self) -> None:
        for pair in self.pairs:
            await pair.start(self.store.any_order(random.Random()))
        await self.all_hear("at first", BUSY)
        await self.quorum_lost(await self.leader_killed())
        await asyncio.to_thread(self.cluster.restore)
        await self.endpoint_cut_off()

    async def all_hear(self, story: str, within: float) -> None:
        """Let all say something new, and be heard."""
        seconds = await self.each(lambda pair: pair.says_and_is_heard(within))
        print(f"{story}: seen after", *(f"{one:.1f} s" for one in seconds))

    async def each(self, what: Callable[[Pair], Awaitable[Any]]) -> list[Any]:
        return list(await asyncio.gather(*(what(pair) for pair in self.pairs)))

    async def leader_killed(self) -> Any:
        leader = await asyncio.to_thread(self.cluster.leader)
        await asyncio.to_thread(leader.kill)
        await self.all_hear("leader killed", self.store.failover + self.store.expiry + TIMEOUT + BUSY)
        return leader

    async def quorum_lost(self, dead: Any) -> None:
        """Views stay as they are, and say that they are stale; registrations know, and return with the latest."""
        second = next(node for node in self.cluster.nodes if node is not dead)
        await asyncio.to_thread(second.kill)
        await self.each(lambda pair: until(lambda: not pair.service.registered, self.store.expiry + BUSY))
        await self.each(lambda pair: until(lambda: pair.seer.extensions.stale, WATCH_SILENCE + BUSY))
        await self.each(lambda pair: pair.say())
        assert [list(pair.seer.extensions) for pair in self.pairs] == [[pair.way] for pair in self.pairs]
        for node in (dead, second):
            await asyncio.to_thread(node.restore)
        bound = 2 * self.store.failover + self.store.expiry + TIMEOUT + 2 * BUSY
        seconds = await self.each(lambda pair: pair.is_heard(pair.seer, bound))
        print("quorum regained: seen after", *(f"{one:.1f} s" for one in seconds))
        await self.each(lambda pair: until(lambda: pair.service.registered and not pair.seer.extensions.stale, BUSY))

    async def endpoint_cut_off(self) -> None:
        """Clients still reach it, and it stays silent."""
        leader = await asyncio.to_thread(self.cluster.leader)
        node = next(node for node in self.cluster.nodes if node is not leader)
        others = [one.address for one in self.cluster.nodes if one is not node]
        seers = await self.each(lambda pair: pair.looking([node.address, *others]))
        await asyncio.to_thread(node.disconnect)
        await self.each(lambda pair: pair.say())
        waits = [pair.is_heard(seer, WATCH_SILENCE + TIMEOUT) for pair, seer in zip(self.pairs, seers, strict=True)]
        print("endpoint cut off: seen by its clients after", *(f"{one:.1f} s" for one in await asyncio.gather(*waits)))
        await asyncio.to_thread(node.restore)


@pytest.mark.timeout(300)
@pytest.mark.fault("F1", "F3", "F8", on=EVERYWHERE)
async def test_discovery_outlives_the_leader_the_quorum_and_an_endpoint(etcds: Store, consuls: Store) -> None:
    async with AsyncExitStack() as stack:
        runs = [DiscoveryRun(store, stack) for store in (etcds, consuls)]
        try:
            await asyncio.gather(*(run.rage() for run in runs))
        finally:
            for run in runs:
                await asyncio.to_thread(run.cluster.restore)
