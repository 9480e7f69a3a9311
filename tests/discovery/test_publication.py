"""Another catalog shows what is registered, and whatever it does harms no registration. Virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
from attrs import evolve
from extensions import info
from worlds import World, lease_of, until

from osdisco.discovery import DiscoveryService, Drain, ExtensionInfo, ExtensionStatus
from osdisco.errors import DiscoveryError

HEALTHY, STOPPING = ExtensionStatus.HEALTHY, ExtensionStatus.STOPPING
HEARTBEAT = 5.0


class Catalog:
    """Keeps what it was told; fails or hangs when it is to."""

    name = "mine"
    heartbeat = HEARTBEAT

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.failing: BaseException | None = None
        self.hanging = False

    async def publish(self, extension: ExtensionInfo) -> None:
        await self._called(f"publish {extension.status.value}")

    async def withdraw(self, extension: ExtensionInfo) -> None:
        await self._called(f"withdraw {extension.id}")

    async def aclose(self) -> None:
        await self._called("close")

    async def _called(self, what: str) -> None:
        self.calls.append(what)
        if self.failing is not None:
            raise self.failing
        if self.hanging:
            await asyncio.Event().wait()


async def test_every_change_is_published_and_the_end_is_withdrawn(world: World) -> None:
    catalog = Catalog()
    async with DiscoveryService(world.process(), info(), publish=[catalog]) as discovery:
        await discovery.wait_registered(5)
        await until(lambda: catalog.calls == ["publish starting"], 0.1)
        await discovery.set_status(HEALTHY)
        await until(lambda: catalog.calls[1:] == ["publish healthy"], 0.1)
    assert catalog.calls[2:] in (["publish stopping", "withdraw geo", "close"], ["withdraw geo", "close"])


async def test_who_drains_is_published_as_stopping_meanwhile(world: World) -> None:
    catalog = Catalog()
    discovery = await DiscoveryService(world.process(), info(), publish=[catalog], drain=Drain(2, 30)).start()
    await discovery.wait_registered(5)
    leaving = asyncio.create_task(discovery.stop())
    await asyncio.sleep(1)
    assert catalog.calls[-1] == "publish stopping"
    await leaving
    assert catalog.calls[-2:] == ["withdraw geo", "close"]


async def test_a_heartbeat_comes_though_nothing_changes(world: World) -> None:
    catalog = Catalog()
    async with DiscoveryService(world.process(), info(), publish=[catalog]) as discovery:
        await discovery.wait_registered(5)
        await asyncio.sleep(10 * HEARTBEAT)
        assert 10 <= len(catalog.calls) <= 22


async def test_nothing_is_published_that_never_was_registered(world: World) -> None:
    catalog = Catalog()
    client = world.process()
    client.backend.faults.outage()  # type: ignore[attr-defined]
    async with DiscoveryService(client, info(), publish=[catalog]):
        await asyncio.sleep(30)
    assert catalog.calls == ["close"]


async def test_an_outage_of_the_store_withdraws_nothing(world: World) -> None:
    """The process lives and says so; others, too, go on with what they last saw."""
    catalog = Catalog()
    client = world.process()
    async with DiscoveryService(client, info(), publish=[catalog]) as discovery:
        await discovery.wait_registered(5)
        client.backend.faults.outage()  # type: ignore[attr-defined]
        world.store.faults.end_lease(await lease_of(client))
        await asyncio.sleep(5 * world.ttl)
        beats = len(catalog.calls)
        assert not discovery.registered
        assert beats > 5
        assert set(catalog.calls) == {"publish starting"}
        client.backend.faults.clear()  # type: ignore[attr-defined]


@pytest.mark.parametrize("failing", [ValueError("broken"), asyncio.CancelledError()], ids=repr)
async def test_a_bad_publication_harms_neither_the_registration_nor_the_others(
    world: World, failing: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    bad, silent, good = Catalog(), Catalog(), Catalog()
    bad.failing, silent.hanging = failing, True
    async with DiscoveryService(world.process(), info(), publish=[bad, silent, good]) as discovery:
        await discovery.wait_registered(1)
        await discovery.set_status(HEALTHY)
        await until(lambda: "publish healthy" in good.calls, 0.1)
        await asyncio.sleep(120)
        assert discovery.registered
        assert 20 < len(bad.calls) < 200, "tried for ever, and not in a hurry"
        assert 5 < len(silent.calls) < 60, "an attempt ends when one operation would"
        bad.failing, silent.hanging = None, False
        await asyncio.sleep(15)
    assert all(catalog.calls[-2:] == ["withdraw geo", "close"] for catalog in (bad, silent, good))
    assert world.keys("ext/") == []
    assert caplog.text.count("WARNING") <= 4, "said once, not at every attempt"


async def test_who_is_superseded_withdraws_at_once(world: World) -> None:
    catalog = Catalog()
    old = await DiscoveryService(world.process(), info(), publish=[catalog]).start()
    await old.wait_registered(5)
    async with DiscoveryService(world.process(), info(port=2)) as new:
        await new.wait_registered(5)
        await until(lambda: catalog.calls[-1] == "withdraw geo", 1)
        await asyncio.sleep(10 * HEARTBEAT)
        await old.stop()
    assert catalog.calls == ["publish starting", "withdraw geo", "close"]


async def test_a_stop_that_is_cancelled_withdraws_all_the_same(world: World) -> None:
    catalog = Catalog()
    discovery = await DiscoveryService(world.process(), info(), publish=[catalog], drain=Drain(2, 30)).start()
    await discovery.wait_registered(5)
    stopping = asyncio.create_task(discovery.stop())
    await asyncio.sleep(1)
    stopping.cancel()
    await asyncio.wait([stopping])
    assert stopping.cancelled()
    await until(lambda: catalog.calls[-2:] == ["withdraw geo", "close"], 1)


async def test_who_only_observes_publishes_nothing(world: World) -> None:
    with pytest.raises(DiscoveryError, match="only observes"):
        DiscoveryService(world.process(), publish=[Catalog()])


SEEDS = 6


async def test_whatever_happened_the_catalog_shows_what_is_registered(osdisco_clock: object) -> None:
    """By chance: changes, outages of the store and of the catalog, silent calls, lost leases."""
    for seed in range(SEEDS):
        world = World(seed=seed)
        await _troubled(world, Board(world.random.random), random.Random(seed))
        await world.aclose()


async def _troubled(world: World, board: Board, chance: random.Random) -> None:
    client = world.process()
    discovery = await DiscoveryService(client, info(), publish=[board]).start()
    await discovery.wait_registered(5)
    for _ in range(20):
        board.bad = chance.choice([0.0, 0.0, 0.5, 1.0])
        match chance.randrange(5):
            case 0:
                client.backend.faults.outage()  # type: ignore[attr-defined]
            case 1:
                client.backend.faults.clear()  # type: ignore[attr-defined]
            case 2 if discovery.registered:
                world.store.faults.end_lease(await lease_of(client))
            case _:
                discovery._own.desire(evolve(discovery.extension, port=chance.randrange(1, 9999)))
        await asyncio.sleep(chance.choice([0, 0.01, 1, 7]))
    client.backend.faults.clear()  # type: ignore[attr-defined]
    board.bad = 0.0
    await until(lambda: discovery.registered and board.shown == {"geo": discovery.extension.port}, 30)
    await discovery.stop()
    assert board.shown == {}


class Board:
    """Shows ports by id. A call may fail or hang, before or after it did what it was to do."""

    name = "board"
    heartbeat = HEARTBEAT

    def __init__(self, chance: Callable[[], float]) -> None:
        self.shown: dict[str, int] = {}
        self.bad = 0.0
        self._chance = chance

    async def publish(self, extension: ExtensionInfo) -> None:
        await self._trouble()
        self.shown[extension.id] = extension.port
        await self._trouble()

    async def withdraw(self, extension: ExtensionInfo) -> None:
        await self._trouble()
        self.shown.pop(extension.id, None)

    async def aclose(self) -> None:
        await self._trouble()

    async def _trouble(self) -> None:
        await asyncio.sleep(0.01)
        if self._chance() < self.bad / 2:
            await asyncio.sleep(3600)
        if self._chance() < self.bad:
            raise OSError("trouble")
