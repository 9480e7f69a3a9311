"""A watch at a member that is cut off, and does not say so, moves to another one in time and misses nothing.

The client does nothing but watch, so no other call can tell it. etcd forgets its history meanwhile, every second time;
where the member led, another one takes over at the same moment. One case by chance, or with `--all-faults` all of them;
`OSDISCO_TEST_CLUSTER_SEED` runs one again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from cluster_rooms import EVERYWHERE, TIMEOUT, Party, Store

from osdisco.backend import WATCH_SILENCE, Batch, Delete, Item, Put
from osdisco.client import Client
from osdisco.errors import OsdiscoError
from osdisco.testing.traffic import Watcher
from osdisco.testing.watched import Log, watch_problems

CASES = [
    (fault, leads, compacts)
    for fault in ("disconnect", "deafen", "mute", "pause")
    for leads in (True, False)
    for compacts in (True, False)
]
CHANGES = 40
BUSY = 2.0
"""Seconds that a machine which does other things may take longer."""
SOON = 15.0
"""Seconds for what is not measured."""


class Silent(Party):
    """One way to a store: a watch at the node that falls silent, one at the others, and who writes through those."""

    def __init__(self, store: Store, way: str, node: Any, others: Sequence[str], stack: AsyncExitStack) -> None:
        super().__init__(store, way, stack)
        self.clients: dict[str, Client] = {}
        self.frames: dict[str, Watcher] = {}
        self.seconds = 0.0
        self._addresses = {"silent": [node.address, *others], "other": list(others)}
        self._chance = random.Random(way)

    async def start(self) -> None:
        """Watch what is empty; returns when both watches have shown the first changes."""
        for name, addresses in self._addresses.items():
            self.clients[name] = client = await self.connect(addresses)
            self.frames[name] = watcher = Watcher(client, "watched/", self._chance)
            self.run(watcher.watch())
        await self._until(lambda: all(watcher.frames for watcher in self.frames.values()), SOON)
        await self.is_seen(await self.write("first"), SOON)
        assert endpoint_of(self.clients["silent"]) == 0

    async def write(self, what: str) -> dict[str, Item]:
        """Put and delete through the others; returns what is there then."""
        client = self.clients["other"]
        for number in range(CHANGES):
            name = f"watched/{number % 7}"
            op = Delete(name) if number % 5 == 4 else Put(name, f"{what} {number}".encode())
            await written(client, op)
        return dict((await client.scan("watched/")).items)

    async def is_seen(self, final: dict[str, Item], within: float) -> None:
        """Wait until the silent watch shows what is there."""
        await self._until(lambda: self._shows(final), within)

    async def moves(self, final: dict[str, Item]) -> None:
        """Wait until it has left the member, which may hear of what is written for a while, and shows what is there.

        Nothing is written any more, so that it is silent from now on at the latest.
        """
        now = asyncio.get_running_loop().time
        begun = now()
        await self._until(self._has_moved, WATCH_SILENCE + BUSY)
        self.seconds = now() - begun
        await self._until(lambda: self._shows(final) and self._has_moved(), TIMEOUT + BUSY)

    async def is_logged(self, final: dict[str, Item]) -> None:
        """Wait until the other watch has seen all: what is compacted afterwards is nothing to it."""
        await self._until(lambda: self.frames["other"].items == final, SOON)

    def problems(self, *, etcd: bool, final: dict[str, Item]) -> list[str]:
        """Return what the silent watch must not have shown, or not have left out.

        The other one may be opened anew while nothing is written, from what is compacted by then, and shows the same.
        """
        first, *rest = self.frames["other"].frames
        log = Log([first, *(frame for frame in rest if isinstance(frame, Batch))]) if etcd else None
        return watch_problems(self.frames["silent"].frames, log=log, final=final)

    def _has_moved(self) -> bool:
        return endpoint_of(self.clients["silent"]) != 0

    def _shows(self, final: dict[str, Item]) -> bool:
        return bool(final) and self.frames["silent"].items == final

    async def _until(self, condition: Any, seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.02)


async def written(client: Client, op: Put | Delete) -> None:
    """Write until it is done: the lead may be changing, and the same again does no harm."""
    while True:
        try:
            await client.commit([op])
            return
        except OsdiscoError:
            await asyncio.sleep(0.05)


def endpoint_of(client: Client) -> int:
    wire = client.backend._wire  # type: ignore[attr-defined]
    return int(wire.endpoint if hasattr(wire, "endpoint") else wire._current)


def one_by_chance(seed: int) -> list[tuple[str, bool, bool]]:
    """Return one in which the member itself goes on: other tests freeze one."""
    return [random.Random(seed).choice([case for case in CASES if case[0] != "pause"])]


@pytest.mark.usefixtures("packet_filters")
@pytest.mark.timeout(120)
@pytest.mark.fault("F2", "F3", "F5", "F6", on=EVERYWHERE)
@pytest.mark.fault("F19", on=EVERYWHERE[:2])
async def test_a_watch_at_a_member_that_is_cut_off_moves_and_misses_nothing(
    etcds: Store, consuls: Store, all_faults: bool, cluster_seed: int
) -> None:
    for fault, leads, compacts in CASES if all_faults else one_by_chance(cluster_seed):
        print(f"{fault} of {'the leader' if leads else 'another'}{', compacted' * compacts}:")
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            for store in (etcds, consuls):
                group.create_task(fall_silent(store, fault, leads, compacts, stack))


async def fall_silent(store: Store, fault: str, leads: bool, compacts: bool, stack: AsyncExitStack) -> None:
    leader = await asyncio.to_thread(store.cluster.leader)
    node = leader if leads else next(each for each in store.cluster.nodes if each is not leader)
    others = [each for each in store.cluster.nodes if each is not node]
    ways = [Silent(store, way, node, [each.address for each in others], stack) for way in store.ways]
    etcd = "grpc" in store.ways
    try:
        await asyncio.gather(*(way.start() for way in ways))
        await asyncio.to_thread(getattr(node, fault))
        finals = await asyncio.gather(*(way.write("then") for way in ways))
        if compacts and etcd:
            await asyncio.gather(*(way.is_logged(final) for way, final in zip(ways, finals, strict=True)))
            await asyncio.to_thread(compact, others[0])
        await asyncio.gather(*(way.moves(final) for way, final in zip(ways, finals, strict=True)))
        print(*(f"{way.way}: moved after {way.seconds:.1f} s" for way in ways), sep=", ")
        finals = await asyncio.gather(*(way.write("at last") for way in ways))
        await asyncio.gather(*(way.is_seen(final, SOON) for way, final in zip(ways, finals, strict=True)))
        await asyncio.gather(*(way.is_logged(final) for way, final in zip(ways, finals, strict=True)))
        for way, final in zip(ways, finals, strict=True):
            assert not (found := way.problems(etcd=etcd, final=final)), "\n".join([way.way, *found])
    finally:
        await asyncio.gather(*(way.stop() for way in ways))
        await asyncio.to_thread(store.cluster.restore)


def compact(node: Any) -> None:
    """Let etcd forget everything but what is there."""
    revision = node.admin("POST", "/v3/kv/range", {"key": "YQ=="})["header"]["revision"]
    node.admin("POST", "/v3/kv/compaction", {"revision": revision, "physical": True})
