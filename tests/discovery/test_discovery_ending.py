"""Ends that come in the middle of something: nobody waits for ever, and nothing goes on."""

from __future__ import annotations

import asyncio

import pytest
from extensions import info, registered
from worlds import World

from osdisco.discovery import DiscoveryService, ViewStale
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
