"""Ends that come in the middle of something: nobody waits for ever, and nothing goes on."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest
from extensions import info, registered
from probers import Net, prober, probing
from worlds import Suspensions, World, until

from osdisco.discovery import DiscoveryService, FunctionCheck, ViewStale
from osdisco.errors import ClosedError


async def test_a_stop_that_is_cancelled_in_the_middle_is_a_stop_all_the_same(world: World) -> None:
    discovery = await registered(world.process())
    stopped: list[str] = []

    async def cut_off() -> None:
        stopped.append("publishers")
        raise asyncio.CancelledError

    discovery._publishers.stop = cut_off  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await discovery.stop()
    assert stopped == ["publishers"]
    await asyncio.wait_for(discovery.stop(), 1)
    assert not discovery._view.users


@pytest.mark.parametrize("what", ["wait_registered", "wait_known"])
async def test_who_waits_without_end_is_told_that_the_client_was_closed(world: World, what: str) -> None:
    client = world.process()
    client.backend.faults.outage()
    discovery = await DiscoveryService(client, info()).start()
    waiting = asyncio.ensure_future(getattr(discovery, what)())
    await asyncio.sleep(1)
    await client.aclose()
    with pytest.raises(ClosedError):
        await asyncio.wait_for(waiting, 1)


async def test_a_start_that_failed_leaves_the_view_to_those_who_have_it(world: World) -> None:
    client = world.process()
    first = await DiscoveryService(client).start()
    view = first.extensions
    await first.stop()
    await client.aclose()
    failed = DiscoveryService(client)
    assert failed.extensions is view
    with pytest.raises(ClosedError):
        await failed.start()
    await failed.stop()
    assert (view._users, view._roster.users, view.stale) == (set(), 0, True)


async def test_who_looks_again_after_an_outage_in_which_nobody_looked_is_told_of_none(world: World) -> None:
    client = world.process()
    first = await registered(client)
    view = first.extensions  # keeps it
    client.backend.faults.outage()
    await asyncio.sleep(30)
    assert view._roster.staleness.stale
    await first.stop()
    client.backend.faults.clear()
    again = DiscoveryService(client)
    assert again.extensions is view
    told: list[ViewStale] = []

    class Listener:
        def on_view_stale(self, event: ViewStale) -> None:
            told.append(event)

    again.add_listener(Listener())
    async with again:
        await again.wait_known(5)
        await asyncio.sleep(1)
    assert told == []


async def test_a_stop_while_an_endpoint_is_being_ended_takes_away_what_was_found_there(world: World, net: Net) -> None:
    """A prober that goes on to keep it would keep it there as long as its client is open."""
    gone = await registered(world.process(), "x1", host="10.0.0.1")
    stopping = await prober(world, interval=1)
    await until(lambda: world.keys("probe/found/"), 30)
    net.stuck.add("10.0.0.1")
    asked = net.count()
    await until(lambda: net.count() != asked, 30)
    await gone.stop()
    await asyncio.sleep(0.1)
    assert world.keys("probe/found/"), "the end of its probe takes a second"
    await stopping.stop()
    await asyncio.sleep(1)
    assert world.keys("probe/") == []


@pytest.mark.parametrize("more", [0, 3])
async def test_a_prober_that_is_cancelled_anywhere_while_it_stops_leaves_nothing(
    world: World, net: Net, more: int
) -> None:
    for number in range(1, 4):
        await registered(world.process(), f"x{number}", host=f"10.0.0.{number}")
    for first in count(1):
        stopping = await prober(world, interval=1)
        await until(lambda: len(world.keys("probe/found/")) == 3, 30)
        stop = Suspensions(first, more)
        await asyncio.gather(stop.of(stopping.stop()), return_exceptions=True)
        await asyncio.sleep(1)
        assert world.keys("probe/") == [], f"cancelled at its suspension {first}"
        assert not stopping._view.users
        if stop.count < first:
            break
    assert first > 3


async def test_a_start_that_failed_is_stopped_in_peace_and_has_begun_nothing(world: World, net: Net) -> None:
    client = world.process()
    failed = DiscoveryService(client, info(), checks=[FunctionCheck(lambda: None)], probing=probing())
    events = failed.events()
    await events.__aenter__()
    await client.aclose()
    for _ in range(2):
        with pytest.raises(ClosedError):
            await failed.start()
        await failed.stop()
    await failed.stop(now=True)
    with pytest.raises(ClosedError):
        await failed.findings()
    assert [event async for event in events] == [], "nor does it wait for ever"
    assert (failed.extensions._users, failed.extensions._hearers, failed._view.users) == (set(), {}, 0)
    assert not client._connection.supervisor._tasks


async def test_of_a_client_that_is_closed_nobody_is_told(world: World) -> None:
    client = world.process()
    discovery = await registered(client)
    await client.aclose()
    before = asyncio.all_tasks()
    with pytest.raises(ClosedError):
        discovery.add_listener(print)
    with pytest.raises(ClosedError):
        await discovery.events().__aenter__()
    assert asyncio.all_tasks() == before
