"""The mirror of a search cluster: what 300 extensions cost the cluster, and how soon a change is theirs."""

from __future__ import annotations

import asyncio
import statistics
import time
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from attrs import frozen

import osdisco
from benchmarks.bare import bare
from benchmarks.crew import Member, all_say, crew
from benchmarks.figures import Figure
from benchmarks.stores import address_of, compact
from osdisco.cluster import ClusterStateService, StateComponent
from osdisco.cluster._places import PIECE_MAX, Places
from osdisco.cluster._questions import LEFT_OUT, SETTINGS, VERSION, nodes, state
from osdisco.testing import FakeCluster, VirtualClock, run

GROUP = "The mirror of a search cluster"
SMALL_MOST, WHOLE_MOST, LATENCY_MOST, HELD_MOST = 1.1, 1.0, 1.5, 20.0
SECONDS, CHANGES = 120.0, 10


@frozen
class Effort:
    """How much is measured. `indices` have ten shards each."""

    extensions: int = 300
    indices: int = 1_000
    rounds: int = 5


QUICK = Effort(extensions=10, indices=100, rounds=2)


def figures(urls: Mapping[str, str], effort: Effort) -> Iterator[Figure]:
    """Count in virtual time, and measure on the stores `etcd` and `consul` that have a URL."""
    clock = VirtualClock()
    yield from run(requests(clock, effort.extensions), clock=clock)
    yield asyncio.run(moved(effort.indices))
    for kind in sorted({"etcd", "consul"} & urls.keys()):
        if kind == "etcd":
            compact(address_of(kind, urls[kind]))
        yield asyncio.run(change(kind, f"{urls[kind]}/mirror", effort))
        yield from asyncio.run(held(kind, f"{urls[kind]}/held", effort))


async def requests(clock: VirtualClock, extensions: int) -> list[Figure]:
    """Let all of them be candidates for two minutes in which the cluster changes ten times."""
    cluster = FakeCluster()
    async with AsyncExitStack() as stack:
        for _ in range(extensions):
            client = await stack.enter_async_context(osdisco.connect("memory://mirror-requests", clock=clock))
            service = ClusterStateService(client, cluster.source())
            await stack.enter_async_context(service)
            service.follow({StateComponent.NODES})
        await asyncio.sleep(10)
        cluster.requests.clear()
        for number in range(CHANGES):
            cluster.create_index(f"logs-{number}")
            await asyncio.sleep(SECONDS / CHANGES)
    asked = cluster.requests
    small, whole = asked[VERSION.path] / SECONDS, asked[state(LEFT_OUT).path] / CHANGES
    others = {"others in all": asked[nodes(5.0).path] + asked[SETTINGS.path]}
    who, against = f"{extensions} extensions", "each by itself"
    return [
        Figure(
            GROUP, f"{who}: small requests a second", small, "", f"{extensions}, {against}", SMALL_MOST, detail=others
        ),
        Figure(GROUP, f"{who}: fetches for a change", whole, "", f"{extensions}, {against}", WHOLE_MOST),
    ]


async def moved(indices: int) -> Figure:
    """See what a reader of nodes fetches when a shard moves in a large cluster, beside the whole of what it could."""
    cluster = FakeCluster.large(indices, nodes=20)
    async with osdisco.connect("memory://mirror-moved") as client, AsyncExitStack() as stack:
        await stack.enter_async_context(ClusterStateService(client, cluster.source()))
        of_nodes, everything = (ClusterStateService(client) for _ in range(2))
        for service, components in ((of_nodes, {StateComponent.NODES}), (everything, set(StateComponent))):
            await stack.enter_async_context(service)
            await service.subscribe(components)
        before = of_nodes.mirror.fetched, everything.mirror.fetched
        cluster.move_shard("logs-000007", 0, "n9")
        for service in (of_nodes, everything):
            await service.wait_for(lambda now: now.version == cluster.version)
        fetched = of_nodes.mirror.fetched - before[0]
        head = await client.get(f"{Places(client._keys, 'default').head.removeprefix(client._keys.root)}")
        detail: dict[str, object] = {
            "head, bytes": len(head.value) if head else 0,
            "who asked for all fetched": everything.mirror.fetched - before[1],
            "whole state": before[1],
        }
    name = f"bytes of blobs to a reader of nodes when one of {indices * 10:,} shards moves"
    return Figure(GROUP, name, fetched, "bytes", "the whole state", most=0, detail=detail)


async def change(kind: str, url: str, effort: Effort) -> Figure:
    """Move a shard, round after round, with a mirror and many readers in two processes of their own.

    After each the same many read one blob of the whole state, and decode it.
    """
    cluster, count = _large(effort), effort.extensions
    blob = {"do": "read_blob", "kind": kind, "address": address_of(kind, url), "prefix": "plain/", "count": count}
    async with cluster, _cast(url, cluster, count, blob) as (mirror, many, plain):
        ours, theirs, told = [], [], []
        for number in range(effort.rounds):
            said, (applied,) = await _moved_once(cluster, number, mirror, [many])
            ours.append(statistics.median(applied["applied"]) - said["seen"])
            told.append(statistics.median(applied["applied"]) - said["had"])
            theirs.append(await _plainly(kind, url, cluster, plain))
    return _latency(kind, effort, ours, theirs, told)


async def held(kind: str, url: str, effort: Effort) -> list[Figure]:
    """Move a shard, round after round, with nothing but a mirror and one reader, each in a process of its own."""
    cluster = _large(effort)
    async with cluster, _cast(url, cluster, 1) as (mirror, reader):
        await asyncio.sleep(1)
        mirror.go_on()
        idle = (await mirror.said())["held"]
        times = []
        for number in range(2 * effort.rounds):
            said, (applied,) = await _moved_once(cluster, number, mirror, [reader])
            times.append((said["held"], applied["held"]))
    return list(_held(kind, effort, times, idle))


def _large(effort: Effort) -> FakeCluster:
    return FakeCluster.large(effort.indices, 5, nodes=20, replicas=1)


async def _moved_once(
    cluster: FakeCluster, number: int, mirror: Member, readers: list[Member]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Move a shard; returns what the mirror and the readers say once all of them have that state."""
    cluster.move_shard("logs-000007", 0, f"n{2 + number % 15}")
    for member in readers:
        member.go_on(str(cluster.version))
    applied = await all_say(readers)
    mirror.go_on()
    return await mirror.said(), applied


@asynccontextmanager
async def _cast(url: str, cluster: FakeCluster, count: int, *more: dict[str, Any]) -> AsyncIterator[list[Member]]:
    """Start a mirror, readers and whoever else, and yield them once each is ready."""
    mirror: dict[str, Any] = {"do": "mirror_cluster", "url": url, "source": cluster.urls[0]}
    async with crew(mirror, {"do": "read_cluster", "url": url, "count": count}, *more) as members:
        await all_say(members)
        yield members


async def _plainly(kind: str, url: str, cluster: FakeCluster, plain: Member) -> float:
    """Put the state as one blob, and return after how many seconds the median reader has it."""
    question = state(LEFT_OUT)
    data = zlib.compress(cluster.answer(question.path, question.params).body)
    async with bare(kind, address_of(kind, url)) as store:
        begun = time.monotonic()
        for number, start in enumerate(range(0, len(data), PIECE_MAX)):
            await store.put({f"plain/{number:03}": data[start : start + PIECE_MAX]})
        plain.go_on()
        applied = (await plain.said())["applied"]
    return statistics.median(applied) - begun


def _latency(kind: str, effort: Effort, ours: list[float], theirs: list[float], told: list[float]) -> Figure:
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    detail: dict[str, object] = {
        "min": min(ratios),
        "max": max(ratios),
        "ours, ms": statistics.median(ours) * 1e3,
        "of which after the cluster's answer": statistics.median(told) * 1e3,
        "theirs, ms": statistics.median(theirs) * 1e3,
    }
    shards = f"{effort.indices * 10:,} shards"
    name = f"{kind}: a change at {shards}, seen by the mirror to applied by the median of {effort.extensions}"
    against = "one blob, put, read and decoded as JSON by as many"
    return Figure(GROUP, name, statistics.median(ratios), "x as long", against, most=LATENCY_MOST, detail=detail)


Held = tuple[float, float]
"""Seconds for which an event loop was held, and the processor's meanwhile."""


def _held(kind: str, effort: Effort, held: list[tuple[Held, Held]], idle: Held) -> Iterator[Figure]:
    for who, times in zip(("the mirror", "a reader"), zip(*held, strict=True), strict=True):
        longest, used = max(times)
        detail: dict[str, object] = {
            "of which its own": used * 1e3,
            "median of changes": statistics.median(one for one, _ in times) * 1e3,
            "without any": idle[0] * 1e3,
        }
        shards = f"{effort.indices * 10:,} shards"
        name = f"{kind}: longest that {who}'s event loop was held, {len(times)} changes at {shards}"
        yield Figure(GROUP, name, longest * 1e3, "ms", most=HELD_MOST, detail=detail)
