"""What processes of `benchmarks.contender` do with a search cluster's state: mirror it, read it, read a plain blob."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import zlib
from contextlib import AsyncExitStack
from typing import Any

import osdisco
from benchmarks.bare import bare
from benchmarks.pipe import say, told_by_parent
from osdisco.cluster import ClusterStateService, OpenSearchHttpSource, StateComponent, StateVersion

TICK = 0.001
"""Seconds between two ticks."""


class Ticker:
    """Notes for how long the event loop ran other things than it: the longest time since it was last asked.

    With the processor's time that this process took meanwhile, in all threads: where that is much less, other processes
    of the machine held it up.
    """

    def __init__(self) -> None:
        self._longest = 0.0, 0.0

    async def run(self) -> None:
        """Tick until cancelled."""
        last, used = time.monotonic(), time.process_time()
        while True:
            await asyncio.sleep(TICK)
            now, so_far = time.monotonic(), time.process_time()
            self._longest = max(self._longest, (now - last - TICK, so_far - used))
            last, used = now, so_far

    def longest(self) -> tuple[float, float]:
        """Return the longest time, with the processor's, and begin anew."""
        longest, self._longest = self._longest, (0.0, 0.0)
        return longest


class Noting(OpenSearchHttpSource):
    """A source that notes when it first saw each version, and when it had the state."""

    def __init__(self, nodes: str) -> None:
        super().__init__(nodes)
        self.seen: dict[int, float] = {}
        self.had = 0.0

    async def version(self) -> StateVersion:
        """Ask, and note."""
        version = await super().version()
        self.seen.setdefault(version.version, time.monotonic())
        return version

    async def state(self) -> bytes:
        """Ask, and note."""
        body = await super().state()
        self.had = time.monotonic()
        return body


async def mirror_cluster(url: str, source: str) -> None:
    """Mirror, and say for each line when the newest version was seen, and how long the event loop was held."""
    told, ticker = await told_by_parent(), Ticker()
    async with (
        osdisco.connect(url) as client,
        Noting(source) as asked,
        ClusterStateService(client, asked) as service,
    ):
        await service.wait_for(lambda state: True)
        ticking = asyncio.create_task(ticker.run())
        say(ready=True)
        while await told.readline():
            newest = max(asked.seen)
            say(seen=asked.seen[newest], had=asked.had, held=ticker.longest())
        ticking.cancel()


async def read_cluster(url: str, count: int) -> None:
    """Read by so many clients, and say for each line when each of them has the version that stands in it."""
    told, ticker = await told_by_parent(), Ticker()
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(osdisco.connect(url)) for _ in range(count)]
        services = [await stack.enter_async_context(ClusterStateService(client)) for client in clients]
        await asyncio.gather(*(service.subscribe(StateComponent) for service in services))
        gc.collect()
        gc.freeze()
        ticking = asyncio.create_task(ticker.run())
        say(ready=True)
        while line := await told.readline():
            version = int(line)
            applied = await asyncio.gather(*(_applied(service, version) for service in services))
            fetched = sum(service.mirror.fetched for service in services)
            say(applied=applied, held=ticker.longest(), fetched=fetched)
        ticking.cancel()


async def _applied(service: ClusterStateService, version: int) -> float:
    await service.wait_for(lambda state: state.version >= version)
    return time.monotonic()


async def read_blob(kind: str, address: str, prefix: str, count: int) -> None:
    """For each line read a blob so many times at once, decode it each time, and say when each was done.

    They need not be told of it by the store, have one connection between them, and share nothing that they decode.
    """
    told = await told_by_parent()
    async with bare(kind, address) as store:

        async def one() -> float:
            pieces = await store.items(prefix)
            state: dict[str, Any] = json.loads(zlib.decompress(b"".join(pieces[key] for key in sorted(pieces))))
            done = time.monotonic()
            assert state["version"]
            return done

        gc.collect()
        gc.freeze()
        say(ready=True)
        while await told.readline():
            say(applied=await asyncio.gather(*(one() for _ in range(count))))
