"""Nobody sees, by any way to a cluster whose nodes fail, what one store that does one thing at a time could not show.

Many clients read, write and watch the same keys while one fault after the other strikes. Then: all keys are
linearizable, no acknowledged write is lost, and every watch is complete on etcd and arrives on Consul. A run counts
only if much was done: before the first fault, and in all.

Some faults by chance, or with `--all-faults` all of them, at leaders and at others; `OSDISCO_TEST_CLUSTER_SEED` runs
one again.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest
from attack import Fault, plan
from cluster_rooms import EVERYWHERE, Party, Store

from osdisco.client import Client
from osdisco.testing.histories import Outcome
from osdisco.testing.traffic import Traffic, Watcher
from osdisco.testing.watched import Log
from osdisco.view import View

OPERATIONS = 5_000
RATE = 50
"""Operations a second before the first fault."""
CALM = 3.0
STRIKES = {"etcd": 3, "consul": 2}
"""Faults by chance in a run of all suites."""
WORKERS = 12
WATCHERS = 3
SETTLED = 60.0


class Way(Party):
    """One way to a store, and the traffic on it."""

    def __init__(self, store: Store, name: str, chance: random.Random, stack: AsyncExitStack) -> None:
        super().__init__(store, name, stack)
        self.traffic = Traffic(chance, keys=6, pause=0.04)
        self._chance = chance
        self._view: View | None = None
        self._begin = 0
        self._log: Log | None = None

    async def _client(self) -> Client:
        """Return a client that prefers any of the nodes."""
        return await self.connect(self._store.any_order(self._chance))

    async def start(self) -> None:
        """Let everybody begin; two workers share a client, a watcher has one of its own."""
        first = await self._client()
        self._begin = (await first.scan("traffic/")).revision
        self._view = await self._stack.enter_async_context((await self._client()).view("traffic/"))
        for number in range(WORKERS):
            first = first if number % 2 else await self._client()
            self.run(self.traffic.work(first, f"{self.way} {number}"))
        for number in range(WATCHERS):
            watcher = self.traffic.watcher(await self._client(), restless=0.01 * number)
            self.run(watcher.watch())

    async def done(self) -> int:
        """Return how many operations have been answered; raises what went wrong in a task."""
        for task in self.tasks:
            if task.done():
                await task
        counts = self.traffic.history.counts()
        return counts[Outcome.DONE.value] + counts[Outcome.REFUSED.value]

    async def end(self, *, log: bool) -> None:
        """Stop, and wait until all have seen everything; with `log`, read all changes."""
        self.traffic.over = True
        client = await self._client()
        await self.traffic.settle(client, SETTLED)
        await self.done()
        assert self._view is not None
        final = (await client.scan("traffic/")).items
        await self._view.until(lambda items: items == final, SETTLED)
        if log:
            self._log = await self._read(client)
        await self.stop()

    def problems(self) -> list[str]:
        """Return what cannot have been. It may take seconds, so nobody may wait for an answer meanwhile."""
        return [f"{self.way}: {problem}" for problem in self.traffic.problems(self._log)]

    async def _read(self, client: Client) -> Log:
        """Read all changes since the beginning from a cluster that is well again."""
        watcher = Watcher(client, "traffic/", self._chance)
        reading = asyncio.ensure_future(watcher.watch(self._begin))
        final = (await client.scan("traffic/")).items
        async with asyncio.timeout(SETTLED):
            while watcher.items != final:
                await asyncio.sleep(0.1)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        return Log(watcher.frames)

    def trouble(self) -> int:
        """Return how often its clients have noticed that something is wrong."""
        answered = [one for one in self.traffic.history.operations if one.end < math.inf]  # others are on their way
        trouble = sum(one.outcome in (Outcome.UNKNOWN, Outcome.FAILED) for one in answered)
        return trouble + sum(watcher.breaks for watcher in self.traffic.watchers)

    def told(self) -> str:
        """Return what the run was worth."""
        watchers = self.traffic.watchers
        broken, resumed = sum(watcher.breaks for watcher in watchers), sum(watcher.resumed for watcher in watchers)
        counts = dict(self.traffic.history.counts())
        return f"{self.way}: {counts}, longest time without a write {self._gap():.1f} s, watches {broken=} {resumed=}"

    def _gap(self) -> float:
        written = sorted(one.end for one in self.traffic.history.operations if one.revision is not None)
        return max(later - earlier for earlier, later in pairwise(written))


class HistoryRun:
    """One cluster, by all ways to it."""

    def __init__(self, store: Store, chance: random.Random, stack: AsyncExitStack) -> None:
        self.store = store
        self.etcd = "grpc" in store.ways
        self.ways = [Way(store, name, chance, stack) for name in store.ways]
        self.told: list[str] = []
        self._chance = chance
        self._now = asyncio.get_running_loop().time

    def plan(self, chance: random.Random, all_faults: bool) -> list[tuple[Fault, bool]]:
        """Return all faults, or some by chance."""
        number = STRIKES["etcd" if self.etcd else "consul"]
        return plan(chance, etcd=self.etcd, number=None if all_faults else number)

    async def rage(self, faults: Sequence[tuple[Fault, bool]]) -> None:
        """Strike with one fault after the other."""
        for way in self.ways:
            await way.start()
        await self._warm_up()
        for fault, leads in faults:
            await self._strike(fault, leads)
        while min((await self._done()).values()) < OPERATIONS:
            await asyncio.sleep(0.2)
        await asyncio.gather(*(way.end(log=self.etcd) for way in self.ways))

    async def _warm_up(self) -> None:
        """Begin when enough is done, so that faults meet it."""
        for _ in range(5):
            before = await self._done()
            await asyncio.sleep(CALM)
            rates = {name: (done - before[name]) / CALM for name, done in (await self._done()).items()}
            if min(rates.values()) >= RATE:
                return
        raise AssertionError(f"void: not {RATE} operations a second before the first fault, but {rates}")

    async def _strike(self, fault: Fault, leads: bool) -> None:
        begun, before = self._now(), self.trouble()
        strike = await asyncio.to_thread(fault.strike, self.store.cluster, leads)
        self.told.append(strike.story)
        if not fault.whole:
            await asyncio.sleep(self._chance.uniform(0.5, 1) * self.store.failover + 1)
        done, healed = await asyncio.to_thread(strike.done), self._now()
        await asyncio.to_thread(self.store.cluster.restore)
        self.told[-1] += f": {healed - begun:.1f} s, healthy {self._now() - healed:.1f} s later"
        await self._done()
        assert done or self.trouble() > before, f"void: nobody noticed {self.told[-1]}"

    async def _done(self) -> Counter[str]:
        return Counter({way.way: await way.done() for way in self.ways})

    async def stop(self) -> None:
        """Leave nothing running, and the cluster healthy."""
        for way in self.ways:
            await way.stop()
        await asyncio.to_thread(self.store.cluster.restore)
        print(*self.told, *(way.told() for way in self.ways), sep="\n")

    def trouble(self) -> int:
        """Return how often clients have noticed that something is wrong."""
        return sum(way.trouble() for way in self.ways)


@pytest.mark.usefixtures("packet_filters")
@pytest.mark.timeout(300)
@pytest.mark.fault("F1", "F2", "F3", "F4", "F5", "F6", "F7", "F8", "F9", "F10", "F11", on=EVERYWHERE)
async def test_what_clients_saw_in_a_storm_is_what_one_store_can_show(
    etcds: Store, consuls: Store, all_faults: bool, cluster_seed: int
) -> None:
    async with AsyncExitStack() as stack:
        runs = [HistoryRun(store, random.Random(cluster_seed), stack) for store in (etcds, consuls)]
        plans = [run.plan(random.Random(cluster_seed), all_faults) for run in runs]
        try:
            await asyncio.gather(*(run.rage(faults) for run, faults in zip(runs, plans, strict=True)))
        finally:
            for run in runs:
                await run.stop()
    found = [problem for run in runs for way in run.ways for problem in way.problems()]
    assert not found, "\n".join(found)
    assert sum(run.trouble() for run in runs), "void: nobody noticed anything"
