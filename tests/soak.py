"""Churn for minutes on real servers, at whose end memory, tasks and files are as they were: `make soak`.

    python tests/soak.py [--seconds 600] [--leak]

The seconds are those that are measured, behind a warm-up of a third as long again.
`--leak` keeps what a listener hears, to show that a leak is noticed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from attrs import define, field
from footprint import WARM_UP, Sample, verdict

import osdisco
from osdisco.client import Client
from osdisco.discovery import DiscoveryService, ExtensionEvent, ExtensionInfo, ExtensionStatus
from osdisco.testing import ChaosProxy, Servers
from osdisco.testing._stores import in_namespace

EXTENSIONS = 10
CUT_EVERY = 10
"""Rounds between two cuts of all connections."""


@define(eq=False)
class Place:
    """One way to a store, through a proxy that can be cut, with somebody who looks all the time."""

    url: str
    proxy: ChaosProxy
    leak: bool
    seer: DiscoveryService = field(init=False)
    heard: int = 0
    kept: list[Any] = field(factory=list)

    async def begin(self, stack: AsyncExitStack) -> None:
        client = await stack.enter_async_context(osdisco.connect(self.url))
        self.seer = await stack.enter_async_context(DiscoveryService(client))
        await self.seer.wait_known(20)
        self.seer.add_listener(self._hear)

    def _hear(self, event: ExtensionEvent) -> None:
        self.heard += 1
        if self.leak:
            self.kept.append([event, bytearray(4096)])

    async def churn(self, number: int) -> None:
        """Connect, register, change, leave in both ways, and see it."""
        async with osdisco.connect(self.url) as client:
            services = [await self._started(client, f"geo-{number}-{n}") for n in range(EXTENSIONS)]
            await asyncio.gather(*(service.wait_registered(30) for service in services))
            if number % CUT_EVERY == 0:
                self.proxy.cut()
            for status in (ExtensionStatus.HEALTHY, ExtensionStatus.DEGRADED):
                await asyncio.gather(*(service.set_status(status) for service in services))
            await asyncio.gather(*(service.wait_registered(30) for service in services))
            await self._seen(EXTENSIONS)
            await asyncio.gather(*(service.stop() for service in services[::2]))
        await self._seen(0)  # the others went with their client

    async def _started(self, client: Client, id_: str) -> DiscoveryService:
        extension = ExtensionInfo(id_, "geo", "1.0.0", "10.0.0.7", 9700, ["geo.search"], metadata={"zone": "a"})
        return await DiscoveryService(client, extension).start()

    async def _seen(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.seer.extensions) != count:
                await asyncio.sleep(0.01)


async def soak(seconds: float, *, leak: bool) -> list[Sample]:
    """Churn for so long after a warm-up; returns samples of that time."""
    with Servers() as servers:
        etcd, consul = servers.etcd(), servers.consul()
        ways = [(etcd.url, etcd.address), (etcd.gateway_url, etcd.address), (consul.url, consul.address)]
        async with AsyncExitStack() as stack:
            places = []
            for number, (url, address) in enumerate(ways):
                proxy = await stack.enter_async_context(ChaosProxy(address))
                there = in_namespace(url.replace(address, proxy.address), f"soak-{number}-{os.getpid()}")
                places.append(Place(there, proxy, leak))
                await places[-1].begin(stack)
            samples = await _rounds(places, seconds)
            print(f"{len(samples)} samples after the warm-up, {sum(place.heard for place in places):,} events heard")
    return samples


async def _rounds(places: Sequence[Place], seconds: float) -> list[Sample]:
    number = await _churn(places, 0, WARM_UP * seconds)
    begun, samples = time.monotonic(), list[Sample]()

    def look() -> None:
        samples.append(Sample.taken(begun))
        print(samples[-1], flush=True)

    await _churn(places, number, seconds, look)
    return samples


async def _churn(places: Sequence[Place], number: int, seconds: float, look: Callable[[], None] = lambda: None) -> int:
    """Return how many rounds there were by then; looks when all is calm again after a cut."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.gather(*(place.churn(number) for place in places))
        number += 1
        if number % CUT_EVERY == CUT_EVERY - 1:
            look()
    return number


def main() -> int:
    """Return the exit code: 0 when all is flat."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--leak", action="store_true")
    arguments = parser.parse_args()
    samples = asyncio.run(soak(arguments.seconds, leak=arguments.leak))
    wrong = verdict(samples, arguments.seconds)
    print(*wrong or ["flat"], sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
