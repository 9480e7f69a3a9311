"""Simulation of mirrors: whatever happens, what is shown was there, whole, and in the end everybody sees what is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from mirrors import PREFIX, Audit, Seer, Truth, blobs_in
from strikes import STRIKES

from osdisco.cluster import ClusterStateService, MirrorState, StateComponent
from osdisco.testing import FakeCluster, FakeSource, Fault, Scenario, SimulatedProcess, Simulation, scenario

SECONDS = 20.0
"""Of trouble in a seed."""
QUIET = 90.0
"""Seconds after the last fault until all must be well: who gave the leadership away stands again."""
COLLECTED = 150.0
"""Seconds until what is garbage then is gone."""

FAULTS = [Fault.CUT, Fault.UNAVAILABLE, Fault.BUSY, Fault.SLOW, Fault.HANG, Fault.HALF, Fault.WRONG_JSON, Fault.DENIED]


class Mirroring:
    """A cluster that changes all the time, some who may mirror it, and some who only read."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.random = simulation.random
        self.seen = simulation.seen
        self.cluster = FakeCluster(nodes=4)
        self.truth = Truth(self.cluster, simulation.fail)
        self.audit = Audit(simulation.store, simulation.fail)
        self.services: dict[SimulatedProcess, ClusterStateService] = {}
        self.sources: dict[SimulatedProcess, FakeSource] = {}
        self._candidates: dict[SimulatedProcess, bool] = {}

    def start(self, candidate: bool) -> None:
        """Start a process."""
        process = self.simulation.process()
        self._candidates[process] = candidate
        process.start(self._live(process, candidate))

    def restart(self, dead: SimulatedProcess) -> None:
        """A process was killed: another one takes its place."""
        self.services.pop(dead, None)
        self.sources.pop(dead, None)
        self.start(self._candidates[dead])

    async def _live(self, process: SimulatedProcess, candidate: bool) -> None:
        """Follow the cluster, and now and then end it and begin anew."""
        while True:
            source = self.cluster.source() if candidate else None
            service = ClusterStateService(process.client, source)
            if source is not None:
                self.sources[process] = source
            Seer(service, self.truth)
            service.follow(component for component in StateComponent if self.random.random() < 0.8)
            self.services[process] = service
            await service.start()
            if self.simulation.over or self.random.random() < 0.6:
                return
            await asyncio.sleep(self.random.uniform(0, 15))
            await service.stop()
            self.seen["left"] += 1

    def change(self) -> None:
        """Let something change in the cluster, and then again."""
        if self.simulation.over:
            return
        changes = [self._node, self._index, self._shard, self._block, self._silence, self._elect]
        self.random.choice(changes)()
        if self.random.random() < 0.01:
            self.cluster.replace()
            self.seen["replaced"] += 1
        self.seen["changed"] += 1
        self.simulation.later(self.random.choice([0.05, 0.5, 3.0]), self.change)

    def _node(self) -> None:
        id_ = f"n{self.random.randint(2, 6)}"  # the first one stays
        if id_ in self.cluster.nodes and self.random.random() < 0.6:
            self.cluster.leave(id_)
        else:
            self.cluster.join(id_, zone=self.random.choice("abc"), roles=("cluster_manager", "data"))

    def _index(self) -> None:
        name = f"i{self.random.randint(0, 9)}"
        if name in self.cluster.indices:
            self.cluster.delete_index(name)
        else:
            self.cluster.create_index(name, shards=self.random.randint(1, 3), replicas=self.random.randint(0, 1))

    def _shard(self) -> None:
        if self.cluster.indices:
            index = self.random.choice(list(self.cluster.indices))
            self.cluster.move_shard(index, 0, self.random.choice(list(self.cluster.nodes)))

    def _block(self) -> None:
        if self.cluster.indices:
            change = self.random.choice([self.cluster.block, self.cluster.unblock])
            change("read_only", self.random.choice(list(self.cluster.indices)))

    def _silence(self) -> None:
        self.cluster.silence(self.random.choice(list(self.cluster.nodes)), answers=self.random.random() < 0.5)

    def _elect(self) -> None:
        self.cluster.elect(self.random.choice([id_ for id_ in self.cluster.nodes if self.cluster.may_manage(id_)]))

    def operations(self) -> dict[str, Callable[[], object]]:
        """What befalls the cluster, and the ways to it."""
        return {"cluster away": self._away, "candidate cut off": self._cut_off}

    def _away(self) -> None:
        self.cluster.faults.add(self.random.choice(FAULTS), seconds=self.random.uniform(0, 8))
        self.simulation.later(self.random.uniform(0, 8), self.cluster.faults.clear)

    def _cut_off(self) -> bool:
        if not self.sources:
            return False
        faults = self.random.choice(list(self.sources.values())).faults
        faults.add(self.random.choice(FAULTS), seconds=self.random.uniform(0, 8))
        self.simulation.later(self.random.uniform(0, 20), faults.clear)
        return True

    def leaders(self) -> list[SimulatedProcess]:
        """Return who mirrors, as far as it knows itself."""
        leading = (MirrorState.LEADING, MirrorState.AWAY)
        return [process for process, service in self.services.items() if service.mirror.candidate in leading]

    async def end(self) -> None:
        """When it is quiet all show the cluster as it is, and nothing is left that nobody needs."""
        self.cluster.faults.clear()
        for source in self.sources.values():
            source.faults.clear()
        await asyncio.sleep(QUIET)
        for number in range(4):  # the heads that must be told apart from garbage
            self.cluster.create_index(f"last-{number}")
            await asyncio.sleep(5)
        for process, service in self.services.items():
            process.ask(self._check, service)
        await asyncio.sleep(COLLECTED)
        self._check_collected()
        self.seen["published"] += len(self.audit.heads)
        for process, service in self.services.items():
            await process.call(service.stop())
        left = await self.simulation.close()
        assert all(key.startswith("cluster/default/") for key in left), f"left behind: {left}"

    def _check(self, service: ClusterStateService) -> None:
        assert service.stale_reason is None, service.stale_reason
        state = service.state
        assert (state.cluster_uuid, state.version) == (self.cluster.cluster_uuid, self.cluster.version)
        assert state.components == service.components
        self.seen["shown"] += 1

    def _check_collected(self) -> None:
        there = blobs_in(self.simulation.store.scan(PREFIX).items)
        needed = {blob.address for head in self.audit.heads[-3:] for blob in head.blobs()}
        assert there == needed, f"{len(there - needed)} blobs are left, {len(needed - there)} are missing"


OFTEN = {"killed": 0.4, "cluster away": 0.4, "candidate cut off": 0.4, "left": 0.2}


@scenario(often={**STRIKES, **OFTEN, "changed": 8, "published": 6, "shown": 3})
async def mirrors(simulation: Simulation) -> None:
    """Two or three may mirror, and each may be ended, cut off from the store, or from the cluster, at any moment."""
    mirroring = Mirroring(simulation)
    for candidate in (True, True, simulation.random.random() < 0.5, False):
        mirroring.start(candidate)
    mirroring.change()
    also = mirroring.operations()
    await simulation.trouble(SECONDS, restart=mirroring.restart, also=also, victims=mirroring.leaders)
    await mirroring.end()


@pytest.mark.timeout(900)
def test_whatever_happens(osdisco_simulate: Callable[[Scenario], None]) -> None:
    osdisco_simulate(mirrors)
