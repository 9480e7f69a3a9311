"""Discovery on real stores beside the store's own watch: how soon one is seen, and what many and their changes cost."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from attrs import frozen

import osdisco
from benchmarks.bare import Bare, bare
from benchmarks.crew import Member, all_say, crew
from benchmarks.figures import Figure
from benchmarks.members import extension, record
from benchmarks.stores import Served, address_of, compact, served
from osdisco.client import Client
from osdisco.discovery import DiscoveryService, ExtensionEvent
from osdisco.testing import ChaosProxy

SEEN = "A registration seen by another process"
CHURN = "Changes of a large view"
MANY = "Many registrations of one process"
EXPIRY = "An extension that is killed"


APART = 0.12
"""Seconds of rest before each that is timed. A machine that rested is slow at first, most at what is much code."""


@frozen
class Churn:
    """How much is measured. `ttl` is for registrations that are to return; `idle` seconds are counted."""

    rounds: int = 7
    calls: int = 100
    view: int = 10_000
    rate: int = 1_000
    seconds: float = 20.0
    many: int = 1_000
    ttl: float = 15.0
    idle: float = 30.0
    kills: int = 6


QUICK = Churn(rounds=2, calls=20, view=500, rate=200, seconds=3.0, many=100, ttl=5.0, idle=5.0, kills=2)
TTLS = {"etcd": 5.0, "consul": 10.0}


def figures(urls: Mapping[str, str], effort: Churn) -> Iterator[Figure]:
    """Measure on each of the stores `etcd` and `consul` that has a URL."""
    for kind in sorted(TTLS.keys() & urls.keys()):
        url = urls[kind]
        if kind == "etcd":
            compact(address_of(kind, url))
            yield asyncio.run(seen(kind, f"{url}/row", effort, 0))
        yield asyncio.run(seen(kind, f"{url}/seen", effort, APART))
        yield from asyncio.run(changes(kind, f"{url}/churn", effort))
        yield from asyncio.run(many(kind, f"{url}/many", effort))
        yield asyncio.run(killed(kind, f"{url}/killed", TTLS[kind], effort.kills))


async def seen(kind: str, url: str, effort: Churn, apart: float) -> Figure:
    """Register until a listener in another process has heard of it, beside a commit and a watch event by hand.

    Both in turns, `apart` from each other: a watch on Consul takes ten changes a second one by one, and no more.
    """
    address, count = address_of(kind, url), effort.rounds * effort.calls
    prefix = f"byhand{apart:g}/"
    async with AsyncExitStack() as stack:
        specs: list[dict[str, object]] = [
            {"do": "hear", "url": url},
            {"do": "hear_raw", "kind": kind, "address": address, "prefix": prefix},
        ]
        readers = await stack.enter_async_context(crew(*specs))
        client = await stack.enter_async_context(osdisco.connect(f"{url}?ttl=600s"))
        store = await stack.enter_async_context(bare(kind, address))
        await client.shared_session()
        await all_say(readers)
        begun: tuple[list[float], list[float]] = [], []
        for number in range(count):
            await asyncio.sleep(apart)
            begun[0].append(time.monotonic())
            await (await DiscoveryService(client, extension(number)).start()).wait_registered(60)
            await asyncio.sleep(apart)
            begun[1].append(time.monotonic())
            await store.create(f"{prefix}{number}", record(number))
        await asyncio.sleep(1)
        for member in readers:
            member.go_on()
        heard = [said["heard"] for said in await all_say(readers)]
    ours, theirs = ([heard[side][f"geo-{n}"] - begun[side][n] for n in range(count)] for side in (0, 1))
    return _seen(f"{kind}, {f'{apart:g} s apart' if apart else 'one right after the other'}", effort, ours, theirs)


def _seen(where: str, effort: Churn, ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    rounds = [slice(start, start + effort.calls) for start in range(0, len(ours), effort.calls)]
    ratios = [statistics.median(ours[one]) / statistics.median(theirs[one]) for one in rounds]
    detail = {
        "ours us": statistics.median(ours) * 1e6,
        "theirs us": statistics.median(theirs) * 1e6,
        "min": min(ratios),
        "max": max(ratios),
    }
    against = "one commit and one watch event by hand"
    return Figure(SEEN, f"{where}: until seen", statistics.median(ratios), "x", against, most=1.2, detail=detail)


async def changes(kind: str, url: str, effort: Churn) -> list[Figure]:
    """Let another process change records as fast as is wished; one process follows by osdisco, one by hand."""
    address = address_of(kind, url)
    async with osdisco.connect(url) as client:
        prefix = client._keys.join("ext") + "/"
    change = {"do": "change", "kind": kind, "address": address, "prefix": prefix, "count": effort.view}
    writer_spec = change | {"rate": effort.rate, "seconds": effort.seconds}
    raw = {"do": "see_raw", "kind": kind, "address": address, "prefix": prefix}
    async with crew(writer_spec) as (writer,):
        await writer.said()
        async with crew({"do": "see", "url": url, "count": effort.view}, raw) as readers:
            await all_say(readers)
            for member in (*readers, writer):
                member.go_on()
            made = (await writer.said())["changes"]
            await asyncio.sleep(2)  # what is late comes, too
            for member in readers:
                member.go_on()
            ours, theirs = await all_say(readers)
    return _changes(kind, effort, made, ours, theirs)


def _changes(kind: str, effort: Churn, made: int, ours: dict[str, Any], theirs: dict[str, Any]) -> list[Figure]:
    where = f"{kind}, {effort.view:,} extensions, {made / effort.seconds:,.0f} changes a second"
    exact = Figure(
        CHURN, f"{where}: final state is that of a read", float(ours["state"] == theirs["state"]), "", least=1
    )
    if kind == "consul":
        per_poll = [said["cpu"] / max(said["polls"], 1) * 1000 for said in (ours, theirs)]
        detail = {
            "ours ms": per_poll[0],
            "theirs ms": per_poll[1],
            "polls": ours["polls"],
            "their polls": theirs["polls"],
        }
        against = "a bare read and decode"
        cost = Figure(
            CHURN, f"{where}: cost of a poll", per_poll[0] / per_poll[1], "x", against, most=1.5, detail=detail
        )
        return [exact, cost]
    late = [_p99(said["delays"]) * 1000 for said in (ours, theirs)]
    detail = {"ours ms": late[0], "theirs ms": late[1], "ours cpu s": ours["cpu"], "their cpu s": theirs["cpu"]}
    missed = float(made - len(ours["delays"]))
    return [
        exact,
        Figure(CHURN, f"{where}: events missed", missed, "", most=0, detail={"changes": made}),
        Figure(CHURN, f"{where}: p99 delay", late[0] / late[1], "x", "the store's own watch", most=2, detail=detail),
    ]


def _p99(delays: list[float]) -> float:
    return statistics.quantiles(delays, n=100)[98]


async def many(kind: str, url: str, effort: Churn) -> list[Figure]:
    """Let a process register many, take the store away from it for three TTLs, and see all return."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(served(kind, url))
        way = await stack.enter_async_context(ChaosProxy(address_of(kind, store.url)))
        client = await stack.enter_async_context(osdisco.connect(url))
        seer = await stack.enter_async_context(DiscoveryService(client))
        there = f"{store.url.replace(address_of(kind, store.url), way.address)}?ttl={effort.ttl:g}s"
        spec = {"do": "register", "url": there, "first": 0, "count": effort.many}
        (member,) = await stack.enter_async_context(crew(spec))
        await member.said()
        await _until_shown(seer, effort.many)
        idle = await _asked_while_idle(store, effort.idle)
        way.refuse()
        way.cut()
        await asyncio.sleep(3 * effort.ttl)
        await _until_shown(seer, 0)
        async with _rate(store) as rates:
            begun = time.monotonic()
            way.accept()
            await _until_shown(seer, effort.many)
            back = time.monotonic() - begun
        member.go_on()
        said = await member.said()
    return _many(kind, effort, idle, said["watches"], back, max(rates, default=0.0))


async def _until_shown(seer: DiscoveryService, count: int) -> None:
    async with asyncio.timeout(120):
        while len(seer.extensions) != count:
            await asyncio.sleep(0.02)


async def _asked_while_idle(store: Served, seconds: float) -> dict[str, float]:
    """Return how often a minute each thing is asked for; of the observer, too, which polls on Consul."""
    await asyncio.sleep(2)
    before = await store.so_far()
    await asyncio.sleep(seconds)
    asked = await store.so_far() - before
    return {name: number * 60 / seconds for name, number in sorted(asked.items())}


@asynccontextmanager
async def _rate(store: Served) -> AsyncIterator[list[float]]:
    """Collect how many requests there were in each half second, as requests a second."""
    rates: list[float] = []

    async def collect() -> None:
        before, at = sum((await store.so_far()).values()), time.monotonic()
        while True:
            await asyncio.sleep(0.5)
            now, moment = sum((await store.so_far()).values()), time.monotonic()
            rates.append((now - before) / (moment - at))
            before, at = now, moment

    collecting = asyncio.create_task(collect())
    try:
        yield rates
    finally:
        collecting.cancel()


def _many(kind: str, effort: Churn, idle: dict[str, float], watches: int, back: float, rate: float) -> list[Figure]:
    where = f"{kind}, {effort.many:,} registrations"
    renewals = sum(number for name, number in idle.items() if name in ("LeaseKeepAlive", "PUT v1/session"))
    each = 60 / (effort.ttl / 3)
    return [
        Figure(
            MANY, f"{where}: renewals while idle", renewals, "a minute", "one each ttl/3", most=each * 1.2, detail=idle
        ),
        Figure(MANY, f"{where}: watches", watches, "", "one for all, and one of the session", most=2),
        Figure(MANY, f"{where}: all back after the store was", back, "s", "ttl/3 + 2 s", most=effort.ttl / 3 + 2),
        Figure(MANY, f"{where}: requests meanwhile, most", rate, "a second", most=200),
    ]


async def killed(kind: str, url: str, ttl: float, kills: int) -> Figure:
    """Kill processes with an extension each; the store's own expiry is what a bare watch of the record sees."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(osdisco.connect(url))
        seer = await stack.enter_async_context(DiscoveryService(client))
        store = await stack.enter_async_context(bare(kind, address_of(kind, url)))
        specs = [{"do": "register", "url": f"{url}?ttl={ttl:g}s", "first": n, "count": 1} for n in range(kills)]
        members = await stack.enter_async_context(crew(*specs))
        await all_say(members)
        await _until_shown(seer, kills)
        gone: dict[str, asyncio.Future[float]] = {
            id_: asyncio.get_running_loop().create_future() for id_ in seer.extensions
        }

        def hear(event: ExtensionEvent) -> None:
            if event.new is None:
                gone[event.extension.id].set_result(time.monotonic())

        seer.add_listener(hear)
        keys = await _keys(client)
        times = await asyncio.gather(*(_end_of(store, m, keys[n], gone[f"geo-{n}"], n) for n, m in enumerate(members)))
    late = [told - ended for ended, told in times]
    detail = {"expiry s, median": statistics.median(ended for ended, _ in times), "kills": kills}
    name = f"{kind}, ttl {ttl:g} s: gone from a view after the store's expiry, max"
    return Figure(EXPIRY, name, max(late), "s", "a bare watch of the same key", most=0.2, detail=detail)


async def _keys(client: Client) -> dict[int, str]:
    """Return the store's own key of each extension, by its number."""
    names = (await client.scan("ext/")).items
    return {int(name.split("/")[1].removeprefix("geo-")): client._keys.key(name) for name in names}


async def _end_of(
    store: Bare, member: Member, key: str, told: asyncio.Future[float], number: int
) -> tuple[float, float]:
    """Return the seconds from the kill until the key was gone, and until the listener was told."""
    ended = asyncio.create_task(_when_gone(store, key))
    await asyncio.sleep(1 + number * 0.37)
    killed = time.monotonic()
    member.kill()
    return await ended - killed, await told - killed


async def _when_gone(store: Bare, key: str) -> float:
    await store.wait_gone(key)
    return time.monotonic()
