"""Use and misuse of the registry: what is refused, ended, closed, and listened to. Virtual time, store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from services import Diary, definition, found, registered, viewed
from worlds import World, until

from osdisco.discovery import ExtensionStatus, ViewFresh, ViewStale
from osdisco.discovery._telling import Backlog, Reader
from osdisco.errors import ClosedError, ConfigError, DiscoveryError, InvalidNameError
from osdisco.registry import (
    ServiceDefinition,
    ServiceEndpoint,
    ServiceEvent,
    ServiceListener,
    ServiceRegistry,
    ViewProtecting,
)
from osdisco.testing import run

HEALTHY, DEGRADED, STOPPING = ExtensionStatus.HEALTHY, ExtensionStatus.DEGRADED, ExtensionStatus.STOPPING


async def test_what_cannot_be_registered_is_refused_at_once(world: World) -> None:
    registry = ServiceRegistry(world.process())
    with pytest.raises(DiscoveryError, match="field address of a service is missing"):
        registry.register(ServiceDefinition("geo", "1"))
    with pytest.raises(DiscoveryError, match="field status"):
        registry.register(definition(), status="healthy")  # type: ignore[arg-type]
    with pytest.raises(InvalidNameError):
        registry.register(definition(name="é" * 100, extension_id="é" * 100))
    for bad in ("", "é" * 200, 5):
        for call in (registry.view, registry.watch):
            with pytest.raises(InvalidNameError):
                call(bad)  # type: ignore[operator]
        with pytest.raises(InvalidNameError):
            await registry.get_endpoints(bad)  # type: ignore[arg-type]


async def test_a_refused_change_changes_nothing(world: World) -> None:
    registration = await registered(world.process())
    for changes in ({"weight": -1}, {"name": "knn"}, {"address": "geo"}, {"colour": "red"}, {"metadata": {"a": 1}}):
        with pytest.raises(DiscoveryError):
            await registration.update(**changes)
    with pytest.raises(DiscoveryError, match="field status"):
        await registration.set_status("healthy")  # type: ignore[arg-type]
    assert registration.registered
    assert registration.endpoint == found()


async def test_stopping_is_final(world: World) -> None:
    registration = await registered(world.process())
    await registration.set_status(STOPPING)
    with pytest.raises(DiscoveryError, match="STOPPING, and that is final"):
        await registration.set_status(HEALTHY)
    await registration.update(weight=1)
    assert registration.endpoint == found(weight=1, status=STOPPING)


async def test_a_registration_is_begun_once_and_ended_as_often_as_one_likes(world: World) -> None:
    registration = ServiceRegistry(world.process()).register(definition())
    await registration.deregister()
    for use in (registration.wait_registered(), registration.update(weight=1), registration.set_status(HEALTHY)):
        with pytest.raises(ClosedError):
            await use
    with pytest.raises(ClosedError):
        registration.in_flight()
    await registration
    with pytest.raises(ClosedError, match="once"):
        await registration
    await asyncio.gather(registration.deregister(), registration.deregister())
    await registration.deregister()
    assert not registration.registered
    with pytest.raises(ClosedError):
        await registration.update(weight=1)


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan"), True, "0.5", None])
async def test_a_share_that_is_none_is_refused(world: World, bad: Any) -> None:
    with pytest.raises(ConfigError, match="from 0"):
        ServiceRegistry(world.process(), protection=bad)


@pytest.mark.parametrize("bad", [0, -1, float("inf"), float("nan"), 3601, True, "30s"])
async def test_a_window_that_is_none_is_refused(world: World, bad: Any) -> None:
    with pytest.raises(ConfigError, match="protection_window"):
        ServiceRegistry(world.process(), protection_window=bad)
    with pytest.raises(ConfigError, match="protection_window"):
        ServiceRegistry(world.process()).view("geo", protection_window=bad)


async def test_a_closed_client_ends_what_was_made_of_it(world: World) -> None:
    seer = await viewed(world.process(), protection=0)
    client = world.process()
    registry = ServiceRegistry(client)
    registration, view = await registry.register(definition()), await registry.view("geo")
    waiting = [
        asyncio.ensure_future(view.until(lambda _: False)),
        asyncio.ensure_future(registration.wait_registered()),
        asyncio.ensure_future(told(registry)),
    ]
    await registration.set_status(DEGRADED)
    world.store.faults.conflate = False
    await client.aclose()
    assert isinstance((await asyncio.gather(*waiting, return_exceptions=True))[0], ClosedError)
    assert isinstance(waiting[2].exception(), ClosedError)
    assert not registration.registered
    await until(lambda: not seer, 0.1)
    await registration.deregister()
    await view.aclose()
    for call in (
        registry.get_endpoints("geo"),
        registry.view("geo")._open(),
        registry.register(definition())._register(),
    ):
        with pytest.raises(ClosedError):
            await call


def test_what_is_merged_tells_how_the_view_is_in_the_end_and_nothing_twice() -> None:
    reader = Reader(Backlog[ServiceEvent]())
    first, last = ServiceEvent(None, found(weight=1)), ServiceEvent(found(weight=1), found(weight=2))
    reader.backlog.put(ViewStale(1, "a"))
    reader.backlog.put([first])
    told = [run(reader.next()) for _ in range(2)]
    changes = [[event] for event in [*[last, ServiceEvent(last.new, first.new)] * 511, last]]
    for event in [ViewFresh(1), ViewStale(2, "b"), ViewProtecting(), *changes]:
        reader.backlog.put(event)
    reader.backlog.close()
    while (event := run(reader.next())) is not None:
        told.append(event)
    assert told == [ViewStale(1, "a"), first, ViewProtecting(), last]


async def test_who_waits_to_be_registered_is_told_that_the_client_was_closed(world: World) -> None:
    client = world.process()
    client.backend.faults.outage()
    registration = await registered(client)
    waiting = asyncio.ensure_future(registration.wait_registered())
    await asyncio.sleep(1)
    await client.aclose()
    with pytest.raises(ClosedError):
        async with asyncio.timeout(1):
            await waiting
    await registration.deregister()


async def told(registry: ServiceRegistry) -> None:
    async with registry.watch("geo") as events:
        async for _ in events:
            pass


async def test_a_listener_may_be_an_object_that_needs_only_what_it_cares_for(world: World) -> None:
    class Listener:
        def __init__(self) -> None:
            self.told: list[str] = []

        def on_endpoints_discovered(self, endpoints: Sequence[ServiceEndpoint]) -> None:
            self.told += [f"+{endpoint.address}" for endpoint in endpoints]

        async def on_endpoints_removed(self, endpoints: Sequence[ServiceEndpoint]) -> None:
            self.told += [f"-{endpoint.address}" for endpoint in endpoints]

        def on_endpoint_changed(self, old: ServiceEndpoint, new: ServiceEndpoint) -> None:
            self.told.append(f"{old.weight}>{new.weight} {new.status.value}")

        def on_view_stale(self, event: ViewStale) -> None:
            self.told.append("stale")

        def on_view_protecting(self, event: ViewProtecting) -> None:
            self.told.append("protecting")

    viewer, client = world.process(), world.process()
    view = await viewed(viewer, protection=1)
    leaving = await registered(world.process(), 1)
    await until(lambda: view)
    listener, whole = Listener(), ServiceListener()
    view.add_listener(listener)
    view.add_listener(whole)
    dying = await registered(client, 2, weight=1)
    await dying.update(weight=2)
    await leaving.deregister()
    world.kill(client)
    world.store.faults.end_lease((await client.shared_session()).id)
    await until(lambda: view.protecting)
    viewer.backend.faults.outage()
    await until(lambda: view.stale)
    await until(lambda: listener.told[-1] == "stale")
    first, second = "10.0.0.1:9700", "10.0.0.2:9700"
    want = [f"+{first}", f"+{second}", "1>2 healthy", "100>100 stopping", f"-{first}", "protecting", "stale"]
    assert listener.told == want
    with pytest.raises(ConfigError, match="ServiceListener"):
        view.add_listener(object())


async def test_a_listener_that_fails_harms_nobody(world: World) -> None:
    view = await viewed(world.process())
    diary = Diary(view)
    calls = 0

    async def bad(_: object) -> None:
        nonlocal calls
        calls += 1
        raise asyncio.CancelledError if calls % 2 else ValueError

    remove = view.add_listener(bad)
    registration = await registered(world.process())
    await registration.set_status(DEGRADED)
    await until(lambda: calls == 2 and len(diary.lines) == 2)
    remove()
    remove()
    diary.remove()
    await registration.set_status(HEALTHY)
    await asyncio.sleep(1)
    assert calls == len(diary.lines) == 2
    with pytest.raises(ConfigError):
        view.add_listener(5)  # type: ignore[arg-type]


async def test_who_listens_too_slowly_is_told_the_difference(world: World) -> None:
    view = await viewed(world.process())
    registration = await registered(world.process(), weight=0)
    go_on, weights = asyncio.Event(), []

    async def slow(event: Any) -> None:
        await go_on.wait()
        weights.append((event.old and event.old.weight, event.new.weight))

    view.add_listener(slow)
    for weight in range(1, 1200):
        await registration.update(weight=weight)
    go_on.set()
    await until(lambda: weights and weights[-1][1] == 1199)
    assert len(weights) < 1100
    assert all(one[1] == other[0] for one, other in pairwise(weights))
