"""Processes that probe, and what they reach: what tests of probing use. No socket is opened."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import Any

from extensions import observer, registered
from worlds import World

from osdisco.discovery import (
    CheckFailedError,
    DiscoveryService,
    FindingState,
    Probing,
)
from osdisco.discovery.probing import HttpProbe

PASSING, FAILING, REFUSED = FindingState


class Net:
    """What probes reach: hosts in `ill` fail, those in `refused` are refused. `asked` are the times by host.

    Those in `stuck` do not answer, and a probe of one takes a second to end.
    """

    def __init__(self, world: World) -> None:
        self.ill: set[str] = set()
        self.refused: set[str] = set()
        self.stuck: set[str] = set()
        self.asked: dict[str, list[tuple[float, str]]] = defaultdict(list)
        self._now = world.clock.now

    async def run(self, probe: HttpProbe) -> None:
        host = probe.target.host
        task = asyncio.current_task()
        assert task is not None
        self.asked[host].append((self._now(), task.get_name()))
        if host in self.stuck:
            try:
                await asyncio.sleep(1000)
            finally:
                await asyncio.sleep(1)
        probe.refused[0] = host in self.refused
        if host in self.refused:
            raise CheckFailedError("not allowed")
        if host in self.ill:
            raise CheckFailedError("HTTP 503")

    def count(self) -> Counter[str]:
        return Counter({host: len(times) for host, times in self.asked.items()})


def probing(**options: Any) -> Probing:
    return Probing(allow=["10.0.0.0/8"], **options)


async def prober(world: World, name: str = "", **options: Any) -> DiscoveryService:
    """Start a process that probes, and has no extension of its own."""
    return await DiscoveryService(world.process(name), probing=probing(**options)).start()


async def extensions(world: World, count: int) -> DiscoveryService:
    """Register extensions at 10.0.0.1 and so on; returns one that observes."""
    client = world.process()
    for number in range(1, count + 1):
        await registered(client, f"x{number}", host=f"10.0.0.{number}")
    return await observer(world.process())


def shares(*probers: DiscoveryService) -> dict[str, int]:
    """Return how many of the probers probe each extension."""
    return dict(Counter(id_ for one in probers for id_ in one._prober.endpoints))  # type: ignore[union-attr]


async def states(seer: DiscoveryService, id_: str) -> list[FindingState]:
    return [finding.state for finding in (await seer.findings()).get(id_, ())]
