"""From SIGKILL of a holder to the next one's acquire, beside the moment at which the store itself lets the key go."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import AsyncExitStack

import osdisco
from benchmarks.bare import Bare, bare
from benchmarks.crew import Member, all_say, crew
from benchmarks.figures import Figure
from benchmarks.stores import address_of
from osdisco.coordination import CoordinationService

GROUP = "Failover after the holder is killed"


async def measure(kind: str, url: str, ttl: float, holders: int) -> Figure:
    """Kill the holders of several locks, in processes of their own, a little apart from each other.

    The store's own expiry is what a bare watch of the very key that the holder held sees, so both have the same lease.
    """
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(osdisco.connect(url))
        store = await stack.enter_async_context(bare(kind, address_of(kind, url)))
        specs: list[dict[str, object]] = [
            {"do": "hold", "url": f"{url}?ttl={ttl:g}s", "name": f"failover{number}"} for number in range(holders)
        ]
        members = await stack.enter_async_context(crew(*specs))
        keys = [said["key"] for said in await all_say(members)]
        service = CoordinationService(client)
        ends = [
            asyncio.create_task(_end_of(store, service, member, key, number))
            for number, (member, key) in enumerate(zip(members, keys, strict=True))
        ]
        times = await asyncio.gather(*ends)
    return _figure(kind, ttl, times)


async def _end_of(
    store: Bare, service: CoordinationService, member: Member, key: str, number: int
) -> tuple[float, float]:
    """Return the seconds from the kill until the key was gone, and until the next one held."""
    gone = asyncio.create_task(_when(store.wait_gone(key)))
    held = asyncio.create_task(_when(_acquired(service, f"failover{number}")))
    await asyncio.sleep(1 + number * 0.37)  # at another point of the time between two renewals for each
    killed = time.monotonic()
    member.kill()
    return await gone - killed, await held - killed


async def _when(event: object) -> float:
    await event  # type: ignore[misc]
    return time.monotonic()


async def _acquired(service: CoordinationService, name: str) -> None:
    await service.lock(name).acquire()


def _figure(kind: str, ttl: float, times: list[tuple[float, float]]) -> Figure:
    late = [held - gone for gone, held in times]
    detail = {
        "expiry s, median": statistics.median(gone for gone, _ in times),
        "expiry s, max": max(gone for gone, _ in times),
        "next holder s, median": statistics.median(held for _, held in times),
        "next holder s, max": max(held for _, held in times),
        "kills": len(times),
    }
    name = f"{kind}, ttl {ttl:g} s: next holder after the store's expiry, max"
    against = "a bare watch of the same leased key"
    return Figure(GROUP, name, max(late), "s", against, most=0.2, detail=detail)
