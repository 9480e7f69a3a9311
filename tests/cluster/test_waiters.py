"""A waiter whose node falls silent hears of its turn long before silence alone would tell its watch."""

from __future__ import annotations

import asyncio

import pytest
from cluster_rooms import TIMEOUT, Store

import osdisco
from osdisco.backend import WATCH_SILENCE
from osdisco.client import Client
from osdisco.coordination import CoordinationService

TTL = 6
RENEWAL = TTL / 3 + TTL / 6
"""Seconds after which a renewal has failed at a node that is silent: the next one is then asked."""
ASKED = 2
"""Seconds that a watch is given to answer when it is asked."""


@pytest.mark.parametrize("fault", ["pause", "disconnect"])
async def test_a_waiter_on_a_silent_node_gets_the_lock_by_way_of_another(store: Store, fault: str) -> None:
    """Given a node that is not the leader: nothing but the waiter's connections to it is in trouble."""
    leader = await asyncio.to_thread(store.cluster.leader)
    node = next(node for node in store.cluster.nodes if node is not leader)
    others = [each.address for each in store.cluster.nodes if each is not node]
    step = asyncio.Barrier(len(store.ways) + 1)
    urls = {way: [store.url(way, each, fault, TTL) for each in (others, [node.address, *others])] for way in store.ways}
    waits = [asyncio.ensure_future(hand_over(way, *urls[way], step)) for way in store.ways]
    await step.wait()
    await asyncio.to_thread(getattr(node, fault))
    try:
        await step.wait()
        seconds = await asyncio.gather(*waits)
    finally:
        await asyncio.to_thread(store.cluster.restore)
    print(fault, *zip(store.ways, seconds, strict=True))
    assert max(seconds) < RENEWAL + ASKED + TIMEOUT < WATCH_SILENCE / 2


async def hand_over(name: str, holders: str, waiters: str, step: asyncio.Barrier) -> float:
    """Release between the second step and the end; returns how long the waiter did not know that it has the lock."""
    async with osdisco.connect(holders) as holder, osdisco.connect(waiters) as waiter:
        lock = CoordinationService(holder).lock(name)
        guard = await lock.acquire()
        waiting = asyncio.ensure_future(acquire(waiter, name))
        while len(await lock.contenders()) < 2:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)  # its watch is open
        await step.wait()
        await step.wait()
        await guard.release()
        released = holder.runtime.clock.now()
        return await waiting - released


async def acquire(client: Client, name: str) -> float:
    """Wait for the lock; returns when it was there."""
    async with CoordinationService(client).lock(name).acquire():
        return client.runtime.clock.now()
