"""The endpoint in use is killed, in a cluster of three: how long a client cannot write, beside the other nodes.

Both start ten writes a second and wait for none, so that what hangs at a node without a leader holds up nothing else.
(With more than 64 on their way a client waits for a connection to Consul, and has hanging ones until they time out.)
What the cluster itself needs for a new leader is in both; the difference is how long the client takes to turn away.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from time import monotonic
from typing import Any

from attrs import Factory, define

import osdisco
from benchmarks.bare import bare
from benchmarks.figures import Figure
from osdisco.testing import Servers
from osdisco.testing._stores import in_namespace
from osdisco.testing.servers import docker_problem

GROUP = "The endpoint in use is killed, in a cluster of three"
EVERY = 0.1
BEFORE = 2.0
AFTER = {"etcd": 8.0, "gateway": 8.0, "consul": 15.0}
"""Seconds in which everybody writes again."""

Write = Callable[[int], Awaitable[object]]


@define
class Writer:
    """Writes all the time, and keeps when it was told that a write is done."""

    write: Write
    done: list[float] = Factory(list)
    failed: int = 0

    async def run(self) -> None:
        """Write until cancelled."""
        number = 0
        async with asyncio.TaskGroup() as group:
            while True:
                number += 1
                group.create_task(self._one(number))
                await asyncio.sleep(EVERY)

    async def _one(self, number: int) -> None:
        try:
            await self.write(number)
        except Exception:  # whatever a driver raises when its server dies
            self.failed += 1
        else:
            self.done.append(monotonic())


def figures(kills: int) -> Iterator[Figure]:
    """Measure on clusters of its own, in Docker: so many kills by each transport, the leader in half of them."""
    if problem := docker_problem("ETCD") or docker_problem("CONSUL"):
        yield from (_figure(kind, [], why=f"there are no clusters, because {problem}") for kind in AFTER)
        return
    with Servers() as servers:
        with servers.fresh_etcd_cluster(flags=("--unsafe-no-fsync=false",)) as etcds:
            yield asyncio.run(measure("etcd", etcds, etcds.access.url, kills))
            yield asyncio.run(
                measure("gateway", etcds, lambda addresses: etcds.access.url(addresses, gateway=True), kills)
            )
        with servers.fresh_consul_cluster() as consuls:
            yield asyncio.run(measure("consul", consuls, consuls.access.url, kills))


async def measure(kind: str, cluster: Any, url: Callable[[list[str]], str], kills: int) -> Figure:
    """Kill the first endpoint of a new client, some times; the leader and another node in turns."""
    gaps = []
    for number in range(kills):
        leader = await asyncio.to_thread(cluster.leader)
        others = [node for node in cluster.nodes if node is not leader]
        victim = random.choice(others) if number % 2 else leader  # nosec B311 # noqa: S311 - no secret
        gaps.append(await _kill(kind, victim, [node for node in cluster.nodes if node is not victim], url))
        await asyncio.to_thread(cluster.restore)
    return _figure(kind, gaps)


async def _kill(kind: str, victim: Any, others: list[Any], url: Callable[[list[str]], str]) -> tuple[float, float]:
    """Return the longest gap of the client's writes, and that of the writes at the other nodes."""
    addresses = [victim.address, *(node.address for node in others)]
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(osdisco.connect(in_namespace(url(addresses), "endpoint")))
        stores = [await stack.enter_async_context(bare(kind, node.address)) for node in others]
        ours = Writer(lambda number: client.put(f"ours/{number % 100}", b"%d" % number))
        theirs = [
            Writer(lambda number, store=store, at=at: store.put({f"theirs/{at}/{number % 100}": b"%d" % number}))  # type: ignore[misc]
            for at, store in enumerate(stores)
        ]
        async with _running([ours, *theirs]):
            await asyncio.sleep(BEFORE)
            killed = monotonic()
            await asyncio.to_thread(victim.kill)
            await asyncio.sleep(AFTER[kind])
            end = monotonic()
        done = [moment for writer in theirs for moment in writer.done]
        return _gap(ours.done, killed, end), _gap(done, killed, end)


@asynccontextmanager
async def _running(writers: list[Writer]) -> Any:
    tasks = [asyncio.ensure_future(writer.run()) for writer in writers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _gap(done: list[float], killed: float, end: float) -> float:
    """Return the longest time without a write that is done, from right before the kill to the end."""
    before = [moment for moment in done if moment < killed]
    moments = sorted([before[-1] if before else killed, *(moment for moment in done if moment >= killed), end])
    return max(later - earlier for earlier, later in pairwise(moments))


def _figure(kind: str, gaps: list[tuple[float, float]], *, why: str = "") -> Figure:
    """Return the figure; one that was not measured when there are no gaps, and why."""
    more = [ours - theirs for ours, theirs in gaps]
    detail = (
        {"not measured": why}
        if not gaps
        else {
            "client's gap s, median": statistics.median(ours for ours, _ in gaps),
            "client's gap s, max": max(ours for ours, _ in gaps),
            "probe's gap s, median": statistics.median(theirs for _, theirs in gaps),
            "probe's gap s, max": max(theirs for _, theirs in gaps),
            "difference s, median": statistics.median(more),
            "kills": len(gaps),
        }
    )
    name = f"{kind}: longest gap of a client's writes above that of the surviving nodes, max"
    value = max(more, default=None)
    return Figure(GROUP, name, value, "s", "bare writes at the surviving nodes", most=0.5, detail=detail)
