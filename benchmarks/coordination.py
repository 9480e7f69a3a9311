"""Locks beside what one would write by hand and beside peers: every figure that the coordination part is held to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from attrs import frozen

from benchmarks import failover, handover, idle, throughput, uncontended
from benchmarks.figures import Figure
from benchmarks.stores import address_of, compact


@frozen
class Effort:
    """How much is measured. `seconds` is for each run of contenders."""

    rounds: int = 9
    calls: int = 150
    seconds: float = 12.0
    kills: int = 6
    crowds: tuple[int, ...] = (10, 100, 1000)


QUICK = Effort(rounds=2, calls=30, seconds=3.0, kills=2, crowds=(10, 100))
TTLS = {"etcd": 5.0, "consul": 10.0}


def figures(urls: Mapping[str, str], effort: Effort) -> Iterator[Figure]:
    """Measure on each of the stores `etcd`, `gateway` and `consul` that has a URL, everything in one run."""
    for kind, url in urls.items():
        yield from asyncio.run(
            uncontended.measure(kind, f"{url}/uncontended", effort.rounds, effort.calls, peers=kind == "etcd")
        )
    for kind, url in urls.items():
        _settle(kind, url)
        yield from asyncio.run(handover.measure(kind, f"{url}/handover", 100, effort.seconds))
        yield from asyncio.run(handover.requests(kind, f"{url}/requests", effort.crowds))
    for kind, url in urls.items():
        _settle(kind, url)
        yield from asyncio.run(throughput.measure(kind, f"{url}/contended", effort.seconds, tooz=kind == "etcd"))
    for kind in sorted(TTLS.keys() & urls.keys()):
        yield asyncio.run(failover.measure(kind, f"{urls[kind]}/failover", TTLS[kind], effort.kills))
    yield from _idle(urls, effort)


def _idle(urls: Mapping[str, str], effort: Effort) -> Iterator[Figure]:
    yield from asyncio.run(idle.measure("memory", "memory://bench/idle", 1000, 1, 0))
    for kind in sorted(TTLS.keys() & urls.keys()):
        yield from asyncio.run(idle.measure(kind, f"{urls[kind]}/idle", 1000, 1, effort.seconds))
        yield from asyncio.run(idle.measure(kind, f"{urls[kind]}/many", 1000, 1000, effort.seconds))


def _settle(kind: str, url: str) -> None:
    if kind != "consul":
        compact(address_of(kind, url))
