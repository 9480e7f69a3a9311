"""Probing by its rules: shared out over the probers, and at most two at one endpoint."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator

import pytest
from extensions import info, registered
from probers import Net, extensions, prober, probing, shares
from worlds import World

from osdisco.backend import Delete
from osdisco.discovery import (
    DiscoveryService,
    ExtensionStatus,
)
from osdisco.discovery._prober import SETTLING
from osdisco.discovery.findings import ProberMember
from osdisco.discovery.probing import chosen

# Shared out


def members(count: int) -> dict[str, ProberMember]:
    return {f"p{n}": ProberMember(f"p{n}", f"host:{n}", f"own{n}") for n in range(count)}


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10])
def test_two_are_chosen_or_as_many_as_there_are_and_never_oneself(count: int) -> None:
    for number in range(200):
        assert len(chosen(f"x{number}", members(count))) == min(count, 2)
    for number in range(count):
        assert f"p{number}" not in chosen(f"own{number}", members(count))


def test_the_shares_are_even_and_little_moves_when_a_prober_comes() -> None:
    before = {f"x{n}": chosen(f"x{n}", members(10)) for n in range(2000)}
    after = {id_: chosen(id_, members(11)) for id_ in before}
    loads = Counter(one for pair in before.values() for one in pair)
    assert len(loads) == 10
    assert max(loads.values()) < 1.25 * 400
    moved = sum(len(after[id_] - before[id_]) for id_ in before)
    assert moved == sum("p10" in pair for pair in after.values()), "only what the new one takes over"
    assert moved < 1.25 * 4000 / 11


async def test_two_probe_each_endpoint_however_many_there_are(world: World, net: Net) -> None:
    await extensions(world, 20)
    probers = [await prober(world) for _ in range(5)]
    await asyncio.sleep(15)
    assert shares(*probers) == {f"x{n}": 2 for n in range(1, 21)}
    net.asked.clear()
    await asyncio.sleep(100)
    assert set(net.count()) == {f"10.0.0.{n}" for n in range(1, 21)}
    assert all(17 <= count <= 23 for count in net.count().values()), net.count()


@pytest.mark.parametrize("seed", range(5))
async def test_while_probers_come_and_go_never_three_probe_one_endpoint(world: World, net: Net, seed: int) -> None:
    """And when they have settled two do."""
    chance = random.Random(seed)
    await extensions(world, 5)
    probers = [await prober(world, interval=1) for _ in range(3)]
    for _ in range(6):
        await asyncio.sleep(chance.uniform(0, 8))
        leaving = chance.choice(probers)
        match chance.choice(["come", "go", "die", "away"]):
            case "come":
                probers.append(await prober(world, interval=1))
            case "go" if len(probers) > 2:
                probers.remove(leaving)
                await leaving.stop()
            case "die" if len(probers) > 2:
                probers.remove(leaving)
                world.kill(leaving._client)
            case "away":
                leaving._client.backend.faults.outage()
                await asyncio.sleep(chance.uniform(1, 2 * world.ttl))
                leaving._client.backend.faults.clear()
    await asyncio.sleep(2 * world.ttl)
    assert not list(crowds(net))
    assert shares(*probers) == {f"x{n}": 2 for n in range(1, 6)}


def crowds(net: Net) -> Iterator[str]:
    """Say where more than two probes fell into less time than that in which one prober asks again."""
    for host, asked in net.asked.items():
        times = [at for at, _ in asked]
        yield from (f"{host} at {a}, {c}" for a, c in zip(times, times[2:], strict=False) if c - a < 0.85)


async def test_when_a_prober_dies_another_takes_over(world: World, net: Net) -> None:
    seer = await extensions(world, 10)
    first, second = await prober(world), await prober(world)
    dying = world.process()
    await DiscoveryService(dying, probing=probing()).start()
    await asyncio.sleep(15)
    assert len((await seer.findings()).probers) == 3
    world.kill(dying)
    await asyncio.sleep(world.ttl + 2)
    assert len((await seer.findings()).probers) == 2
    assert shares(first, second) == {f"x{n}": 2 for n in range(1, 11)}


async def test_who_is_cut_off_from_the_store_probes_nothing(world: World, net: Net) -> None:
    """Others have taken its share by then."""
    await extensions(world, 5)
    cut = world.process()
    await DiscoveryService(cut, probing=probing(interval=1)).start()
    await asyncio.sleep(5)
    assert net.asked
    cut.backend.faults.outage()
    await asyncio.sleep(world.ttl + 1)
    net.asked.clear()
    await asyncio.sleep(30)
    assert not net.asked
    cut.backend.faults.clear()
    await asyncio.sleep(20)
    assert len(net.asked) == 5


async def test_nobody_probes_itself_nor_who_is_stopping(world: World, net: Net) -> None:
    one = await DiscoveryService(world.process(), info("a", host="10.0.0.1"), probing=probing()).start()
    two = await DiscoveryService(world.process(), info("b", host="10.0.0.2"), probing=probing()).start()
    await asyncio.sleep(15)
    assert shares(one, two) == {"a": 1, "b": 1}
    await two.set_status(ExtensionStatus.STOPPING)
    await asyncio.sleep(1)
    assert shares(one, two) == {"a": 1}


async def test_an_endpoint_is_first_asked_after_a_while_that_differs(world: World, net: Net) -> None:
    await extensions(world, 50)
    begun = world.clock.now()
    await prober(world)
    await asyncio.sleep(13)
    first = [times[0][0] - begun for times in net.asked.values()]
    assert len(first) == 50
    assert min(first) >= SETTLING
    assert max(first) - min(first) > 8


async def test_one_that_moved_is_asked_where_it_is_now(world: World, net: Net) -> None:
    service = await registered(world.process(), host="10.0.0.1")
    await prober(world)
    await asyncio.sleep(15)
    await service.update(host="10.0.0.2")
    net.asked.clear()
    await asyncio.sleep(15)
    assert set(net.asked) == {"10.0.0.2"}


async def test_no_more_are_probed_than_the_limit_and_others_follow_when_one_goes(world: World, net: Net) -> None:
    await extensions(world, 3)
    extra = await registered(world.process(), "x0", host="10.0.0.9")
    one = await prober(world, limit=2)
    await asyncio.sleep(1)
    assert len(shares(one)) == 2
    for id_ in list(shares(one)):
        world.store.commit([Delete(f"ns/{key}") for key in world.keys(f"ext/{id_}/")], {})  # comes back at once
    await extra.stop()
    await asyncio.sleep(2)
    assert len(shares(one)) == 2
