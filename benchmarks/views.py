"""A live view of 10,000 keys, `Client.view`: until it is ready, beside one bare range with keys and values decoded."""

from __future__ import annotations

import gc
import statistics
import time

import osdisco
from benchmarks.bare import Bare, bare
from benchmarks.figures import Figure
from benchmarks.stores import address_of

GROUP = "A view of 10,000 keys"
KEYS = 10_000
VALUE = b"v" * 64
READY_MOST = 1.5


async def measure(kind: str, url: str, rounds: int, keys: int = KEYS) -> Figure:
    """Fill a prefix, and see both sides read it in turns, on connections that stand; the median over rounds."""
    async with osdisco.connect(url) as client, bare(kind, address_of(kind, url)) as store:
        prefix = client._keys.prefix("view/")
        for some in range(0, keys, 50):
            await client.commit([osdisco.Put(f"view/{number:06}", VALUE) for number in range(some, some + 50)])
        try:
            pairs = [await _pair(client, store, prefix, keys, bool(number % 2)) for number in range(rounds + 1)][1:]
        finally:
            for some in range(0, keys, 50):
                await client.commit([osdisco.Delete(f"view/{number:06}") for number in range(some, some + 50)])
    ratios = [ours / theirs for ours, theirs in pairs]
    detail = {
        "min": min(ratios),
        "max": max(ratios),
        "view, ms": statistics.median(ours for ours, _ in pairs) * 1e3,
        "range and decode, ms": statistics.median(theirs for _, theirs in pairs) * 1e3,
    }
    name, against = f"{kind}: ready", "one bare range and decode"
    return Figure(GROUP, name, statistics.median(ratios), "x as long", against, most=READY_MOST, detail=detail)


async def _pair(client: osdisco.Client, store: Bare, prefix: str, keys: int, ours_first: bool) -> tuple[float, float]:
    if ours_first:
        ours = await _ours(client, keys)
        return ours, await _theirs(store, prefix, keys)
    theirs = await _theirs(store, prefix, keys)
    return await _ours(client, keys), theirs


async def _ours(client: osdisco.Client, keys: int) -> float:
    gc.collect()
    start = time.perf_counter()
    async with client.view("view/") as view:
        took = time.perf_counter() - start
        assert len(view) == keys
    return took


async def _theirs(store: Bare, prefix: str, keys: int) -> float:
    gc.collect()
    start = time.perf_counter()
    items = await store.items(prefix)
    took = time.perf_counter() - start
    assert len(items) == keys
    return took
