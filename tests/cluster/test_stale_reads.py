"""A node that is cut off shows nothing old to its clients; and where reads are let be stale, the history tells.

The second is the control of the storms: they would mean nothing if it passed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from types import MethodType
from typing import Any

import pytest
from cluster_rooms import EVERYWHERE, Store

import osdisco
from osdisco.backend import Item
from osdisco.client import Client
from osdisco.errors import OsdiscoError, UnavailableError
from osdisco.testing.traffic import Traffic
from osdisco_etcd import _gateway, _grpc

pytestmark = pytest.mark.timeout(120)

CUT = 2.0
"""Seconds; etcd's node stops to answer after about one, because it has no leader."""
BEFORE = 1.0
READS = 3
"""That each way must have had answered by then."""
WORKERS = 6


@pytest.mark.fault("F3", on=EVERYWHERE)
async def test_a_node_that_is_cut_off_shows_nothing_old_unless_it_may(etcds: Store, consuls: Store) -> None:
    for control in await asyncio.gather(*(read_at_a_node_that_is_cut_off(store) for store in (etcds, consuls))):
        control.check()  # now that nobody waits for an answer: to find that there is no order takes long


async def read_at_a_node_that_is_cut_off(store: Store) -> Control:
    leader = await asyncio.to_thread(store.cluster.leader)
    node = next(node for node in store.cluster.nodes if node is not leader)
    others = [each.address for each in store.cluster.nodes if each is not node]
    async with AsyncExitStack() as stack:
        control = Control(store, node.address, others, stack)
        await control.start()
        pairs = [(way, *await pair(store, way, node.address, others, stack)) for way in store.ways]
        checked = await asyncio.gather(*(write_and_read(f"{way} before", *each, BEFORE) for way, *each in pairs))
        assert min(checked) >= READS, f"void: before the cut so many reads were answered: {checked}"
        await asyncio.to_thread(node.disconnect)
        try:
            await asyncio.gather(*(write_and_read(way, *each, CUT) for way, *each in pairs))
        finally:
            await control.stop()
            await asyncio.to_thread(store.cluster.restore)
    return control


async def pair(store: Store, way: str, one: str, others: Sequence[str], stack: AsyncExitStack) -> tuple[Client, Client]:
    """Return a client that reads at one node alone, and one that writes through the others."""
    urls = [store.url(way, list(addresses), "stale") for addresses in ([one], others)]
    reader, writer = [await stack.enter_async_context(osdisco.connect(url)) for url in urls]
    return reader, writer


async def write_and_read(way: str, reader: Client, writer: Client, seconds: float) -> int:
    """What is read at the one is never older than what was written through the others before; or it is nothing.

    Returns how many reads were answered.
    """
    now = asyncio.get_running_loop().time
    end, number, name, answered = now() + seconds, 0, way, 0
    while now() < end:
        number += 1
        try:
            await writer.put(name, b"%d" % number)
        except OsdiscoError:  # it may still come, and over the next one
            name = f"{way}/{number}"
            continue
        with suppress(UnavailableError):
            item = await reader.get(name, timeout=0.2)
            assert (item and int(item.value)) == number, f"{way}: not {number}, which was written, but {item}"
            answered += 1
    return answered


class Control:
    """Workers that write through the others, and read, as they may, what the node has by itself."""

    def __init__(self, store: Store, node: str, others: Sequence[str], stack: AsyncExitStack) -> None:
        self._store = store
        self._node = node
        self._others = others
        self._stack = stack
        self._traffics = {way: Traffic(random.Random(way), prefix=f"{way}/", keys=3, pause=0.03) for way in store.ways}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        for way, traffic in self._traffics.items():
            for number in range(WORKERS):
                reader, writer = await pair(self._store, way, self._node, self._others, self._stack)
                let_be_stale(reader)
                writer.get = lambda name, reader=reader: reader.get(name, timeout=0.2)  # type: ignore[method-assign]
                self._tasks.append(asyncio.ensure_future(traffic.work(writer, f"{way} {number}")))

    async def stop(self) -> None:
        for traffic in self._traffics.values():
            traffic.over = True
        await asyncio.gather(*self._tasks)

    def check(self) -> None:
        """Each way must have been found out."""
        for way, traffic in self._traffics.items():
            problems = traffic.history.problems()
            assert any("not linearizable" in problem for problem in problems), f"{way}: {traffic.history.counts()}"


def let_be_stale(client: Client) -> None:
    """Let a client's reads take what the node has by itself, as one word more in a request does."""
    backend: Any = client.backend
    if hasattr(backend, "_api"):
        read = backend._api.read

        def stale(target: str) -> Any:
            call = read(target)
            call.query = call.query.replace("consistent=1", "stale=1")
            return call

        backend._api.read = stale
    else:
        wire = backend._wire
        wire.get = MethodType(_stale_gateway_get if isinstance(wire, _gateway.GatewayWire) else _stale_get, wire)


async def _stale_get(self: Any, key: str, timeout: float) -> Item | None:
    request = _grpc.rpc_pb2.RangeRequest(key=key.encode(), serializable=True)
    item: Item | None = await self.call("Range", request, _grpc._first, timeout, subject=key, mutates=False)
    return item


async def _stale_gateway_get(self: Any, key: str, timeout: float) -> Item | None:
    request = {"key": _gateway._b64(key.encode()), "serializable": True}
    item: Item | None = await self.call("Range", request, _gateway._first, timeout, subject=key, mutates=False)
    return item
