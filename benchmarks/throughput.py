"""How often a contended lock changes hands: 50 contenders in 5 processes that hold it for no time at all."""

from __future__ import annotations

import asyncio
import statistics
from itertools import pairwise
from typing import Any

from benchmarks.bare import bare, round_trips
from benchmarks.crew import all_say, crew
from benchmarks.figures import Figure
from benchmarks.stores import address_of

GROUP = "Throughput of a contended lock"
PROCESSES, EACH = 5, 10


async def measure(kind: str, url: str, seconds: float, tooz: bool) -> list[Figure]:
    """Return handovers per second of ours, of tooz, and what round trips would allow a design like kazoo's."""
    chain: dict[str, object] = {"do": "chain", "url": url, "waiters": EACH, "hold": 0, "pause": 0, "laps": 0}
    ours = _figure(f"{kind}: osdisco", await _turns(chain, seconds), seconds)
    figures = [ours]
    if tooz:
        spec: dict[str, object] = {"do": "tooz_chain", "address": address_of(kind, url), "waiters": EACH}
        figures.append(_figure(f"{kind}: tooz, driver etcd3gw", await _turns(spec, seconds), seconds))
    figures.append(await _kazoos_design(kind, address_of(kind, url), seconds / 2))
    return figures


async def _turns(spec: dict[str, object], seconds: float) -> list[list[Any]]:
    """Return the turns that began within some seconds after all had begun."""
    async with crew(*[spec] * PROCESSES) as members:
        await all_say(members)
        await asyncio.sleep(1)
        start = asyncio.get_running_loop().time()  # the clock that contenders tell times of
        await asyncio.sleep(seconds)
        for member in members:
            member.go_on()
        turns = [[*turn, said["pid"]] for said in await all_say(members) for turn in said["turns"]]
    return sorted((turn for turn in turns if start <= turn[1] < start + seconds), key=lambda turn: turn[1])


def _figure(name: str, turns: list[list[Any]], seconds: float) -> Figure:
    pids = [turn[-1] for turn in turns]
    moved = sum(a != b for a, b in pairwise(pids))
    shares = sorted(pids.count(pid) for pid in set(pids))
    detail = {
        "to another process %": 100.0 * moved / max(len(pids) - 1, 1),
        "turns of the least and the most served process": f"{shares[0]}-{shares[-1]}" if shares else "none",
    }
    return Figure(GROUP, name, len(turns) / seconds, "handovers/s", detail=detail)


async def _kazoos_design(kind: str, address: str, seconds: float) -> Figure:
    """Its lock needs a delete and then a read of the children for each handover: two round trips, one after another.

    The contenders' own creates run beside that. With bare requests back to back, one at a time, that is the most.
    """
    async with bare(kind, address) as store:
        ended = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, ended.set)
        trips = await round_trips(store, "bare/", 0, ended)
    write, read = statistics.median(trips["write"]), statistics.median(trips["read"])
    detail = {"bare write ms": write * 1e3, "bare read ms": read * 1e3}
    name = f"{kind}: estimate of kazoo's design, one write and one read, alone on the machine"
    return Figure(GROUP, name, 1 / (write + read), "handovers/s", detail=detail)
