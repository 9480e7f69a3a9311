"""Churn for minutes on real servers, at whose end memory, tasks and files are as they were: `make soak`.

    python tests/soak.py [--seconds 600] [--leak]

`--leak` keeps what a listener hears, to show that a leak is noticed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import stat
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Self

from attrs import define, field

import osdisco
from osdisco.client import Client
from osdisco.discovery import DiscoveryService, ExtensionEvent, ExtensionInfo, ExtensionStatus
from osdisco.testing import ChaosProxy, Servers
from osdisco.testing._stores import in_namespace

GROWTH_MOST = 2 * 2**20
"""Bytes that the process may grow by after it has warmed up."""
WARM_UP = 0.3
"""The share of the time before that."""
EXTENSIONS = 10
CUT_EVERY = 10
"""Rounds between two cuts of all connections."""


@define
class Sample:
    """What the process holds between two rounds, when nothing is registered."""

    at: float
    resident: int
    tasks: int
    sockets: int
    descriptors: int
    threads: int

    @classmethod
    def taken(cls, begun: float) -> Self:
        gc.collect()
        with open("/proc/self/statm") as statm:
            resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")
        kinds, tasks = descriptors(), asyncio.all_tasks()
        threads = len(os.listdir("/proc/self/task"))  # those of C libraries, too
        at = time.monotonic() - begun
        return cls(at, resident, len(tasks), sum(map(stat.S_ISSOCK, kinds)), len(kinds), threads)

    def __str__(self) -> str:
        return (
            f"{self.at:5.0f} s: {self.resident / 2**20:7.2f} MiB, {self.tasks} tasks, {self.sockets} sockets, "
            f"{self.descriptors} descriptors, {self.threads} threads"
        )


COUNTED = ("tasks", "sockets", "descriptors", "threads")
CHURNING = COUNTED[:3]
"""What is counted while clients are open: gRPC keeps as many threads as it finds useful then."""


def descriptors() -> list[int]:
    """Return the mode of each open file descriptor."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            found.append(os.stat(f"/proc/self/fd/{name}").st_mode)
    return found


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
    """Return samples, one for each round after the warm-up."""
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
            print(f"{len(samples)} rounds after the warm-up, {sum(place.heard for place in places):,} events heard")
    return samples


async def _rounds(places: Sequence[Place], seconds: float) -> list[Sample]:
    begun, number, samples = time.monotonic(), 0, list[Sample]()
    while (passed := time.monotonic() - begun) < seconds:
        await asyncio.gather(*(place.churn(number) for place in places))
        number += 1
        if passed > WARM_UP * seconds and number % CUT_EVERY == CUT_EVERY - 1:  # all is calm again after a cut
            samples.append(Sample.taken(begun))
            print(samples[-1])
    return samples


def verdict(samples: Sequence[Sample]) -> list[str]:
    """Return what is not flat: the last third of the samples against the first."""
    before, after = _ends(samples)
    wrong = []
    grown = growth(samples)
    print(f"grown by {grown / 2**20:.2f} MiB")
    if grown > GROWTH_MOST:
        wrong.append(f"memory grew by {grown / 2**20:.2f} MiB; {GROWTH_MOST / 2**20:.0f} are allowed")
    for what in CHURNING:
        most, least = max(getattr(one, what) for one in before), min(getattr(one, what) for one in after)
        if least > most:  # idle connections come and go
            wrong.append(f"{most} {what} at most at first, and {least} at least in the end")
    return wrong


def growth(samples: Sequence[Sample]) -> float:
    """Return by how many bytes the process grew from the first third of the samples to the last."""
    before, after = (statistics.median(sample.resident for sample in part) for part in _ends(samples))
    return after - before


def _ends(samples: Sequence[Sample]) -> tuple[Sequence[Sample], Sequence[Sample]]:
    third = max(len(samples) // 3, 1)
    return samples[:third], samples[-third:]


def main() -> int:
    """Return the exit code: 0 when all is flat."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--leak", action="store_true")
    arguments = parser.parse_args()
    samples = asyncio.run(soak(arguments.seconds, leak=arguments.leak))
    wrong = verdict(samples) if len(samples) >= 2 else ["too short to tell anything"]
    print(*wrong or ["flat"], sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
