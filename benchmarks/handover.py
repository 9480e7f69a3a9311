"""From a release to the next holder's return, with many in the queue, beside single round trips at the same pace."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import osdisco
from benchmarks.bare import bare, round_trips
from benchmarks.contender import NAME
from benchmarks.crew import Member, all_say, crew
from benchmarks.figures import Figure
from benchmarks.stores import address_of, served
from osdisco.coordination import CoordinationService, DistributedLock

GROUP = "Handover on release"
PROCESSES = 4
HOLD = 0.015
"""Seconds that each holds and each rests: what a turn sets off has died down before the next."""

Turn = tuple[int, float, float]


async def measure(kind: str, url: str, waiters: int, seconds: float) -> list[Figure]:
    """Return how long handovers take among `waiters`, to another process and within one."""
    per_process = waiters // PROCESSES
    spec: dict[str, object] = {
        "do": "chain", "url": url, "waiters": per_process, "hold": HOLD, "pause": HOLD, "laps": 0, "spread": 2.0
    }  # fmt: skip
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(osdisco.connect(url))
        store = await stack.enter_async_context(bare(kind, address_of(kind, url)))
        lock = CoordinationService(client).lock(NAME)
        async with lock:
            members = await stack.enter_async_context(crew(*[spec] * PROCESSES))
            await queued(lock, members, PROCESSES * per_process)
            ended = asyncio.Event()
            bare_trips = asyncio.create_task(round_trips(store, "bare/", HOLD, ended))
        await asyncio.sleep(seconds)
        ended.set()
        trips = await bare_trips
        for member in members:
            member.go_on()
        said = await all_say(members)
    return _figures(kind, waiters, said, trips)


async def queued(lock: DistributedLock, members: Sequence[Member], waiters: int) -> None:
    """Return when all stand in the queue behind us."""
    async with asyncio.timeout(120):
        await all_say(list(members))
        while len(await lock.contenders()) < waiters + 1:
            await asyncio.sleep(0.05)


def _figures(kind: str, waiters: int, said: list[dict[str, Any]], trips: Mapping[str, Sequence[float]]) -> list[Figure]:
    turns = sorted((tuple(turn), member["pid"]) for member in said for turn in member["turns"])
    gaps: dict[bool, list[float]] = {True: [], False: []}
    for (before, its_pid), (after, pid) in pairwise(turns):
        gaps[its_pid == pid].append(after[1] - before[2])
    write, read = (statistics.median(trips[what]) for what in ("write", "read"))
    figures = []
    for same, where in ((False, "to another process"), (True, "within a process")):
        found = gaps[same]
        detail = {
            "p50 ms": statistics.median(found) * 1e3,
            "p95 ms": sorted(found)[int(len(found) * 0.95)] * 1e3,
            "bare write ms": write * 1e3,
            "bare read ms": read * 1e3,
            "handovers": len(found),
        }
        against = "one round trip: a bare write at the same pace"
        name = f"{kind}, {waiters} waiters: {where}"
        figures.append(
            Figure(GROUP, name, statistics.median(found) / write, "round trips", against, most=2, detail=detail)
        )
    return figures


async def requests(kind: str, url: str, crowds: Sequence[int]) -> list[Figure]:
    """Count what the store is sent for each release, by how many wait; each of them waits in one of a few processes."""
    counts = {waiters: await _requests(kind, url, waiters) for waiters in crowds}
    total = {waiters: sum(found.values()) for waiters, found in counts.items()}
    figures = []
    for waiters in crowds:
        limit = total[crowds[0]] * 1.15
        name = f"{kind}, {waiters} waiters: requests for each release"
        figures.append(
            Figure(GROUP, name, total[waiters], "", "the smallest crowd", most=limit, detail=counts[waiters])
        )
    return figures


async def _requests(kind: str, url: str, waiters: int, releases: int = 8) -> dict[str, float]:
    """Count requests over some turns of a queue in which all stand already and nobody comes again."""
    sizes = [waiters // PROCESSES + (number < waiters % PROCESSES) for number in range(PROCESSES)]
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(served(kind, url))
        client = await stack.enter_async_context(osdisco.connect(store.url))
        lock = CoordinationService(client).lock(NAME)
        guard = await lock.acquire()
        specs: list[dict[str, object]] = [
            {"do": "chain", "url": store.url, "waiters": size, "hold": 0.3, "pause": 0, "laps": 1} for size in sizes
        ]
        members = await stack.enter_async_context(crew(*specs))
        await queued(lock, members, waiters)
        await asyncio.sleep(1)
        before = await store.so_far()
        await guard.release()
        await asyncio.sleep(0.3 * releases)
        served_now = await store.so_far() - before
        return _without_upkeep(served_now, releases)


def _without_upkeep(counts: Counter[str], releases: int) -> dict[str, float]:
    """Leave out what goes on without any release: renewals, and polls of Consul that come back without news."""
    upkeep = ("LeaseKeepAlive", "PUT v1/session")
    return {name: number / releases for name, number in sorted(counts.items()) if name not in upkeep}
