"""What a live view of many extensions costs: until it is ready, to keep, and to ask, beside one bare read."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import statistics
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import osdisco
from benchmarks.figures import Figure
from benchmarks.harness import microseconds
from benchmarks.stores import address_of
from osdisco._records import encode
from osdisco.backend import Put
from osdisco.discovery import DiscoveryService, EndpointInfo, ExtensionInfo, ExtensionStatus
from osdisco.discovery.registration import Registration

GROUP = "A view of 10,000 extensions"
EXTENSIONS = 10_000
READY_MOST = 1.5
BYTES_MOST = 2000
FIND_MOST_US = 5.0

Read = Callable[[], Awaitable[int]]
"""Reads all records and decodes their JSON; returns how many."""


async def measure(kind: str, url: str, rounds: int) -> list[Figure]:
    """Fill a store, and measure; medians of `rounds`."""
    async with osdisco.connect(url) as client, _bare(kind, url, client) as read:
        for some in range(0, EXTENSIONS, 50):
            await client.commit([_put(number) for number in range(some, some + 50)])
        try:
            figures = [await _ready(kind, url, read, rounds)]
            async with osdisco.connect(url) as fresh:
                figures.append(await _memory(kind, fresh))
            async with DiscoveryService(client) as seer:
                await seer.wait_known(60)
                figures.append(_found(kind, seer, rounds))
            return figures
        finally:
            for some in range(0, EXTENSIONS, 50):
                await client.commit([osdisco.Delete(_put(number).key) for number in range(some, some + 50)])


def extension(number: int) -> ExtensionInfo:
    """Return one of many, which share about as much as extensions of one cluster do."""
    return ExtensionInfo(
        id=f"geo-{number:05d}",
        name=f"geo-{number % 50}",
        version=f"1.{number % 7}.0",
        host=f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
        port=9700 + number % 100,
        capabilities=(f"geo.search.{number % 100}", "geo.index", f"tenant.{number % 20}"),
        endpoints={"rest": EndpointInfo("http", 9700 + number % 100, "/geo"), "grpc": EndpointInfo("grpc", 9800)},
        metadata={"zone": "abc"[number % 3], "rack": str(number % 40), "build": "2026-11-20"},
        status=ExtensionStatus.HEALTHY,
    )


def _put(number: int) -> Put:
    value = encode(Registration(extension(number), number + 1))
    return Put(f"ext/geo-{number:05d}/{number:032x}.1", value)


async def _ready(kind: str, url: str, read: Read, rounds: int) -> Figure:
    """From the start of a service to its known view, on a connection that stands."""
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(rounds + 1):
        pair = [(_our_time(url), ours), (_timed(read), theirs)]
        for timing, times in pair if number % 2 else reversed(pair):
            gc.collect()
            times.append(await timing)
    ratio = statistics.median(a / b for a, b in zip(ours[1:], theirs[1:], strict=True))
    detail = {"view, ms": statistics.median(ours) * 1e3, "read and JSON, ms": statistics.median(theirs) * 1e3}
    return Figure(GROUP, f"{kind}: ready", ratio, "", "one bare read and its JSON", most=READY_MOST, detail=detail)


async def _our_time(url: str) -> float:
    async with osdisco.connect(url) as client:
        await client.get("nothing")
        start = time.perf_counter()
        async with DiscoveryService(client) as seer:
            await seer.wait_known(60)
            took = time.perf_counter() - start
            assert len(seer.extensions) == EXTENSIONS
    return took


async def _timed(read: Read) -> float:
    start = time.perf_counter()
    count = await read()
    took = time.perf_counter() - start
    assert count == EXTENSIONS
    return took


async def _memory(kind: str, client: osdisco.Client) -> Figure:
    """Of Python's objects, each extension's share: what the watch keeps, the extensions, and the indexes."""
    await client.get("nothing")
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        async with DiscoveryService(client) as seer:
            await seer.wait_known(120)
            await asyncio.sleep(1)
            gc.collect()
            grown = (tracemalloc.get_traced_memory()[0] - before) / len(seer.extensions)
    finally:
        tracemalloc.stop()
    detail = {"of which the record itself": len(_put(0).value)}
    return Figure(GROUP, f"{kind}: memory of each", grown, "bytes", most=BYTES_MOST, detail=detail)


def _found(kind: str, seer: DiscoveryService, rounds: int) -> Figure:
    """Beyond what a list of the answer costs; against a scan of a dict."""
    everything = dict(seer.extensions)
    answer = seer.find_by_capability("geo.search.7")
    assert len(answer) == EXTENSIONS / 100
    indexed = microseconds(lambda: seer.find_by_capability("geo.search.7"), rounds, 2000)
    size = microseconds(lambda: list(answer), rounds, 2000)
    scan = microseconds(lambda: [one for one in everything.values() if "geo.search.7" in one.capabilities], rounds, 5)
    detail = {"the whole call": indexed, "a list of the answer": size, "scan of a dict": scan}
    name = f"{kind}: `find_by_capability` beyond the size of the answer"
    return Figure(GROUP, name, indexed - size, "us", "scan of a dict", most=FIND_MOST_US, detail=detail)


@asynccontextmanager
async def _bare(kind: str, url: str, client: osdisco.Client) -> AsyncIterator[Read]:
    """Return what one would write by hand against a store."""
    prefix, address = client._keys.prefix("ext/"), address_of(kind, url)
    if kind == "etcd":
        import grpc.aio
        from aetcd.rpc import rpc_pb2, rpc_pb2_grpc

        big = [("grpc.max_receive_message_length", -1)]
        async with grpc.aio.insecure_channel(address, options=big) as channel:
            kv = rpc_pb2_grpc.KVStub(channel)
            request = rpc_pb2.RangeRequest(key=prefix.encode(), range_end=(prefix[:-1] + "0").encode())

            async def read_grpc() -> int:
                return len([json.loads(kv.value) for kv in (await kv.Range(request, timeout=60)).kvs])

            yield read_grpc
        return
    import aiohttp

    async with aiohttp.ClientSession(base_url=f"http://{address}") as http:

        async def read_gateway() -> int:
            ends = {"key": prefix, "range_end": prefix[:-1] + "0"}
            body = {name: base64.b64encode(text.encode()).decode() for name, text in ends.items()}
            async with http.post("/v3/kv/range", json=body) as answer:
                kvs = json.loads(await answer.read())["kvs"]
            return len([json.loads(base64.b64decode(kv["value"])) for kv in kvs])

        async def read_consul() -> int:
            async with http.get(f"/v1/kv/{prefix}?recurse=1&consistent=1") as answer:
                items = json.loads(await answer.read())
            return len([json.loads(base64.b64decode(item["Value"])) for item in items])

        yield read_consul if kind == "consul" else read_gateway
