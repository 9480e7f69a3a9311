"""The store in memory: what a call costs with nothing behind it, and if a scan costs what it finds or all there is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial

import osdisco
from benchmarks.figures import Figure
from osdisco.backend import Put

GROUP = "The store in memory"
VALUE = b"v" * 64
COMMITS_LEAST, GETS_LEAST = 100_000, 200_000
FOUND = 100
SIZES = (1_000, 100_000)
SAME_MOST = 1.2
"""How much longer a scan may take in the large store than in the small one, to be the same."""


async def measure(rounds: int, calls: int) -> list[Figure]:
    """Return the figures; medians of `rounds` of so many calls."""
    async with osdisco.connect("memory://") as client:
        backend, key = client.backend, "osdisco/bench/0"
        await backend.commit([Put(key, VALUE)], {}, timeout=5)
        put = [Put(key, VALUE)]
        figures = [
            await _rate("commit", COMMITS_LEAST, lambda: backend.commit(put, {}, timeout=5), rounds, calls),
            await _rate("get", GETS_LEAST, lambda: backend.get(key, timeout=5), rounds, calls),
            await _rate("commit through the client", None, lambda: client.put("bench/0", VALUE), rounds, calls),
            await _rate("get through the client", None, lambda: client.get("bench/0"), rounds, calls),
        ]
    return [*figures, await _scans(rounds, max(1, calls // 100))]


async def _rate(
    name: str, least: float | None, call: Callable[[], Awaitable[object]], rounds: int, calls: int
) -> Figure:
    rates = [1 / await _seconds(call, calls) for _ in range(rounds + 1)][1:]
    detail = {"min": min(rates), "max": max(rates)}
    return Figure(GROUP, name, statistics.median(rates), "per s", least=least, detail=detail)


async def _scans(rounds: int, calls: int) -> Figure:
    """Read one prefix of 100 keys, of which the store has 10 or 1,000, in turns."""
    small, large = (osdisco.connect("memory://") for _ in SIZES)
    async with small, large:
        for client, size in zip((small, large), SIZES, strict=True):
            await _fill(client, size)
        both = (partial(_scan, large), partial(_scan, small))
        pairs = [[await _seconds(scan, calls) for scan in both] for _ in range(rounds + 1)]
    ratios = [of_large / of_small for of_large, of_small in pairs[1:]]
    detail = {
        "min": min(ratios),
        "max": max(ratios),
        f"of {SIZES[0]:,} us": statistics.median(of_small for _, of_small in pairs[1:]) * 1e6,
        f"of {SIZES[1]:,} us": statistics.median(of_large for of_large, _ in pairs[1:]) * 1e6,
    }
    name = f"scan of {FOUND} keys in a store of {SIZES[1]:,}"
    against = f"the same in a store of {SIZES[0]:,}"
    return Figure(GROUP, name, statistics.median(ratios), "x as long", against, most=SAME_MOST, detail=detail)


async def _fill(client: osdisco.Client, size: int) -> None:
    for number in range(0, size, 50):
        ops = [Put(f"bench/{one // FOUND:06}/{one % FOUND:02}", VALUE) for one in range(number, number + 50)]
        await client.commit(ops)


async def _scan(client: osdisco.Client) -> None:
    assert len((await client.scan("bench/000005/")).items) == FOUND


async def _seconds(call: Callable[[], Awaitable[object]], calls: int) -> float:
    """Return seconds a call."""
    start = time.perf_counter()
    for _ in range(calls):
        await call()
    return (time.perf_counter() - start) / calls
