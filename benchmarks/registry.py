"""What a live view of a large service costs in its process: to ask, to keep, to follow. The store is in memory."""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
import tracemalloc
from itertools import count

import osdisco
from benchmarks.figures import Figure
from benchmarks.harness import microseconds
from osdisco.backend import Item, Put
from osdisco.discovery import ExtensionStatus
from osdisco.registry import ServiceDefinition, ServiceEndpoint, ServiceRegistry, ServiceView

GROUP = "A live view of a service with 10,000 instances"
INSTANCES = 10_000
BYTES_MOST = 2 * 1024
ASK_MOST_US = 1.0


async def measure(rounds: int, calls: int) -> list[Figure]:
    """Fill a service, and measure a view of it; medians of `rounds`."""
    async with osdisco.connect("memory://bench/registry") as client:
        endpoints = [_endpoint(number) for number in range(INSTANCES)]
        for some in range(0, INSTANCES, 50):
            await client.commit([_put(endpoint) for endpoint in endpoints[some : some + 50]])
        figures = [await _ready(client, rounds), await _memory(client)]
        async with ServiceRegistry(client).view("geo") as view:
            return [*_asked(view, rounds, calls), _followed(view, rounds), *figures]


def _endpoint(number: int) -> ServiceEndpoint:
    address = f"10.{number // 62_500}.{number // 250 % 250}.{number % 250}:9700"
    definition = ServiceDefinition(
        "geo", "2.1.0", address, zone="abc"[number % 3], metadata={"shard": str(number % 64)}
    )
    return definition.endpoint(ExtensionStatus.HEALTHY)


def _put(endpoint: ServiceEndpoint) -> Put:
    plain = {
        name: getattr(endpoint, name) for name in ("extension_id", "address", "metadata", "weight", "zone", "version")
    }
    record = {"endpoint": {**plain, "health_check_url": None, "status": endpoint.status.value}, "incarnation": 0}
    return Put(f"svc/geo/{endpoint.extension_id}/a.1", json.dumps(record, separators=(",", ":")).encode())


def _asked(view: ServiceView, rounds: int, calls: int) -> list[Figure]:
    """Against what one would do without: go through a dict of all instances of all services."""
    everything = {id_: ("geo", endpoint) for id_, endpoint in view.items()}
    ask = microseconds(lambda: view.endpoints, rounds, calls)
    scan = microseconds(lambda: [endpoint for service, endpoint in everything.values() if service == "geo"], rounds, 10)
    copy = microseconds(lambda: list(view.endpoints), rounds, calls // 100)
    bare = microseconds(lambda: list(everything), rounds, calls // 100)
    detail = {"scan of a dict, us": scan, "times faster": scan / ask}
    whole = {"endpoints copied into a list, us": copy, "a bare list of that size, us": bare}
    return [
        Figure(GROUP, "`view.endpoints`", ask, "us", "scan of a dict", most=ASK_MOST_US, detail=detail),
        Figure(GROUP, "the same, copied into a list", copy / bare, "", "a copy of that size", detail=whole),
    ]


def _followed(view: ServiceView, rounds: int) -> Figure:
    """One change of one instance, decoded, folded and shown, and the endpoints asked for again."""
    feed, numbers = view._roster._feed, count()
    assert feed is not None
    items = list(feed.items.values())

    def change() -> None:
        number = next(numbers)
        item = items[number % INSTANCES]
        value = item.value.replace(b'"weight":100', b'"weight":%d' % (number % 50))
        feed._fold(
            osdisco.Batch((Item(item.key, value, item.created, 10**9 + number, item.lease),), (), 10**9 + number)
        )

    alone = microseconds(change, rounds, 200)
    asked = microseconds(lambda: (change(), view.endpoints), rounds, 200)
    return Figure(
        GROUP, "a change that is followed", alone, "us", detail={"and all endpoints asked for after it, us": asked}
    )


async def _ready(client: osdisco.Client, rounds: int) -> Figure:
    """A view from nothing, against one read of the same bytes and their JSON."""
    ours, theirs = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        async with ServiceRegistry(client).view("geo"):
            ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        snapshot = await client.backend.scan(client._keys.prefix("svc/geo/"), timeout=10)
        decoded = [json.loads(item.value) for item in snapshot.items.values()]
        theirs.append(time.perf_counter() - start)
        assert len(decoded) == INSTANCES
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    detail = {"view, ms": statistics.median(ours) * 1e3, "read and JSON, ms": statistics.median(theirs) * 1e3}
    return Figure(GROUP, "ready to be asked", ratio, "", "one read and its JSON", detail=detail)


async def _memory(client: osdisco.Client) -> Figure:
    """Of Python's objects, each instance's share, with keys and values as the watch keeps them."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    async with ServiceRegistry(client).view("geo") as view:
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert view._roster._feed is not None
        items = view._roster._feed.items.values()  # in memory they are the store's own, and were not counted
        kept = sum(sys.getsizeof(item) + sys.getsizeof(item.key) + sys.getsizeof(item.value) for item in items)
        detail = {"keys and values": kept / len(view)}
        return Figure(
            GROUP, "memory of each instance", (grown + kept) / len(view), "bytes", most=BYTES_MOST, detail=detail
        )
