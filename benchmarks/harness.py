"""One harness: rounds that alternate between ours and theirs on the same server, and ratios pair by pair.

Absolute times of one machine say little; the ratio of neighbours in time does. Which side goes first alternates too.
"""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from attrs import asdict, frozen

from benchmarks.figures import Figure

Call = Callable[[int], Awaitable[object]]


@frozen
class Case:
    """One comparison: `ours` and `theirs` do the same thing; each gets the number of the call."""

    name: str
    ours: Call
    theirs: Call
    calls: int = 500
    at_once: int = 1


@frozen
class Result:
    """Microseconds a call, and how much longer ours took: the median over rounds, with the extremes."""

    name: str
    calls: int
    at_once: int
    ours_us: float
    theirs_us: float
    ratio: float
    ratio_min: float
    ratio_max: float


async def compare(case: Case, rounds: int) -> Result:
    """Run `rounds` pairs after one that is not counted."""
    await _round(case.ours, case)
    await _round(case.theirs, case)
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(rounds):
        pair = [(case.ours, ours), (case.theirs, theirs)]
        for call, times in pair if number % 2 else reversed(pair):
            times.append(await _round(call, case))
    return result(case.name, case.calls, case.at_once, ours, theirs)


def result(name: str, calls: int, at_once: int, ours: Sequence[float], theirs: Sequence[float]) -> Result:
    """Sum up the seconds a call of each round."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Result(
        name,
        calls,
        at_once,
        statistics.median(ours) * 1e6,
        statistics.median(theirs) * 1e6,
        statistics.median(ratios),
        min(ratios),
        max(ratios),
    )


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


def machine() -> dict[str, Any]:
    """Return what the figures depend on, peers' versions and all."""
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
    }
    for name in ("grpcio", "aiohttp", "aetcd", "tooz", "etcd3gw"):
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


def document(
    results: Sequence[Result], figures: Sequence[Figure] = (), facts: Mapping[str, Any] = {}
) -> dict[str, Any]:
    """Return the run as plain data."""
    return {
        "machine": machine() | dict(facts),
        "results": [asdict(one) for one in results],
        "figures": [asdict(one) for one in figures],
    }


def table(results: Sequence[Result]) -> str:
    """Return the run for people."""
    lines = [f"{'case':44} {'ours us':>10} {'theirs us':>10} {'ratio':>7} {'min':>6} {'max':>6}"]
    for one in results:
        times = f"{one.ours_us:10.1f} {one.theirs_us:10.1f}"
        ratios = f"{one.ratio:7.3f} {one.ratio_min:6.3f} {one.ratio_max:6.3f}"
        lines.append(f"{one.name + f' x{one.at_once}':44} {times} {ratios}")
    return "\n".join(lines)
