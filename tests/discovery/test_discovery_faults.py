"""Discovery when answers are lost and the store is away: the latest record comes back, old data never does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import count

import pytest
from extensions import Diary, History, info, observer, registered
from worlds import Suspensions, World, lease_of, until

from osdisco._entries import Entry
from osdisco.backend import Condition, Delete, Op, Put
from osdisco.client import Client
from osdisco.discovery import DiscoveryService, ExtensionStatus
from osdisco.errors import OsdiscoError
from osdisco.testing import run

HEALTHY, DEGRADED = ExtensionStatus.HEALTHY, ExtensionStatus.DEGRADED

# Lost answers


@pytest.mark.parametrize("lost", ["drop", "drop_answer", "late"])
async def test_a_registration_whose_answer_was_lost_is_one_record(world: World, lost: str) -> None:
    history = History(world)
    client = world.process()
    options = {"after": 3.0} if lost == "late" else {}
    getattr(client.backend.faults, lost)("commit", times=1, key="ext/", **options)
    discovery = await registered(client, status=HEALTHY)
    await discovery.set_status(DEGRADED)
    await discovery.wait_registered(5)
    await asyncio.sleep(5)
    assert len(world.keys("ext/")) == 1
    assert history.statuses == ["healthy", "degraded"]
    await discovery.stop()
    await asyncio.sleep(5)
    assert world.keys("ext/") == []


@pytest.mark.parametrize("lost", ["drop", "drop_answer", "late"])
async def test_an_update_whose_answer_was_lost_never_comes_over_a_later_one(world: World, lost: str) -> None:
    history = History(world)
    client = world.process()
    discovery = await registered(client)
    options = {"after": 3.0} if lost == "late" else {}
    getattr(client.backend.faults, lost)("commit", times=1, **options)
    await discovery.set_status(HEALTHY)
    await asyncio.sleep(0.01)
    await discovery.set_status(DEGRADED)
    await discovery.wait_registered(5)
    await asyncio.sleep(5)
    assert history.statuses[-1] == "degraded"
    assert history.statuses in (["starting", "healthy", "degraded"], ["starting", "degraded"])
    assert len(world.keys("ext/")) == 1


async def test_an_update_that_is_deleted_before_its_lost_answer_was_found_out_is_made_again(world: World) -> None:
    """Its commit put a tombstone for the record before it, whose first create may still come: it cannot be repeated."""
    client = world.process()
    client.backend.faults.late("commit", after=5, times=1, key="ext/")
    discovery = await registered(client)
    client.backend.faults.drop_answer("commit", times=1, key="ext/")
    commit = world.store.commit

    def commit_and_delete(ops: Sequence[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
        revisions = commit(ops, expect)
        world.store.commit = commit  # type: ignore[method-assign]
        commit([Delete(op.key) for op in ops if "/x/" not in op.key], {})
        return revisions

    world.store.commit = commit_and_delete  # type: ignore[method-assign]
    await discovery.set_status(HEALTHY)
    await discovery.wait_registered(1)
    await asyncio.sleep(10)
    assert [extension.status for extension in await discovery.discover_extensions()] == [HEALTHY]


@pytest.mark.parametrize("first", [False, True])
async def test_what_a_lost_session_has_sent_never_comes_after_what_stands_in_the_next(
    world: World, first: bool
) -> None:
    """The store keeps the lost one for long, and would still take a create in it: an update's, or the very first."""
    world.store.faults.expiry_factor = 3.0
    history = History(world)
    client = world.process()
    discovery = await (DiscoveryService(client, info()).start() if first else registered(client))
    late = client.backend.faults.late("commit", after=2 * world.ttl, times=1, key="ext/")
    changing = asyncio.ensure_future(discovery.set_status(HEALTHY))
    await until(lambda: late.hits)
    with client.backend.faults.outage("commit", "get", "renew", "revoke"):
        await asyncio.sleep(1.2 * world.ttl)
    await discovery.set_status(DEGRADED)
    await discovery.wait_registered(5)
    assert len(world.keys("ext/")) == 1
    await asyncio.sleep(2 * world.ttl)
    assert history.statuses == (["degraded"] if first else ["starting", "degraded"])
    await changing
    await discovery.stop()


async def test_leaving_with_lost_answers_leaves_nothing(world: World) -> None:
    for lost in ("drop", "drop_answer"):
        client = world.process()
        discovery = await registered(client)
        getattr(client.backend.faults, lost)("commit", times=2)
        await discovery.stop()
        assert world.keys("ext/") == []


# The store is away


async def test_starting_while_the_store_is_down_registers_when_it_is_there(world: World) -> None:
    history = History(world)
    client = world.process()
    client.backend.faults.outage()
    async with DiscoveryService(client, info()) as discovery:
        await asyncio.sleep(30)
        assert not discovery.registered
        await discovery.set_status(HEALTHY)
        await asyncio.sleep(30)
        client.backend.faults.clear()
        await discovery.wait_registered(timeout=10)
        assert history.statuses == ["healthy"]


@pytest.mark.parametrize("seconds", [4, 60])
@pytest.mark.parametrize("fault", ["outage", "freeze"])
async def test_what_changed_during_an_outage_is_published_after_it_and_the_old_never_again(
    world: World, fault: str, seconds: float
) -> None:
    """Within the ttl, and beyond it."""
    history = History(world)
    client = world.process()
    discovery = await registered(client)
    getattr(client.backend.faults, fault)()
    await discovery.set_status(HEALTHY)
    await asyncio.sleep(seconds / 2)
    await discovery.set_status(DEGRADED)
    await asyncio.sleep(seconds / 2)
    assert not discovery.registered
    client.backend.faults.clear()
    await discovery.wait_registered(timeout=10)
    await asyncio.sleep(10)
    assert history.statuses[0] == "starting"
    assert history.statuses[-1] == "degraded"
    assert history.statuses in (["starting", "degraded"], ["starting", "healthy", "degraded"])
    assert len(world.keys("ext/")) == 1


async def test_the_view_keeps_the_last_known_while_the_store_is_away(world: World) -> None:
    viewer = world.process()
    seer = await observer(viewer)
    diary = Diary(seer)
    await registered(world.process())
    await until(lambda: seer.extensions)
    viewer.backend.faults.outage()
    await asyncio.sleep(60)
    assert list(seer.extensions) == ["geo"]
    assert seer.extensions.stale
    assert 59 < seer.extensions.age < 61
    assert diary.lines == ["+geo starting"]
    with pytest.raises(OsdiscoError):
        await seer.discover_extensions()
    viewer.backend.faults.clear()
    await until(lambda: not seer.extensions.stale, 20)
    assert diary.lines == ["+geo starting"]


async def test_what_went_during_an_outage_is_told_after_it(world: World) -> None:
    viewer = world.process()
    seer = await observer(viewer)
    leaving = await registered(world.process())
    await until(lambda: seer.extensions)
    diary = Diary(seer)
    viewer.backend.faults.outage()
    world.store.faults.compact()
    await leaving.stop()
    world.store.faults.compact()
    await registered(world.process(), "knn")
    await asyncio.sleep(5)
    viewer.backend.faults.clear()
    await until(lambda: "knn" in seer.extensions, 10)
    await until(lambda: diary.lines == ["+geo starting", "-geo starting", "+knn starting"])


@pytest.mark.parametrize("fault", ["outage", "freeze"])
async def test_leaving_while_the_store_is_away_ends_in_time_and_nothing_stays(world: World, fault: str) -> None:
    client = world.process()
    discovery = await registered(client)
    getattr(client.backend.faults, fault)()
    began = world.clock.now()
    await discovery.stop()
    assert world.clock.now() - began <= client.options.timeout + 0.1
    client.backend.faults.clear()
    await until(lambda: not world.keys("ext/"), 5)


async def test_leaving_before_it_was_ever_registered_does_not_wait(world: World) -> None:
    client = world.process()
    client.backend.faults.outage()
    async with DiscoveryService(client, info()):
        await asyncio.sleep(10)
        began = world.clock.now()
    assert world.clock.now() - began < 0.1


async def test_a_refused_registration_is_tried_on(world: World) -> None:
    client = world.process()
    client.backend.faults.deny("commit", key="ext/")
    async with DiscoveryService(client, info()) as discovery:
        with pytest.raises(OsdiscoError, match="denied"):
            await discovery.wait_registered(10)
        client.backend.faults.clear()
        await discovery.wait_registered(10)


# Cancellation


async def use(client: Client, world: World) -> None:
    async with DiscoveryService(client, info()) as discovery:
        await discovery.wait_registered(5)
        await discovery.set_status(HEALTHY)
        await discovery.wait_registered(5)


def fine(client: Client) -> None:
    pass


def answers_lost(client: Client) -> None:
    client.backend.faults.drop_answer("commit", times=2, key="ext/")


def late(client: Client) -> None:
    client.backend.faults.late("commit", after=0.3, times=2, key="ext/")


@pytest.mark.parametrize("fault", [fine, answers_lost, late])
def test_cancelled_anywhere_it_leaves_nothing(fault: Callable[[Client], None]) -> None:
    async def main(first: int, more: int) -> bool:
        world = World()
        client = world.process()
        await client.shared_session()
        fault(client)
        suspensions = Suspensions(first, more)
        task = asyncio.ensure_future(suspensions.of(use(client, world)))
        await asyncio.wait([task])
        await asyncio.sleep(5)
        assert world.keys("ext/") == []
        await world.aclose()
        assert world.keys() == []
        return suspensions.count >= first

    for more in (0, 1, 2):
        for first in count(1):
            if not run(main(first, more)):
                break
        assert first > 4


async def test_a_lease_that_ends_between_two_updates_costs_no_change(world: World) -> None:
    client = world.process()
    discovery = await registered(client)
    world.store.faults.end_lease(await lease_of(client))
    await discovery.set_status(HEALTHY)
    await discovery.wait_registered(5)
    assert (await discovery.discover_extensions())[0].status is HEALTHY


async def test_what_is_replaced_goes_although_another_of_them_has_its_tombstone_already(world: World) -> None:
    """As after two losses in a row: the first undecided record was entombed by a commit whose answer was lost."""
    client = world.process()
    session = await client.shared_session()

    def entry(number: int) -> Entry:
        return Entry(client._connection, client._keys, session, "ext", "geo", f"p.{number}")

    undecided, stands, new = entry(1), entry(2), entry(3)
    world.store.commit([Put(undecided._tombstone, b"")], {})
    undecided._unaccounted = 1
    await stands.create(b"old")
    await new.create(b"new", instead_of=[undecided, stands])
    assert world.keys("ext/") == ["ext/geo/p.3"]
    await new.end()
    world.store.commit([Delete(undecided._tombstone)], {})
