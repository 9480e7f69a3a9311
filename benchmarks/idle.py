"""What waiters that only wait take: memory, watches, sockets, requests."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import osdisco
from benchmarks.contender import NAME
from benchmarks.crew import crew
from benchmarks.figures import Figure
from benchmarks.stores import served
from osdisco.coordination import CoordinationService

GROUP = "1,000 idle waiters in a process"
BYTES_MOST = 6 * 1024
AT_ONCE = 50
SETTLING = 10.0
"""Seconds until a watch that many share has caught up with what they looked at."""


async def measure(kind: str, url: str, waiters: int, names: int, seconds: float) -> list[Figure]:
    """Let a process wait in one lock, or in many, that we hold; count what it asks for during `seconds`."""
    traced = await _said(kind, url, waiters, names, 0, traced=True)
    said = await _said(kind, url, waiters, names, seconds, traced=False)
    grown = {what: said["after"][what] - said["before"][what] for what in ("resident", "sockets")}
    objects = (traced["after"]["traced"] - traced["before"]["traced"]) / waiters
    where = f"{kind}: {waiters:,} waiters of {names:,} lock{'s' if names > 1 else ''}"
    # of the session, of requests to go, and one that all over it share
    most = min(names, said["watches_max"]) + 3
    bytes_most = BYTES_MOST if names == 1 else None  # else each has its watch and its lock, too
    against = "one for each name, within what the store takes"
    sockets = {"sockets": grown["sockets"]}
    figures = [
        Figure(GROUP, f"{where}: memory of each, Python's objects", objects, "bytes", most=bytes_most),
        Figure(GROUP, f"{where}: memory of each, resident", grown["resident"] / waiters, "bytes", most=bytes_most),
        Figure(GROUP, f"{where}: watches", said["watches"], "", against, most=most, detail=sockets),
    ]
    if "kinds" in said:
        asked, entering = said["kinds"], said["entering"]
        figures += [
            Figure(GROUP, f"{where}: requests while idle", float(sum(asked.values())), "a minute", detail=asked),
            Figure(GROUP, f"{where}: requests of each to enter", float(sum(entering.values())), "", detail=entering),
            Figure(GROUP, f"{where}: until all stood in the queue", said["seconds"], "s"),
        ]
    return figures


async def _said(kind: str, url: str, waiters: int, names: int, seconds: float, *, traced: bool) -> dict[str, Any]:
    spec: dict[str, object] = {"do": "idle", "waiters": waiters, "names": names, "traced": traced}
    if kind == "memory":
        return await _said_alone(spec | {"url": url, "held": True})
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(served(kind, url))
        client = await stack.enter_async_context(osdisco.connect(url))
        service = CoordinationService(client)
        held = [service.lock(NAME if names == 1 else f"{NAME}{number}") for number in range(names)]
        for some in range(0, names, AT_ONCE):  # they are given back all at once by the session's end
            await asyncio.gather(*(lock.acquire() for lock in held[some : some + AT_ONCE]))
        (member,) = await stack.enter_async_context(crew(spec | {"url": store.url}))
        before, start = await store.so_far(), time.perf_counter()
        await member.said()
        async with asyncio.timeout(120):
            while len((await client.scan("lock/")).items) < waiters + names:
                await asyncio.sleep(0.1)
        took = time.perf_counter() - start
        await asyncio.sleep(SETTLING)
        queued = await store.so_far()
        member.go_on()
        said = await member.said()
        idle = await store.so_far()
        await asyncio.sleep(seconds)
        asked = await store.so_far() - idle
    said["seconds"] = took
    said["kinds"] = {name: number / max(seconds, 1) * 60 for name, number in sorted(asked.items())}
    said["entering"] = {name: number / waiters for name, number in sorted((queued - before).items())}
    said["watches_max"] = client.limits.watches_max
    return said


async def _said_alone(spec: dict[str, object]) -> dict[str, Any]:
    """The store is in the process, holder and all: its own memory counts, and nothing is sent."""
    async with crew(spec) as (member,):
        await member.said()
        await asyncio.sleep(3)
        member.go_on()
        said = await member.said()
        member.go_on()
    return said | {"watches_max": 1000}
