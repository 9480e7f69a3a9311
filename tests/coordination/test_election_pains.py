"""The pains of other libraries' users in elections: each must be impossible here."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from elections import campaign, election_of, lead, queued, standing
from worlds import World, lease_of

from osdisco.backend import Put
from osdisco.errors import LostError, OsdiscoError
from osdisco.testing import VirtualClock


async def test_pain_1_and_4_a_leader_that_is_cut_off_knows_before_another_one_leads(world: World) -> None:
    """hashicorp/consul#18271, apache/curator#727: partitioned leaders went on for minutes."""
    client, other = world.process(), world.process()
    election = election_of(client)
    term = await election.campaign()
    task = standing(other, "other")
    client.backend.faults.freeze()
    lost = asyncio.ensure_future(term.lost.wait())
    while not task.done():
        assert election.is_leader is not lost.done()
        await asyncio.sleep(0.1)
    assert lost.done()
    assert not election.is_leader
    client.backend.faults.thaw()
    with pytest.raises(LostError):
        await term.commit([Put("plan", b"old")])
    await task.result().resign()


async def test_pain_2_a_leader_that_lost_its_term_keeps_it_from_nobody(world: World) -> None:
    """hashicorp/consul#2371: "lost" is signalled while renewals keep the lock, so nobody leads any more."""
    client, other = world.process(), world.process()
    term = await election_of(client).campaign()
    rule = client.backend.faults.outage("renew")
    await term.lost.wait()
    rule.end()
    async with election_of(other).campaign(2):
        pass


async def test_pain_3_and_14_who_lost_a_term_campaigns_again_with_the_same_election(world: World) -> None:
    """hashicorp/consul#4902, sodafoundation/delfin#640, StackStorm/st2#4015: unusable until the process restarts."""
    client = world.process()
    election = election_of(client)
    for _ in range(3):
        leading = asyncio.ensure_future(lead(election))
        await asyncio.sleep(0.5)
        assert election.is_leader
        world.store.faults.end_lease(await lease_of(client))
        with pytest.raises(LostError):
            await leading


async def test_pain_5_there_is_one_leader_through_any_reconnect(world: World) -> None:
    """apache/curator#1137, #1169, #1211: two leaders around a reconnect."""
    elections = [election_of(world.process(), candidate_id=name) for name in "abc"]
    tasks = [asyncio.ensure_future(election.participate()) for election in elections]
    for step in range(200):
        await asyncio.sleep(0.5)
        assert sum(election.is_leader for election in elections) <= 1
        if step % 40 == 10:
            world.clients[step // 40 % 3].backend.faults.freeze()
        elif step % 40 == 36:
            world.clients[step // 40 % 3].backend.faults.thaw()
    await asyncio.sleep(5)
    assert sum(election.is_leader for election in elections) == 1
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_pain_6_and_7_nobody_is_elected_on_a_dead_lease(world: World) -> None:
    """apache/curator#1121, etcd-io/etcd#11456: elected on the lease of a session that was over."""
    leader, client = world.process(), world.process()
    term = await election_of(leader).campaign()
    task = standing(client, "dead")
    await queued(world, 1)
    client.backend.faults.outage("watch", "renew", "get")  # it does not hear of it
    world.store.revoke(await lease_of(client))
    await term.resign()
    with pytest.raises(LostError):
        await asyncio.wait_for(task, world.ttl)
    assert await election_of(leader).leader() is None
    client.backend.faults.clear()


async def test_pain_7_a_suspended_candidate_looks_at_the_clock_before_it_leads(world: World) -> None:
    """etcd's Campaign returns without a look at what became of its lease meanwhile."""
    leader, shared = world.process(), world.clock
    term = await election_of(leader).campaign()
    world.clock = VirtualClock()
    client = world.process()
    suspended, world.clock = world.clock, shared
    task = standing(client, "suspended")
    await queued(world, 1)
    before = client.backend.calls["commit"]
    suspended.jump(2 * world.ttl)
    await term.resign()
    with pytest.raises(LostError):
        await asyncio.wait_for(task, 0.01)
    assert client.backend.calls["commit"] == before
    await asyncio.sleep(1)
    assert world.keys() == []


async def test_pain_8_a_candidate_whose_session_died_does_not_wait_on(world: World) -> None:
    """etcd-io/etcd#19597."""
    async with election_of(world.process()).campaign():
        client = world.process()
        task = standing(client, "dead")
        await queued(world, 1)
        world.store.faults.end_lease(await lease_of(client))
        with pytest.raises(LostError):
            await asyncio.wait_for(task, 1)


async def test_pain_8_who_participates_with_a_session_of_its_own_is_told_of_its_end(world: World) -> None:
    client = world.process()
    async with client.session() as session:
        election = election_of(client, session=session)
        task = asyncio.ensure_future(election.participate())
        await asyncio.sleep(1)
        assert election.is_leader
        world.store.faults.end_lease(session.id)
        with pytest.raises(LostError):
            await asyncio.wait_for(task, 1)


@pytest.mark.parametrize("fault", ["drop", "drop_answer", "late"])
async def test_pain_9_there_is_no_phantom_leader_whatever_answers_are_lost(world: World, fault: str) -> None:
    """cagriekin/charts#327: a leader in the store that nobody is, and candidates that wait for it."""
    options = {"after": 1.5} if fault == "late" else {}
    clients = [world.process(timeout=1) for _ in range(2)]
    for step in range(24):
        client = clients[step % 2]
        await client.shared_session()
        getattr(client.backend.faults, fault)("commit", times=1 + step % 3, key="election/", **options)
        with suppress(OsdiscoError):
            await (await campaign(election_of(client), timeout=(step + 1) / 8)).resign()
        await asyncio.sleep(5)
        client.backend.faults.clear()
        await asyncio.sleep(2)
        assert world.keys("election/") == []
        async with election_of(clients[0]).campaign(0.1):
            pass


async def test_pain_12_a_campaign_in_vain_leaves_no_candidate_even_if_its_removal_takes_long(world: World) -> None:
    """python-zk/kazoo#760: a failed attempt leaves an orphan in the queue."""
    leader, client = world.process(), world.process(timeout=1)
    async with election_of(leader).campaign() as term:
        task = standing(client, "orphan")
        await queued(world, 1)
        rule = client.backend.faults.outage("commit")
        task.cancel()
        await asyncio.sleep(5)
        assert len(world.keys("election/e/q/")) == 1
        rule.end()
        await asyncio.sleep(5)
        assert world.keys() == ["election/e/leader"]
        term.check()


async def test_pain_15_the_body_of_a_term_is_cancelled_when_it_is_lost(world: World) -> None:
    """python-zk/kazoo#565: users cannot work out how to wire the loss to what they do."""
    client = world.process()
    body: list[str] = []
    leading = asyncio.ensure_future(lead(election_of(client), body))
    await asyncio.sleep(0.5)
    client.backend.faults.freeze()
    while not body:
        await asyncio.sleep(0.1)
    assert world.clock.now() < world.ttl
    with pytest.raises(LostError):
        await leading
    client.backend.faults.clear()
