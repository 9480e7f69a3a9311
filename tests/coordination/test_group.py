"""Groups: who takes part, seen by all, kept over every loss."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest
from strikes import STRIKES, trouble_among
from worlds import Suspensions, World, connect, lease_of

from osdisco._feed import Change
from osdisco._keys import Keyspace
from osdisco._records import encode
from osdisco.backend import Delete, Item, Lease, Put
from osdisco.client import Client
from osdisco.coordination import CoordinationService, Group, Member, MemberEvent, Membership
from osdisco.coordination.group import MemberTable
from osdisco.errors import (
    ClosedError,
    LostError,
    TimedOutError,
    UnavailableError,
)
from osdisco.testing import Scenario, SimulatedProcess, Simulation, run, scenario
from osdisco_memory import LIMITS


def group_of(client: Client, name: str = "workers") -> Group:
    return CoordinationService(client).group(name)


async def ids(client: Client) -> list[str]:
    return [member.id for member in await group_of(client).members()]


async def test_members_see_each_other_with_what_they_tell(world: World) -> None:
    a, b = world.process(), world.process()
    async with group_of(a).join("a", weight=2, info={"host": "h", "n": [1]}) as one:
        async with group_of(b).join("b") as other:
            expected = [Member("a", 2, {"host": "h", "n": [1]}), Member("b", 1, {})]
            assert await group_of(world.process()).members() == expected
            await one.members.until(lambda members: len(members) == 2, timeout=1)
            await other.members.until(lambda members: list(members.values()) == expected, timeout=1)
            assert (one.members["b"], one.members.stale, one.joined) == (expected[1], False, True)
        await one.members.until(lambda members: list(members) == ["a"], timeout=1)
        assert await ids(b) == ["a"]
    assert world.keys() == []


async def test_joins_updates_and_leaves_are_events(world: World) -> None:
    a, watcher = world.process(), world.process()
    first = await group_of(world.process()).join("first")
    async with group_of(watcher).events() as events:
        assert await anext(events) == MemberEvent(None, Member("first"))
        async with group_of(a).join("a", weight=2) as member:
            assert await anext(events) == MemberEvent(None, Member("a", 2))
            await member.update(info={"x": 1})
            await member.wait_joined(timeout=1)
            event = await anext(events)
            assert (event.old, event.new) == (Member("a", 2), Member("a", 2, {"x": 1}))
            await member.update(weight=3)
            assert (await anext(events)).new == Member("a", 3, {"x": 1})
        event = await anext(events)
        assert (event.old, event.new) == (Member("a", 3, {"x": 1}), None)
        assert event.member.id == "a"
        await first.leave()
        assert (await anext(events)).new is None
    await first.leave()


async def test_who_dies_is_gone_after_its_ttl(world: World) -> None:
    a, b = world.process(), world.process()
    async with group_of(a).join("a") as member:
        await group_of(b).join("b")
        world.kill(b)
        await asyncio.sleep(world.ttl / 2)
        assert await ids(a) == ["a", "b"]
        await member.members.until(lambda members: list(members) == ["a"], timeout=world.ttl)


async def test_it_joins_again_after_the_loss_of_its_session_with_what_is_latest(world: World) -> None:
    client, watcher = world.process(), world.process()
    async with group_of(client).join("a") as member:
        client.backend.faults.outage()
        await asyncio.sleep(2 * world.ttl)
        assert not member.joined
        assert await ids(watcher) == []
        assert list(member.members) == ["a"]  # the last known
        assert member.members.stale
        await member.update(weight=7)
        client.backend.faults.clear()
        await member.wait_joined(timeout=10)
        assert await group_of(watcher).members() == [Member("a", 7)]
        world.store.faults.end_lease(await lease_of(client))
        await asyncio.sleep(1)
        await member.wait_joined(timeout=10)
        assert await group_of(watcher).members() == [Member("a", 7)]


async def test_a_record_removed_by_hand_comes_back(world: World) -> None:
    client = world.process()
    async with group_of(client).join("a"):
        (key,) = world.keys("grp/")
        world.store.commit([Delete(f"ns/{key}")], {})
        await asyncio.sleep(1)
        assert await ids(client) == ["a"]


async def test_the_later_of_two_with_one_id_stays(world: World) -> None:
    old, new = world.process(), world.process()
    first = await group_of(old).join("a", info={"n": 1})
    old.backend.faults.outage()
    await asyncio.sleep(2 * world.ttl)
    async with group_of(new).join("a", info={"n": 2}) as second:
        old.backend.faults.clear()
        await asyncio.sleep(30)
        assert (first.superseded, second.superseded) == (True, False)
        assert await group_of(new).members() == [Member("a", 1, {"n": 2})]
        assert len(world.keys("grp/")) == 1
        with pytest.raises(LostError):
            await first.update(weight=2)
        with pytest.raises(LostError):
            await first.wait_joined()
        await first.leave()
        assert await ids(new) == ["a"]


async def test_a_join_that_was_given_up_is_no_rival_of_the_next_one(world: World) -> None:
    """What it sent comes late, with a higher incarnation than the next one's, and is removed."""
    client = world.process(timeout=2)
    first = group_of(client).join("a")
    late = client.backend.faults.late("commit", after=3, times=1, key=first._place.process)
    with client.backend.faults.outage("commit", key=first._place.process):
        with pytest.raises(UnavailableError):
            await first
        async with group_of(client).join("a") as second:
            await asyncio.sleep(2)
            assert late.hits == 1
            assert len(world.keys("grp/")) == 2
            assert second.joined
            client.backend.faults.clear()
            await asyncio.sleep(5)
            assert await ids(client) == ["a"]
            assert len(world.keys("grp/")) == 1


async def test_a_restart_with_the_same_id_does_not_wait_for_the_old_ttl(world: World) -> None:
    old, new = world.process(), world.process()
    await group_of(old).join("a", info={"n": 1})
    world.kill(old)
    async with group_of(new).join("a", info={"n": 2}):
        assert await group_of(new).members() == [Member("a", 1, {"n": 2})]


async def test_the_members_known_are_another_mapping_only_when_they_are_others(world: World) -> None:
    """Partitions are divided anew for each."""
    one, other = world.process(), world.process()
    membership = await group_of(one).join("a")
    await asyncio.sleep(1)
    known = membership.known
    world.store.commit([Put("ns/grp/workers/b/p.1", b"no record")], {})
    await asyncio.sleep(1)
    assert membership.known is known
    assert known == {"a": Member("a")}
    async with group_of(other).join("b"):
        await membership.members.until(lambda members: len(members) == 2, timeout=1)
        assert (membership.known is known, list(membership.known)) == (False, ["a", "b"])


def test_who_comes_to_a_large_group_costs_what_it_would_in_a_small_one() -> None:
    """Counted in calls of functions; every member of a group does it for each other."""

    def record(number: int) -> dict[str, Item]:
        key, value = f"ns/grp/workers/m{number}/p{number}.1", encode({"member": {"id": f"m{number}"}})
        return {key: Item(key, value, number, number)}

    def calls(size: int) -> int:
        table = MemberTable(Keyspace("ns/", LIMITS), "workers")
        assert len(table.apply(Change({k: v for n in range(1, size) for k, v in record(n).items()}, {}, 1))) == size - 1
        change, count = Change(record(size), {}, size), 0

        def profile(frame: object, event: str, argument: object) -> None:
            nonlocal count
            count += event == "call"

        before = sys.getprofile()
        sys.setprofile(profile)
        try:
            assert [event.new for event in table.apply(change)] == [Member(f"m{size}")]
            assert table.rivals("m1", "p1") == []
        finally:
            sys.setprofile(before)
        return count

    assert calls(1000) < 2 * calls(10)


async def test_a_session_of_ones_own(world: World) -> None:
    client = world.process()
    async with client.session() as session:
        membership = CoordinationService(client, session=session).group("workers").join("a")
        async with membership:
            (key,) = world.keys("grp/")
            assert world.store.get(f"ns/{key}").lease == session.id


async def test_joining_while_the_store_is_away_is_unavailable_and_leaves_nothing(world: World) -> None:
    client = world.process()
    client.backend.faults.outage()
    with pytest.raises(UnavailableError):
        await group_of(client).join("a")
    client.backend.faults.clear()
    await asyncio.sleep(30)
    assert world.keys() == []


async def test_a_member_is_joined_once(world: World) -> None:
    membership = group_of(world.process()).join("a")
    with pytest.raises(ClosedError):
        await membership.update(weight=2)
    async with membership:
        with pytest.raises(ClosedError):
            await membership
    await membership.leave()
    assert not membership.joined
    for late in (membership.wait_joined(), membership._join()):
        with pytest.raises(ClosedError):
            await late
    with pytest.raises(ClosedError):
        await membership.update(weight=2)


async def test_waiting_for_members_ends_in_time(world: World) -> None:
    async with group_of(world.process()).view() as members:
        with pytest.raises(TimedOutError):
            await members.until(lambda members: "a" in members, timeout=1)
        assert members.age < 20


async def test_hostile_ids_and_names_are_only_text(world: World) -> None:
    client = world.process()
    names = ["..", "//", "a b", "é", "a/b", "%2F", "\0"]
    for name in names:
        async with group_of(client, name).join(name) as member:
            await member.members.until(lambda members, name=name: list(members) == [name], timeout=1)
            assert [one.id for one in await group_of(client, name).members()] == [name]


@pytest.mark.parametrize("cancelled", [False, True])
async def test_who_leaves_while_the_store_takes_no_writes_is_gone_as_soon_as_it_does(
    world: World, cancelled: bool
) -> None:
    client = world.process()
    member = await group_of(client).join("a")
    client.backend.faults.outage("commit")
    leaving = asyncio.ensure_future(member.leave())
    await asyncio.sleep(1)
    if cancelled:
        leaving.cancel()
    await asyncio.wait([leaving])
    client.backend.faults.clear()
    await asyncio.sleep(6)
    assert world.keys("grp/") == []
    assert (await client.shared_session()).valid


async def test_a_membership_of_a_lost_session_of_ones_own_is_over(world: World) -> None:
    client = world.process()
    session = await client.session()
    member = await CoordinationService(client, session=session).group("workers").join("a")
    await session.aclose()
    for refused in (member.wait_joined(30), member.update(weight=2)):
        with pytest.raises(LostError, match="another"):
            await refused
    assert member.over
    await member.leave()


@pytest.mark.parametrize("fault", ["none", "drop", "drop_answer", "late"])
def test_a_cancelled_join_or_stay_leaves_nobody(fault: str) -> None:
    async def stay(client: Client) -> None:
        async with group_of(client).join("a") as member:
            await member.update(weight=2)
            await member.wait_joined()

    async def once(first: int) -> bool:
        world = World()
        client = world.process()
        late: dict[str, Any] = {"after": 0.7} if fault == "late" else {}
        if fault != "none":
            getattr(client.backend.faults, fault)("commit", times=2, key="grp/", **late)
        task = asyncio.ensure_future(Suspensions(first).of(stay(client)))
        await asyncio.wait([task])
        await asyncio.sleep(5)
        assert world.keys("grp/") == []
        await world.aclose()
        assert world.keys() == []
        return task.cancelled()

    first = 1
    while run(once(first)):
        first += 1
    assert first > 3


@scenario(often={**STRIKES, "killed": 0.4, "updated": 20})
async def members(simulation: Simulation) -> None:
    """When the faults are over everybody who lives is a member, by its latest, and nobody else."""
    joined: dict[SimulatedProcess, Membership] = {}

    async def work(process: SimulatedProcess) -> None:
        joined[process] = await join(process)
        while not simulation.over:
            await asyncio.sleep(0.5)
            await joined[process].update(info={"n": simulation.random.randint(0, 9)})
            simulation.seen["updated"] += 1

    async def join(process: SimulatedProcess) -> Membership:
        while True:
            try:
                return await group_of(process.client).join(process.name)
            except (UnavailableError, LostError, TimedOutError) as exc:
                simulation.seen[type(exc).__name__] += 1

    await trouble_among(simulation, work, 3)
    await simulation.finish(30)
    await asyncio.sleep(40)
    assert set(simulation.living) <= set(joined)
    living = {process: joined[process] for process in simulation.living}
    expected = sorted((membership.member for membership in living.values()), key=lambda member: member.id)
    for process, membership in living.items():
        assert membership.joined
        assert sorted(membership.members.values(), key=lambda member: member.id) == expected
        assert await process.call(group_of(process.client).members()) == expected
    for process, membership in living.items():
        await process.call(membership.leave())
    assert await simulation.close() == []


@pytest.mark.timeout(900)
def test_whatever_happens(osdisco_simulate: Callable[[Scenario], None]) -> None:
    osdisco_simulate(members)


@pytest.mark.osdisco("memory", "etcd", "etcd+http", "consul")
async def test_on_every_store(osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as other:
        async with group_of(client).join("a", weight=2) as a, group_of(other).events() as events:
            assert (await anext(events)).new == Member("a", 2)
            async with group_of(other).join("b"):
                await a.members.until(lambda members: len(members) == 2, timeout=5)
                await a.update(info={"x": 1})
                await a.wait_joined(timeout=5)
                seen = [await asyncio.wait_for(anext(events), 5) for _ in range(2)]
                assert [event.member for event in seen] == [Member("b"), Member("a", 2, {"x": 1})]
                await client.backend.revoke(await _lease(client), timeout=5)
                await asyncio.sleep(1)
                await a.wait_joined(timeout=10)
                assert await ids(other) == ["a", "b"]
        assert await ids(client) == []


async def _lease(client: Client) -> Lease:
    session = await client.shared_session()
    return Lease(session.id, session.ttl)
