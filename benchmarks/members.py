"""What processes of `benchmarks.contender` do with extensions: register many, change many, follow them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from typing import Any

import osdisco
from benchmarks.bare import Bare, bare
from benchmarks.pipe import say, told_by_parent
from osdisco.discovery import DiscoveryService, ExtensionEvent, ExtensionInfo

AT = b'"at":"'
BATCH = 50
"""Records in one transaction; Consul takes 64."""


def extension(number: int, **metadata: str) -> ExtensionInfo:
    """Return one of many extensions."""
    host = f"10.{number // 62_500}.{number // 250 % 250}.{number % 250}"
    capabilities = ["geo.search", f"geo.shard.{number % 64}"]
    return ExtensionInfo(f"geo-{number}", "geo", "2.1.0", host, 9700, capabilities, metadata={"zone": "a", **metadata})


def record(number: int, *, n: int = 0) -> bytes:
    """Return what another writer puts into the store for it: the `n`th change, made now."""
    one = extension(number)
    return json.dumps(
        {
            "extension": {
                "id": one.id,
                "name": one.name,
                "version": one.version,
                "host": one.host,
                "port": one.port,
                "capabilities": list(one.capabilities),
                "endpoints": {},
                "metadata": {"zone": "a", "n": str(n), "at": f"{time.monotonic():.6f}"},
                "status": "healthy",
            },
            "incarnation": 1,
        },
        separators=(",", ":"),
    ).encode()


def digest(numbers: dict[str, str]) -> str:
    """Return what stands for a state: the last change of each extension."""
    return hashlib.sha256(json.dumps(sorted(numbers.items())).encode()).hexdigest()[:16]


async def register(url: str, first: int, count: int) -> None:
    """Register extensions until we are killed, or told to go; says when all are registered."""
    told = await told_by_parent()
    async with osdisco.connect(url) as client:
        services = [DiscoveryService(client, extension(number)) for number in range(first, first + count)]
        await asyncio.gather(*(service.start() for service in services))
        await asyncio.gather(*(service.wait_registered(120) for service in services))
        say(ready=True)
        await told.readline()
        say(watches=len(client._feeds), registered=sum(service.registered for service in services))
        await told.readline()


async def change(kind: str, address: str, prefix: str, count: int, rate: int, seconds: float) -> None:
    """Change records, `rate` a second, once told to; says how many changes were made."""
    told = await told_by_parent()
    async with bare(kind, address) as store:
        await fill(store, prefix, count)
        say(ready=True)
        await told.readline()
        made = await _change(store, prefix, count, rate, seconds)
        say(changes=made)
        await told.readline()


async def fill(store: Bare, prefix: str, count: int) -> None:
    """Write all records."""
    for some in range(0, count, BATCH):
        await store.put({key_of(prefix, number): record(number) for number in range(some, min(some + BATCH, count))})


async def _change(store: Bare, prefix: str, count: int, rate: int, seconds: float) -> int:
    """Change one record after the other; ten times as often as a batch is full."""
    begun, made, each = time.monotonic(), 0, max(rate // 100, 1)
    while (passed := time.monotonic() - begun) < seconds:
        if made >= rate * passed:
            await asyncio.sleep(0.001)
            continue
        some = {number % count: number for number in range(made, made + each)}
        await store.put({key_of(prefix, at): record(at, n=number + 1) for at, number in some.items()})
        made += each
    return made


def key_of(prefix: str, number: int) -> str:
    """Return the store's own key of a record."""
    return f"{prefix}geo-{number}/other.1"


async def see(url: str, count: int) -> None:
    """Follow by a DiscoveryService; says delays, how many events there were, and what it cost."""
    told = await told_by_parent()
    delays: list[float] = []

    def hear(event: ExtensionEvent) -> None:
        if event.new is not None:
            delays.append(time.monotonic() - float(event.new.metadata["at"]))

    async with osdisco.connect(url) as client, DiscoveryService(client) as seer:
        while len(seer.extensions) < count:
            await asyncio.sleep(0.05)
        frames = _count_frames(seer)
        seer.add_listener(hear)
        while len(delays) < count:  # until what is there was told
            await asyncio.sleep(0.05)
        delays.clear()
        say(ready=True)
        await told.readline()
        begun, before = time.process_time(), frames[0]
        await told.readline()
        cpu, polls = time.process_time() - begun, frames[0] - before
        numbers = {id_: one.metadata["n"] for id_, one in seer.extensions.items()}
        say(delays=delays, cpu=cpu, polls=polls, state=digest(numbers))
        await told.readline()


def _count_frames(seer: DiscoveryService) -> list[int]:
    feed: Any = seer._view._feed
    counted, fold = [0], feed._fold

    def counting(frame: object) -> None:
        counted[0] += 1
        fold(frame)

    feed._fold = counting
    return counted


async def see_raw(kind: str, address: str, prefix: str) -> None:
    """Follow by the store's own watch and nothing else; says the same as `see`."""
    told = await told_by_parent()
    delays: list[float] = []
    polls = 0

    async def follow(store: Bare) -> None:
        nonlocal polls
        async for values in store.follow(prefix):
            polls += 1
            delays.extend(time.monotonic() - _at(value) for value in values if kind != "consul")

    async with bare(kind, address) as store:
        following = asyncio.create_task(follow(store))
        await asyncio.sleep(1)
        say(ready=True)
        await told.readline()
        begun, before = time.process_time(), polls
        await told.readline()
        cpu, polled = time.process_time() - begun, polls - before
        values = await store.values(prefix)
        said = [json.loads(value)["extension"] for value in values]
        say(delays=delays, cpu=cpu, polls=polled, state=digest({one["id"]: one["metadata"]["n"] for one in said}))
        following.cancel()
        await told.readline()


async def hear(url: str) -> None:
    """Say when a listener heard of each extension."""
    told = await told_by_parent()
    heard: dict[str, float] = {}
    async with osdisco.connect(url) as client, DiscoveryService(client) as seer:
        await seer.wait_known(10)
        seer.add_listener(lambda event: heard.setdefault(event.extension.id, time.monotonic()) and None)
        say(ready=True)
        await told.readline()
        say(heard=heard)
        await told.readline()


async def hear_raw(kind: str, address: str, prefix: str) -> None:
    """Say when the store's own watch told of each record."""
    told = await told_by_parent()
    heard: dict[str, float] = {}

    async def follow(store: Bare) -> None:
        async for values in store.follow(prefix):
            for value in values:
                begin = value.index(b'"id":"') + 6
                heard.setdefault(value[begin : value.index(b'"', begin)].decode(), time.monotonic())

    async with bare(kind, address) as store:
        following = asyncio.create_task(follow(store))
        await asyncio.sleep(1)
        say(ready=True)
        await told.readline()
        say(heard=heard)
        following.cancel()
        await told.readline()


def _at(value: bytes) -> float:
    begin = value.index(AT) + len(AT)
    return float(value[begin : value.index(b'"', begin)])
