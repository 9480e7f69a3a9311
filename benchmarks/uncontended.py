"""Lock and unlock when nobody else wants it: beside the same requests by hand, and beside peers' locks.

Calls alternate one by one, so that what disturbs the machine disturbs both sides alike. Peers that block are called
straight from the loop's thread: nothing else runs meanwhile, and no hop between threads is charged to them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count
from typing import Any

import osdisco
from benchmarks.bare import Bare, bare
from benchmarks.figures import Figure
from benchmarks.stores import address_of, compact, served
from osdisco.coordination import CoordinationService

GROUP = "Lock and unlock, uncontended"
RECORD = b'{"owner":"host:1234","since":1750000000.123456,"epoch":0,"info":{}}'

Call = Callable[[], Awaitable[object]]


async def measure(kind: str, url: str, rounds: int, calls: int, peers: bool) -> list[Figure]:
    """Return the ratios for one store: ours against requests by hand, and against each peer."""
    address = address_of(kind, url)
    figures = []
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(_ours(url))
        by_hand = await stack.enter_async_context(_by_hand(kind, address))
        settle = (lambda: None) if kind == "consul" else partial(compact, address)
        ratio = await _ratio(ours, by_hand, rounds, calls, settle)
        figures.append(Figure(GROUP, f"{kind}: lock", ratio.pop("ratio"), "x", _HANDMADE[kind], most=1.2, detail=ratio))
        figures.append(await _requests(kind, url, calls))
        for name, peer, least in _PEERS[kind] if peers else ():
            other = await stack.enter_async_context(peer(address))
            ratio = await _ratio(other, ours, rounds, calls, settle, names=("theirs us", "ours us"))
            ratio["their requests"] = await _counted(kind, url, other, calls)
            faster = Figure(GROUP, f"{kind}: faster than", ratio.pop("ratio"), "x", name, least=least, detail=ratio)
            figures.append(faster)
    return figures


_HANDMADE = {
    "etcd": "two transactions and one range by bare stubs",
    "gateway": "two transactions and one range by bare aiohttp",
    "consul": "two transactions and one read by bare aiohttp",
}


async def _ratio(
    one: Call,
    other: Call,
    rounds: int,
    calls: int,
    settle: Callable[[], None],
    names: tuple[str, str] = ("ours us", "theirs us"),
) -> dict[str, float]:
    """Return the median over rounds of the ratio of the medians of a round, with the extremes."""
    pairs = []
    for _ in range(rounds + 1):
        settle()
        pairs.append(await _round(one, other, calls))
    ratios = [a / b for a, b in pairs[1:]]  # the first warms up
    return {
        "ratio": statistics.median(ratios),
        "min": min(ratios),
        "max": max(ratios),
        names[0]: statistics.median(a for a, _ in pairs[1:]) * 1e6,
        names[1]: statistics.median(b for _, b in pairs[1:]) * 1e6,
    }


async def _round(one: Call, other: Call, calls: int) -> tuple[float, float]:
    times: dict[Call, list[float]] = {one: [], other: []}
    for number in range(calls):
        for call in (one, other) if number % 2 else (other, one):
            start = time.perf_counter()
            await call()
            times[call].append(time.perf_counter() - start)
    return statistics.median(times[one]), statistics.median(times[other])


@asynccontextmanager
async def _ours(url: str) -> AsyncIterator[Call]:
    async with osdisco.connect(url) as client:
        lock = CoordinationService(client).lock("bench")

        async def call() -> None:
            async with lock:
                pass

        await call()
        yield call


@asynccontextmanager
async def _by_hand(kind: str, address: str) -> AsyncIterator[Call]:
    async with bare(kind, address) as store:
        numbers = count(time.time_ns())  # a new key every time, as ours

        async def call() -> None:
            await _lock_by_hand(store, f"bare/lock/bench/{next(numbers):032x}")

        yield call


async def _lock_by_hand(store: Bare, key: str) -> None:
    await store.create(key, RECORD)
    await store.read("bare/lock/bench/")
    await store.delete(key)


async def _requests(kind: str, url: str, calls: int) -> Figure:
    """Count what one lock and unlock sends, renewals of the session and all."""
    async with served(kind, url) as store, _ours(store.url) as ours:
        detail = await _counted_on(store, ours, calls)
    return Figure(GROUP, f"{kind}: requests of a lock", sum(detail.values()), "", "", most=2.05, detail=detail)


async def _counted(kind: str, url: str, call: Call, calls: int) -> float:
    async with served(kind, url) as store:
        return sum((await _counted_on(store, call, calls)).values())


async def _counted_on(store: Any, call: Call, calls: int) -> dict[str, float]:
    before = await store.so_far()
    for _ in range(calls):
        await call()
    return {name: number / calls for name, number in sorted(((await store.so_far()) - before).items())}


@asynccontextmanager
async def _tooz(address: str) -> AsyncIterator[Call]:
    from tooz import coordination

    coordinator = coordination.get_coordinator(f"etcd3+http://{address}?api_version=v3", b"bench")
    coordinator.start()
    lock = coordinator.get_lock(b"uncontended")

    async def call() -> None:
        assert lock.acquire()
        assert lock.release()

    yield call
    coordinator.stop()


@asynccontextmanager
async def _aetcd(address: str) -> AsyncIterator[Call]:
    import aetcd

    host, port = address.split(":")
    async with aetcd.Client(host, int(port)) as client:

        async def call() -> None:
            async with client.lock(b"aetcd/bench", 60):
                pass

        yield call


_PEERS: dict[str, list[tuple[str, Any, float]]] = {
    "etcd": [("tooz, driver etcd3gw", _tooz, 2.3), ("aetcd's own lock", _aetcd, 1.0)],
    "gateway": [],
    "consul": [],
}
