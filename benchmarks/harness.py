"""One harness: rounds that alternate between ours and theirs on the same server, and ratios pair by pair.

Absolute times of one machine say little; the ratio of neighbours in time does. Which side goes first alternates too.
"""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from attrs import asdict, frozen

from benchmarks.figures import Figure

Call = Callable[[int], Awaitable[object]]


@frozen
class Case:
    """One comparison: `ours` and `theirs` do the same thing; each gets the number of the call.

    `least` is how many times as fast as theirs ours is to be.
    """

    name: str
    against: str
    ours: Call
    theirs: Call
    least: float | None = None
    calls: int = 500
    at_once: int = 1


async def compare(group: str, case: Case, rounds: int) -> Figure:
    """Run `rounds` pairs after one that is not counted."""
    await _round(case.ours, case)
    await _round(case.theirs, case)
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(rounds):
        pair = [(case.ours, ours), (case.theirs, theirs)]
        for call, times in pair if number % 2 else reversed(pair):
            times.append(await _round(call, case))
    name = f"{case.name}, {case.at_once} in flight"
    return faster(group, name, case.against, ours, theirs, least=case.least)


def faster(
    group: str, name: str, against: str, ours: Iterable[float], theirs: Iterable[float], *, least: float | None = None
) -> Figure:
    """Sum up the seconds that each round took: how many times as fast ours was."""
    pairs = list(zip(ours, theirs, strict=True))
    ratios = [b / a for a, b in pairs]
    detail = {
        "min": min(ratios),
        "max": max(ratios),
        "ours us": statistics.median(a for a, _ in pairs) * 1e6,
        "theirs us": statistics.median(b for _, b in pairs) * 1e6,
    }
    return Figure(group, name, statistics.median(ratios), "x as fast", against, least=least, detail=detail)


async def _round(call: Call, case: Case) -> float:
    """Return seconds a call."""
    numbers = iter(range(case.calls))

    async def worker() -> None:
        for number in numbers:
            await call(number)

    start = time.perf_counter()
    if case.at_once == 1:
        await worker()
    else:
        await asyncio.gather(*(worker() for _ in range(case.at_once)))
    return (time.perf_counter() - start) / case.calls


def microseconds(call: Callable[[], object], rounds: int, calls: int) -> float:
    """Return what one call takes, in the best of the rounds: other processes only add to it."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        times.append((time.perf_counter() - start) / calls)
    return min(times) * 1e6


def machine() -> dict[str, Any]:
    """Return what the figures depend on, peers' versions and all."""
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
    }
    for name in ("grpcio", "aiohttp", "aetcd", "etcd3-py", "python-consul2", "tooz", "etcd3gw"):
        with suppress(PackageNotFoundError):
            facts[name] = version(name)
    return facts


def load() -> str:
    """Return how many processes wanted to run, on average of 1, 5 and 15 minutes."""
    return " ".join(f"{average:.1f}" for average in os.getloadavg())


def _processor() -> str:
    with suppress(OSError), open("/proc/cpuinfo") as lines:
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return platform.processor()


def document(figures: Sequence[Figure], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the run as plain data."""
    return {"machine": machine() | dict(facts), "figures": [asdict(one) for one in figures]}
