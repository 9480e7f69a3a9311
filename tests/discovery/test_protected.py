"""Protection of the view of extensions against a panic: the same as that of services, and off unless asked for."""

from __future__ import annotations

import asyncio

import pytest
from extensions import Diary, registered
from worlds import World, lease_of, until

from osdisco.discovery import DiscoveryService, ExtensionStatus
from osdisco.errors import ConfigError

HEALTHY = ExtensionStatus.HEALTHY


async def protecting(world: World, share: float) -> DiscoveryService:
    service = await DiscoveryService(world.process(), protection=share, protection_window=20).start()
    await service.wait_known(5)
    return service


async def test_extensions_that_vanish_at_once_are_shown_for_a_window_and_found(world: World) -> None:
    seer = await protecting(world, 0.5)
    clients = [world.process() for _ in range(4)]
    for number, client in enumerate(clients):
        await registered(client, f"geo-{number}", port=number + 1, status=HEALTHY, capabilities=["geo.search"])
    await until(lambda: len(seer.extensions) == 4)
    diary = Diary(seer)
    for client in clients:
        world.kill(client)
    await until(lambda: seer.extensions.protecting, 2 * world.ttl)
    await until(lambda: len(seer.extensions.protected) == 2, 5)
    shown = list(seer.extensions)
    assert set(shown) == set(seer.extensions.protected) == {one.id for one in seer.find_by_capability("geo.search")}
    assert seer.extensions[shown[0]].status is HEALTHY
    assert await seer.discover_extensions() == []
    await asyncio.sleep(25)
    assert dict(seer.extensions) == {}
    assert seer.find_by_capability("geo.search") == []
    assert not seer.extensions.protecting
    await until(lambda: len([line for line in diary.lines if line.startswith("-")]) == 4)


async def test_extensions_that_return_were_never_seen_to_go(world: World, caplog: pytest.LogCaptureFixture) -> None:
    seer = await protecting(world, 1.0)
    client = world.process()
    discovery = await registered(client, status=HEALTHY)
    await until(lambda: seer.extensions)
    diary = Diary(seer)
    world.store.faults.end_lease(await lease_of(client))
    await asyncio.sleep(5)
    assert discovery.registered
    assert "too many vanished at once" in caplog.text
    assert not seer.extensions.protecting
    assert diary.lines == ["+geo healthy"]
    await discovery.stop()
    await until(lambda: not seer.extensions, 0.1)


async def test_unless_it_is_asked_for_extensions_go_at_once(world: World) -> None:
    seer = await protecting(world, 0)
    client = world.process()
    await registered(client)
    await until(lambda: seer.extensions)
    world.kill(client)
    world.store.faults.end_lease(await lease_of(client))
    await until(lambda: not seer.extensions, 0.1)
    with pytest.raises(ConfigError, match="protection"):
        DiscoveryService(world.process(), protection=2)
