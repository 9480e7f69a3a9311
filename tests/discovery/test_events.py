"""Events as an iterator: subscribed at entry, what is there first, nothing lost, doubled or out of order."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from extensions import info, observer, registered
from worlds import World, until

from osdisco.discovery import (
    DiscoveryService,
    ExtensionEvent,
    ExtensionStatus,
    Superseded,
    ViewFresh,
    ViewStale,
    _telling,
)
from osdisco.discovery._iterating import Events
from osdisco.errors import ClosedError, DiscoveryError

HEALTHY = ExtensionStatus.HEALTHY


def short(event: object) -> str:
    if not isinstance(event, ExtensionEvent):
        return type(event).__name__
    return f"{'+' if event.old is None else '-' if event.new is None else '='}{event.extension.id}"


async def taken(told: Events, seconds: float = 1.0) -> list[str]:
    """Return what comes within some seconds."""
    shorts: list[str] = []
    try:
        async with asyncio.timeout(seconds):
            async for event in told:
                shorts.append(short(event))
            shorts.append("end")
    except TimeoutError:
        pass
    return shorts


async def test_what_is_there_comes_first_and_nothing_is_lost_after_entry(world: World) -> None:
    seer = await observer(world.process())
    await registered(world.process(), "a")
    await until(lambda: seer.extensions)
    async with seer.events() as told:
        second = await registered(world.process(), "b")
        await second.set_status(HEALTHY)
        await second.stop()
        assert await taken(told) == ["+a", "+b", "=b", "=b", "-b"]
    await registered(world.process(), "c")
    assert await taken(told) == ["end"]


async def test_events_before_the_store_is_known(world: World) -> None:
    client = world.process()
    await registered(world.process(), "a")
    async with DiscoveryService(client) as seer, seer.events() as told:
        assert await taken(told) == ["+a"]


async def test_it_ends_when_the_service_stops(world: World) -> None:
    seer = await observer(world.process())
    async with seer.events() as told:
        reading = asyncio.ensure_future(taken(told, 60))
        await registered(world.process(), "a")
        await asyncio.sleep(1)
        await seer.stop()
        assert await reading == ["+a", "end"]
    with pytest.raises(ClosedError):
        async with seer.events():
            pass
    with pytest.raises(ClosedError):
        seer.add_listener(print)


async def test_it_ends_when_the_client_closes(world: World) -> None:
    client = world.process()
    seer = await observer(client)
    async with seer.events() as told:
        reading = asyncio.ensure_future(taken(told, 60))
        await asyncio.sleep(1)
        await client.aclose()
        assert await reading == ["end"]


async def test_they_are_entered_once_and_before_they_are_read(world: World) -> None:
    seer = await observer(world.process())
    told = seer.events()
    with pytest.raises(ClosedError, match="enter"):
        await anext(told)
    async with told:
        with pytest.raises(ClosedError, match="once"):
            await told.__aenter__()


async def test_who_is_slow_is_told_the_difference(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_telling, "PENDING_MAX", 10)
    seer = await observer(world.process())
    discovery = await registered(world.process(), "a")
    await until(lambda: seer.extensions)
    async with seer.events() as told:
        for number in range(50):
            await discovery.update(version=f"1.{number}")
        await until(lambda: seer.extensions["a"].version == "1.49")
        got = [await anext(told)]
        while got[-1].new.version != "1.49":
            got.append(await anext(told))
    assert len(got) <= 11
    assert got[0].old is None
    for earlier, later in pairwise(got):
        assert earlier.new == later.old


# Stale and fresh


async def test_an_outage_is_told_when_it_begins_and_ends_and_empties_nothing(world: World) -> None:
    client = world.process()
    seer = await observer(client)
    await registered(world.process(), "a")
    await until(lambda: seer.extensions)
    async with seer.events() as told:
        client.backend.faults.outage()
        assert await taken(told, 0.1) == ["+a", "ViewStale"]
        began = world.clock.now()
        assert seer.extensions.stale
        await asyncio.sleep(60)
        assert list(seer.extensions) == ["a"]
        await registered(world.process(), "b")
        client.backend.faults.clear()
        fresh = await anext(told)
        assert isinstance(fresh, ViewFresh)
        assert fresh.lasted == pytest.approx(world.clock.now() - began, abs=0.2)
        assert await taken(told) == ["+b"]
        assert not seer.extensions.stale


async def test_the_end_of_an_outage_in_which_nothing_changed_is_told(world: World) -> None:
    client = world.process()
    seer = await observer(client)
    async with seer.events() as told:
        client.backend.faults.outage()
        stale = await anext(told)
        assert isinstance(stale, ViewStale)
        assert stale.reason == str(seer._view.error)
        assert stale.age < 15
        await asyncio.sleep(5)
        client.backend.faults.clear()
        await until(lambda: not seer.extensions.stale, 30)
        assert await taken(told) == ["ViewFresh"]


async def test_silence_is_told_without_any_trouble(world: World) -> None:
    """As after a suspend, or from a backend that breaks its promise to speak."""
    client = world.process()
    seer = await observer(client)
    feed = seer._view._feed
    async with seer.events() as told:
        fold, feed._fold = feed._fold, lambda frame: None
        assert await taken(told, 14) == []
        assert await taken(told, 2) == ["ViewStale"]
        feed._fold = fold
        assert await taken(told, 20) == ["ViewFresh"]


async def test_who_comes_during_an_outage_is_told_that_the_view_is_stale(world: World) -> None:
    client = world.process()
    seer = await observer(client)
    await registered(world.process(), "a")
    await until(lambda: seer.extensions)
    client.backend.faults.outage()
    await until(lambda: seer.extensions.stale)
    async with seer.events() as told:
        assert await taken(told) == ["+a", "ViewStale"]


async def test_a_service_that_starts_in_an_outage_tells_so_once(world: World) -> None:
    client = world.process()
    client.backend.faults.outage()
    await registered(world.process(), "a")
    async with DiscoveryService(client) as seer, seer.events() as told:
        assert await taken(told, 30) == ["ViewStale"]
        client.backend.faults.clear()
        assert await taken(told, 30) == ["ViewFresh", "+a"]


async def test_listeners_are_told_too(world: World) -> None:
    class Listener:
        def __init__(self) -> None:
            self.told: list[Any] = []

        def on_view_stale(self, event: ViewStale) -> None:
            self.told.append(event)

        def on_view_fresh(self, event: ViewFresh) -> None:
            self.told.append(event)

    client = world.process()
    seer = await observer(client)
    listener, functions = Listener(), []
    seer.add_listener(listener)
    seer.add_listener(functions.append)
    client.backend.faults.outage()
    await until(lambda: seer.extensions.stale)
    client.backend.faults.clear()
    await until(lambda: len(listener.told) == 2, 30)
    assert [type(event) for event in listener.told] == [ViewStale, ViewFresh]
    assert functions == []


def test_merging_keeps_the_last_that_was_told_of_the_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_telling, "PENDING_MAX", 2)
    backlog = _telling.Backlog[ExtensionEvent]()
    a, b = info("a"), info("b")
    stale, fresh = ViewStale(1.0, "away"), ViewFresh(1.0)
    gone = Superseded(b)
    for told in ([ExtensionEvent(None, a)], stale, gone, [ExtensionEvent(a, None)], fresh, [ExtensionEvent(None, b)]):
        backlog.put(told)
    got = [backlog.take() for _ in range(len(backlog))]
    assert [event for told in got if isinstance(told, list) for event in told] == [ExtensionEvent(None, b)]
    assert [told for told in got if not isinstance(told, list | tuple)] == [gone], "it knew of no staleness"


# Superseded


async def test_who_is_superseded_is_told_once_and_by_whom(world: World) -> None:
    class Listener:
        told: list[Superseded]

        def on_superseded(self, event: Superseded) -> None:
            self.told = [*getattr(self, "told", []), event]

    first, listener = await registered(world.process(), port=1), Listener()
    first.add_listener(listener)
    async with first.events() as told:
        assert await taken(told) == ["+geo"]
        second = await registered(world.process(), port=2)
        assert await taken(told) == ["=geo", "Superseded"]
        await second.set_status(HEALTHY)
        assert await taken(told) == ["=geo"]
    assert listener.told == [Superseded(info(port=2))]
    with pytest.raises(DiscoveryError, match="anew"):
        await first.set_status(HEALTHY)


# Services of one client


async def test_services_of_one_client_share_a_view_and_each_is_told_all(world: World) -> None:
    client = world.process()
    first = await observer(client)
    await registered(world.process(), "a")
    await until(lambda: first.extensions)
    second = DiscoveryService(client)
    assert second.extensions is first.extensions
    async with second.events() as told:  # before it starts
        await registered(world.process(), "b")
        await until(lambda: len(first.extensions) == 2)
        assert await taken(told) == []
        await second.start()
        assert await taken(told) == ["+a", "+b"]
        await first.stop()
        await registered(world.process(), "c")
        assert await taken(told) == ["+c"]
        assert not second.extensions.stale
        client.backend.faults.outage()
        assert await taken(told) == ["ViewStale"]
        third = DiscoveryService(client)
        async with third.events() as before:
            await third.start()
            assert await taken(before) == ["+a", "+b", "+c", "ViewStale"]
        async with third.events() as later:
            assert await taken(later) == ["+a", "+b", "+c", "ViewStale"]
    await second.stop()
    await third.stop()
    client.backend.faults.clear()
    assert third.extensions.stale
    assert list(third.extensions) == ["a", "b", "c"]
    async with DiscoveryService(client) as fourth:
        await fourth.wait_known(10)
        assert list(fourth.extensions) == ["a", "b", "c"]
        assert not fourth.extensions.stale
