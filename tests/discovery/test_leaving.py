"""Leaving: STOPPING first, then a wait for work in flight, then the removal; and never longer than it may take."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from extensions import Diary, info, observer, registered
from worlds import World, connect, lease_of, until

from osdisco.client import Client
from osdisco.discovery import DiscoveryService, Drain, ExtensionStatus, LeavingPhase
from osdisco.errors import ClosedError, DiscoveryError

HEALTHY, STOPPING = ExtensionStatus.HEALTHY, ExtensionStatus.STOPPING
LEFT = ["+geo healthy", "geo healthy>stopping", "-geo stopping"]


async def serving(client: Client, drain: Drain | None = None) -> DiscoveryService:
    service = await DiscoveryService(client, info(status=HEALTHY), drain=drain).start()
    await service.wait_registered(5)
    return service


def working(service: DiscoveryService, seconds: float) -> asyncio.Task[None]:
    """Have some work in flight."""

    async def work() -> None:
        async with service.in_flight():
            await asyncio.sleep(seconds)

    return asyncio.get_running_loop().create_task(work())


@asynccontextmanager
async def takes(world: World, seconds: float) -> AsyncGenerator[None, None]:
    began = world.clock.now()
    yield
    assert world.clock.now() - began == pytest.approx(seconds, abs=0.1)


# In order


async def test_what_serves_says_so_lets_others_see_it_and_lets_its_work_end(world: World) -> None:
    seer = await observer(world.process())
    diary = Diary(seer)
    service = await serving(world.process(), Drain(propagation=2, grace=30))
    working(service, 7)
    await asyncio.sleep(0)
    async with takes(world, 7):
        leaving = asyncio.ensure_future(service.stop())
        await asyncio.sleep(6.9)
        assert diary.lines == LEFT[:2], "STOPPING is not seen, or it went before its work was done"
        assert (service.draining, service.leaving.phase) == (True, LeavingPhase.DRAINING)
        assert (service.registered, service.extension.status) == (True, STOPPING)
        await leaving
    await until(lambda: diary.lines == LEFT, 0.1)
    assert (service.leaving.phase, service.leaving.in_flight) == (LeavingPhase.LEFT, 0)


async def test_without_work_stopping_stands_for_the_propagation(world: World) -> None:
    service = await serving(world.process(), Drain(propagation=2))
    async with takes(world, 2):
        await service.stop()


async def test_work_that_comes_while_it_drains_is_waited_for_too(world: World) -> None:
    service = await serving(world.process(), Drain(propagation=2, grace=30))
    leaving = asyncio.ensure_future(service.stop())
    await asyncio.sleep(1.5)
    working(service, 3)
    async with takes(world, 3):
        await leaving


async def test_grace_ends_the_wait_and_says_what_is_still_under_way(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    service = await serving(world.process(), Drain(propagation=2, grace=10))
    works = [working(service, 3600), working(service, 3600)]
    await asyncio.sleep(0)
    with caplog.at_level(logging.WARNING, "osdisco"):
        async with takes(world, 10), asyncio.timeout(60):
            await service.stop()
    assert "2 pieces of work still under way" in caplog.text
    assert world.keys("ext/") == []
    for work in works:
        work.cancel()


async def test_without_a_drain_only_who_has_served_waits(world: World) -> None:
    service = await serving(world.process())
    async with takes(world, 0):
        await service.stop()
    service = await serving(world.process())
    async with service.in_flight():
        pass
    async with takes(world, 2):
        await service.stop()
    service = await serving(world.process(), Drain(propagation=0, grace=0))
    working(service, 1)
    await asyncio.sleep(0)
    async with takes(world, 0):
        await service.stop()
    await asyncio.sleep(1)


async def test_work_that_fails_has_ended_too(world: World) -> None:
    service = await serving(world.process(), Drain(propagation=0))
    with pytest.raises(ZeroDivisionError):
        async with service.in_flight():
            1 / 0  # noqa: B018
    async with takes(world, 0):
        await service.stop()


async def test_who_only_observes_lets_its_work_end_too(world: World) -> None:
    service = await DiscoveryService(world.process()).start()
    working(service, 3)
    await asyncio.sleep(0)
    async with takes(world, 3):
        await service.stop()


# Final


async def test_stopping_is_final(world: World) -> None:
    service = await serving(world.process(), Drain(propagation=5))
    leaving = asyncio.ensure_future(service.stop())
    await asyncio.sleep(1)
    for change in (service.set_status(HEALTHY), service.update(version="2.0.0")):
        with pytest.raises(DiscoveryError, match="is leaving"):
            await change
    with pytest.raises(ClosedError):
        await service.wait_registered()
    assert [one.status for one in await service.discover_extensions()] == [STOPPING]
    await leaving


async def test_what_an_operator_deletes_while_it_drains_is_stopping_when_it_returns(world: World) -> None:
    diary = Diary(await observer(world.process()))
    client = world.process()
    service = await serving(client, Drain(propagation=5))
    leaving = asyncio.ensure_future(service.stop())
    await asyncio.sleep(1)
    world.store.faults.end_lease(await lease_of(client))
    await leaving
    await until(lambda: diary.lines == [*LEFT, "+geo stopping", "-geo stopping"], 0.1)


# A second stop, and one that is cancelled


async def test_a_second_stop_waits_for_the_first(world: World) -> None:
    service = await serving(world.process(), Drain(propagation=5))
    first = asyncio.ensure_future(service.stop())
    await asyncio.sleep(1)
    async with takes(world, 4):
        await service.stop()
    assert first.done()
    async with takes(world, 0):
        await service.stop()


async def test_a_second_stop_that_is_cancelled_leaves_the_first_alone(world: World) -> None:
    service = await serving(world.process(), Drain(propagation=5))
    first = asyncio.ensure_future(service.stop())
    await asyncio.sleep(1)
    second = asyncio.ensure_future(service.stop())
    await asyncio.sleep(1)
    second.cancel()
    async with takes(world, 3):
        await first


@pytest.mark.parametrize("after", [0, 1, 4])
async def test_now_waits_for_nothing_also_in_the_middle(world: World, after: float) -> None:
    diary = Diary(await observer(world.process()))
    service = await serving(world.process(), Drain(propagation=2))
    work = working(service, 100)
    await asyncio.sleep(0)
    first = asyncio.ensure_future(service.stop())
    await asyncio.sleep(after)
    async with takes(world, 0):
        await service.stop(now=True)
    assert first.done()
    await until(lambda: diary.lines == LEFT, 0.1)
    work.cancel()


@pytest.mark.parametrize("after", [0, 1, 4])
async def test_a_stop_that_is_cancelled_takes_the_registration_away_at_once(world: World, after: float) -> None:
    client = world.process()
    service = await serving(client, Drain(propagation=2))
    work = working(service, 100)
    await asyncio.sleep(0)
    stopping = asyncio.ensure_future(service.stop())
    await asyncio.sleep(after)
    another = asyncio.ensure_future(service.stop())
    await asyncio.sleep(0)
    async with takes(world, 0):
        stopping.cancel()
        await asyncio.wait([stopping, another])
    assert stopping.cancelled()
    assert another.exception() is None
    await until(lambda: not world.keys("ext/"), 0.1)
    assert service.leaving.phase is LeavingPhase.LEFT
    work.cancel()


# While the store is away


@pytest.mark.parametrize("fault", ["outage", "freeze"])
async def test_during_an_outage_it_takes_at_most_one_timeout_and_the_grace(world: World, fault: str) -> None:
    client = world.process(timeout=5)
    service = await serving(client, Drain(propagation=2, grace=8))
    work = working(service, 3600)
    getattr(client.backend.faults, fault)()
    began = world.clock.now()
    await service.stop()
    assert 8 <= world.clock.now() - began <= 8 + 5.1
    client.backend.faults.clear()
    await until(lambda: not world.keys("ext/"), 20)
    work.cancel()


async def test_who_was_never_registered_does_not_come_up_only_to_go(world: World) -> None:
    diary = Diary(await observer(world.process()))
    client = world.process()
    client.backend.faults.outage()
    service = await DiscoveryService(client, info(), drain=Drain(propagation=20, grace=60)).start()
    await asyncio.sleep(5)
    working(service, 30)
    await asyncio.sleep(0)
    async with takes(world, 30):
        leaving = asyncio.ensure_future(service.stop())
        await asyncio.sleep(5)
        client.backend.faults.clear()
        await leaving
    assert diary.lines == []


async def test_who_was_superseded_lets_its_work_end_and_says_nothing(world: World) -> None:
    old = await serving(world.process(), Drain(propagation=2))
    await serving(world.process())
    await until(lambda: old.superseded)
    diary = Diary(await observer(world.process()))
    working(old, 5)
    await asyncio.sleep(0)
    async with takes(world, 5):
        await old.stop()
    assert diary.lines == ["+geo healthy"]


# Bad input


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ({"propagation": -1}, "propagation is a number of seconds, 0 or more, not -1"),
        ({"grace": math.inf}, "grace is a number of seconds"),
        ({"grace": math.nan}, "grace is a number of seconds"),
        ({"grace": "30s"}, "not '30s'"),
        ({"propagation": True}, "not True"),
        ({"grace": 1}, "grace is 1 s, and propagation, which is part of it, 2 s"),
    ],
)
def test_times_that_cannot_be(times: dict[str, Any], words: str) -> None:
    with pytest.raises(DiscoveryError, match=words):
        Drain(**times)


# On every store


@pytest.mark.osdisco("memory", "etcd", "etcd+http", "consul")
async def test_another_process_sees_stopping_before_the_removal(osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as other:
        seer = await observer(other)
        diary = Diary(seer)
        service = await serving(client, Drain(propagation=0.3, grace=10))
        async with service.in_flight():
            leaving = asyncio.ensure_future(service.stop())
            await until(lambda: diary.lines == LEFT[:2])
            await asyncio.sleep(0.5)
            assert [one.status for one in await seer.discover_extensions()] == [STOPPING]
        await leaving
        assert await seer.discover_extensions() == []
        await until(lambda: diary.lines == LEFT)
        await seer.stop()


async def test_a_client_that_closes_in_the_middle_does_not_end_the_work(world: World) -> None:
    client = world.process()
    service = await registered(client)
    working(service, 5)
    await asyncio.sleep(0)
    leaving = asyncio.ensure_future(service.stop())
    await asyncio.sleep(1)
    await client.aclose()
    async with takes(world, 4):
        await leaving
