"""Mirrors of a search cluster on stores whose leader is killed, and whose quorum is lost and regained.

Readers are not harmed: what they show stays, whole, and goes on as soon as the store does. All three transports live
through it at the same time, each with two that may mirror and one that reads.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from cluster_rooms import TIMEOUT, Party, Store
from worlds import until

from osdisco.backend import WATCH_SILENCE
from osdisco.cluster import ClusterStateService, StateComponent
from osdisco.testing import FakeCluster

BUSY = 5.0
"""Seconds that a machine which does other things may take longer."""
SHOWN = 2.0
"""Seconds until a change is noticed, fetched and published."""


class Readers(Party):
    """Who mirrors a cluster, and who reads it, by one way to a store."""

    async def start(self, addresses: list[str]) -> None:
        self.cluster = FakeCluster()
        self.mirrors = [await self._service(addresses, mirrors=True) for _ in range(2)]
        self.reader = await self._service(addresses, mirrors=False)
        self.versions: list[int] = []
        self.reader.add_listener(lambda event: self.versions.append(event.new.version))
        await self.reader.subscribe(StateComponent, timeout=20)

    async def _service(self, addresses: list[str], *, mirrors: bool) -> ClusterStateService:
        source = self.cluster.source() if mirrors else None
        return await self._stack.enter_async_context(ClusterStateService(await self.connect(addresses), source))

    def change(self) -> None:
        """Let the cluster change; it is seen when it can be."""
        self.cluster.create_index(f"i-{len(self.cluster.indices)}", shards=3)

    async def sees(self, within: float) -> float:
        """Wait until the reader shows the cluster as it is; returns the seconds until it did."""
        now = self.reader._client.runtime.clock.now
        begun = now()
        await until(lambda: self.reader.state.version == self.cluster.version, within)
        assert {*self.reader.state.routing_table} == {*self.reader.state.metadata.indices} == {*self.cluster.indices}
        return now() - begun

    async def changes_and_sees(self, within: float) -> float:
        """Let the cluster change; returns the seconds until the reader shows that."""
        self.change()
        return await self.sees(within)

    def check(self) -> None:
        """No version was told twice, or after a later one."""
        assert self.versions == sorted({*self.versions})


class MirrorRun:
    """What one cluster goes through, and what everybody sees of it."""

    def __init__(self, store: Store, stack: AsyncExitStack) -> None:
        self.store = store
        self.cluster = store.cluster
        self.parties = [Readers(store, way, stack) for way in store.ways]

    async def rage(self) -> None:
        for party in self.parties:
            await party.start(self.store.any_order(random.Random()))
        await self.all_see("at first", SHOWN + BUSY)
        leader = await asyncio.to_thread(self.cluster.leader)
        await asyncio.to_thread(leader.kill)
        await self.all_see("leader killed", self.store.failover + self.store.expiry + TIMEOUT + SHOWN + BUSY)
        await self.quorum_lost(leader)
        await self.mirrors_ended()
        for party in self.parties:
            party.check()

    async def all_see(self, story: str, within: float) -> None:
        """Let all clusters change, and be seen."""
        seconds = await self.each(lambda party: party.changes_and_sees(within))
        print(f"{story}: seen after", *(f"{one:.1f} s" for one in seconds))

    async def each(self, what: Callable[[Readers], Awaitable[Any]]) -> list[Any]:
        return list(await asyncio.gather(*(what(party) for party in self.parties)))

    async def quorum_lost(self, dead: Any) -> None:
        """What is shown stays, and says that it is stale; what changed meanwhile is seen once there is a quorum."""
        second = next(node for node in self.cluster.nodes if node is not dead)
        await asyncio.to_thread(second.kill)
        await self.each(lambda party: until(lambda: party.reader.stale, WATCH_SILENCE + BUSY))
        for party in self.parties:
            assert {*party.reader.state.metadata.indices} == {*party.cluster.indices}
            party.change()
        for node in (dead, second):
            await asyncio.to_thread(node.restore)
        bound = 2 * self.store.failover + self.store.expiry + TIMEOUT + SHOWN + 2 * BUSY
        seconds = await self.each(lambda party: party.sees(bound))
        print("quorum regained: seen after", *(f"{one:.1f} s" for one in seconds))
        await self.each(lambda party: until(lambda: not party.reader.stale, WATCH_SILENCE + BUSY))

    async def mirrors_ended(self) -> None:
        """The one that mirrors ends, and the other goes on."""
        for party in self.parties:
            await until(lambda party=party: any(mirror.mirroring for mirror in party.mirrors), 2 * BUSY)
            leading = next(mirror for mirror in party.mirrors if mirror.mirroring)
            await leading.stop()
        await self.all_see("mirror ended", SHOWN + 2 * BUSY)


@pytest.mark.timeout(300)
async def test_readers_of_a_mirror_outlive_the_leader_and_the_quorum(etcds: Store, consuls: Store) -> None:
    async with AsyncExitStack() as stack:
        runs = [MirrorRun(store, stack) for store in (etcds, consuls)]
        try:
            await asyncio.gather(*(run.rage() for run in runs))
        finally:
            for run in runs:
                await asyncio.to_thread(run.cluster.restore)
