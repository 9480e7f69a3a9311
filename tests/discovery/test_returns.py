"""How many records come, and return when the store is back: all in time, and not all at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from extensions import info, registered
from worlds import World, lease_of, until

from osdisco._returns import FIRST, Returns
from osdisco.backend import Delete
from osdisco.client import Client
from osdisco.discovery import DiscoveryService

TTL = 15.0  # the default


@pytest.fixture
async def world(osdisco_clock: object) -> Any:
    world = World(ttl=TTL)
    yield world
    await world.aclose()


class Requests:
    """When the processes asked the store for anything."""

    def __init__(self, world: World, *clients: Client) -> None:
        self.times: list[float] = []
        for client in clients:
            client.backend._call = self._counting(client.backend._call, world.clock.now)

    def _counting(self, call: Any, now: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.times.append(now())
            return call(*args, **kwargs)

        return counted

    def most_in_a_second(self) -> int:
        return max(sum(begun <= time < begun + 1 for time in self.times) for begun in self.times)


@pytest.mark.parametrize(("processes", "records"), [(1, 1000), (5, 200)])
async def test_a_thousand_are_back_in_a_third_of_the_ttl_and_2_seconds_without_a_stampede(
    world: World, processes: int, records: int
) -> None:
    clients = [world.process() for _ in range(processes)]
    services = [
        await DiscoveryService(client, info(f"{number}-of-{client.runtime.name}")).start()
        for client in clients
        for number in range(records)
    ]
    await asyncio.gather(*(service.wait_registered(5) for service in services))
    world.store.faults.outage()
    await asyncio.sleep(3 * TTL)
    assert not any(service.registered for service in services)
    requests = Requests(world, *clients)
    world.store.faults.clear()
    began = world.clock.now()
    await until(lambda: all(service.registered for service in services), TTL / 3 + 2)
    assert len(world.keys("ext/")) == 1000
    assert requests.most_in_a_second() <= 200
    assert len(requests.times) <= 1000 + 8 * processes, "one commit for each, and what a session takes"
    await asyncio.sleep(began + TTL - world.clock.now())
    assert len(requests.times) <= 1000 + 12 * processes, "and nothing is asked for afterwards"


async def test_first_records_are_under_way_a_few_at_once(world: World) -> None:
    client = world.process()
    client.backend.faults.delay("commit", request=1.0, key="/ext/")
    services = [await DiscoveryService(client, info(f"geo-{number}")).start() for number in range(3 * FIRST)]
    await asyncio.sleep(1.5)
    assert len(world.keys("ext/")) == FIRST
    await asyncio.gather(*(service.stop() for service in services[FIRST : 2 * FIRST]))  # under way, or in their turn
    await asyncio.sleep(1.5)
    assert [service.registered for service in services] == [True] * FIRST + [False] * FIRST + [True] * FIRST
    await until(lambda: len(world.keys("ext/")) == 2 * FIRST, 2)


async def test_records_that_wait_to_try_again_are_woken_for_their_turns(world: World) -> None:
    """All had failed at once, with the session that they share, and would come late to their turns, and together."""
    client = world.process()
    returns, began = Returns.of(client._connection), world.clock.now()
    waiting = [asyncio.ensure_future(returns.pause(5)) for _ in range(100)]
    await asyncio.sleep(1)
    assert returns.wait(await client.shared_session()) < 0.1
    await asyncio.gather(*waiting)
    assert world.clock.now() - began == pytest.approx(1, abs=0.1)
    await returns.pause(5)  # nobody found another one since
    assert world.clock.now() - began == pytest.approx(6, abs=0.1)


async def test_what_an_operator_has_deleted_does_not_return_all_at_once(world: World) -> None:
    client = world.process()
    services = [await registered(client, str(number)) for number in range(300)]
    requests = Requests(world, client)
    world.store.commit([Delete(f"ns/{key}") for key in world.keys("ext/")], {})
    await until(lambda: not all(service.registered for service in services), 1)
    await until(lambda: all(service.registered for service in services), TTL / 3 + 2)
    assert requests.most_in_a_second() <= 200
    assert len(requests.times) <= 300 + 10, "one commit for each, and what a session takes"


async def test_whoever_comes_late_to_its_turn_comes_alone(world: World) -> None:
    client = world.process()
    returns, session = Returns.of(client._connection), await client.shared_session()
    returns.records = 1000
    assert returns.wait(session) < 0.1
    await asyncio.sleep(3)
    late = [returns.wait(session) for _ in range(200)]
    assert late == sorted(late)
    assert late[-1] > 0.9


async def test_a_single_record_returns_at_once(world: World) -> None:
    client = world.process()
    discovery = await registered(client)
    world.store.faults.end_lease(await lease_of(client))
    await asyncio.sleep(0)
    assert not discovery.registered
    await until(lambda: discovery.registered, 0.3)


async def test_who_leaves_while_it_waits_for_its_turn_does_not_return(world: World) -> None:
    client = world.process()
    services = [await registered(client, str(number)) for number in range(60)]
    world.store.faults.end_lease(await lease_of(client))
    await asyncio.sleep(1)
    waiting = [service for service in services if not service.registered]
    assert 30 < len(waiting) < 60
    await asyncio.gather(*(service.stop() for service in waiting))
    await asyncio.sleep(TTL)
    assert len(world.keys("ext/")) == 60 - len(waiting)


async def test_while_the_view_is_away_the_store_is_asked_for_a_record_only_now_and_then(world: World) -> None:
    """A thousand would ask two hundred times a second."""
    client = world.process()
    client.backend.faults.outage("watch", key="ext")
    await registered(client)
    client.backend.calls.clear()
    await asyncio.sleep(60)
    assert 2 <= client.backend.calls["get"] <= 8


async def test_what_is_refused_permission_for_long_returns_by_itself_with_the_latest(world: World) -> None:
    client = world.process()
    discovery = await registered(client)
    client.backend.faults.deny()
    await asyncio.sleep(3 * TTL)
    assert not world.keys("ext/")
    await discovery.update(version="2.0.0")
    client.backend.faults.clear()
    await until(lambda: discovery.registered, TTL / 3 + 2)
    assert [one.version for one in await discovery.discover_extensions()] == ["2.0.0"]
