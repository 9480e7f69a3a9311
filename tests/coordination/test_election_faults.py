"""Elections when answers are lost, the store is away or leases end: no second leader, no phantom, nobody asleep."""

from __future__ import annotations

import asyncio

import pytest
from elections import Told, elected, election_of, lead, queued, standing
from worlds import NAMESPACE, World

from osdisco.backend import Delete, Put
from osdisco.errors import DeniedError, IndeterminateError, LostError, UnavailableError

# Lost answers


@pytest.mark.parametrize("lost", ["drop", "drop_answer", "late"])
async def test_a_promotion_whose_answer_was_lost_is_found_out_by_whom_leader_names(world: World, lost: str) -> None:
    client, other = world.process(), world.process()
    options = {"after": 1.0} if lost == "late" else {}
    rule = getattr(client.backend.faults, lost)("commit", times=1, key="/leader", **options)
    async with election_of(client).campaign(5) as term:
        assert rule.hits == 1
        assert client.backend.calls["commit"] <= (3 if lost == "drop_answer" else 4), "it stood again"
        await asyncio.sleep(2)
        await term.commit([Put("plan", b"")])
        assert (await election_of(other).leader()).token == term.token


async def test_a_promotion_that_stays_unknown_is_not_believed_because_of_the_session(world: World) -> None:
    """Another candidate of the same session leads meanwhile: `leader` is of our lease, and still not ours."""
    client = world.process()
    await client.shared_session()
    client.backend.faults.delay("commit", request=20, times=1, key="/leader")
    slow = standing(client, "slow")
    await queued(world, 1)
    quick = standing(client, "quick", priority=1)
    term = await elected(quick)
    await asyncio.sleep(15)
    assert not slow.done()
    term.check()
    await term.resign()
    await (await elected(slow)).resign()
    await asyncio.sleep(10)


@pytest.mark.parametrize(("promotion", "end"), [(1.0, 2.0), (3.0, 0.0)])
async def test_a_promotion_under_way_when_its_candidate_leaves_makes_no_phantom(
    world: World, promotion: float, end: float
) -> None:
    """It is looked for once nothing of it can apply any more: a look before that would miss it."""
    client, other = world.process(), world.process()
    term = await election_of(other).campaign()
    task = standing(client, "leaving")
    await queued(world, 1)
    client.backend.faults.delay("commit", request=promotion, times=1, key="/leader")
    await term.resign()
    await asyncio.sleep(0.5)
    client.backend.faults.delay("commit", request=end, times=1, key="q/")
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(6)
    assert world.keys() == []
    async with election_of(other).campaign(1):
        pass


async def test_one_silent_endpoint_delays_a_term_and_its_end_and_fails_neither(world: World) -> None:
    """The next attempt goes to the next endpoint, and there must be time for it."""
    client = world.process(timeout=5)
    await client.shared_session()
    for key in ("q/", "/leader"):
        client.backend.faults.delay("commit", request=60, times=1, key=key)
    term = await election_of(client).campaign()
    assert world.clock.now() < 8
    client.backend.faults.delay("commit", request=60, times=1, key="/leader")
    began = world.clock.now()
    await term.resign()
    assert world.clock.now() - began < 4
    await asyncio.sleep(60)  # what was held up applies now
    assert world.keys("election/") == []


async def test_a_term_begins_although_the_view_is_behind(world: World) -> None:
    client = world.process()
    term = await election_of(world.process()).campaign()
    client.backend.faults.delay("watch", answer=2)
    task = standing(client, "behind")
    await queued(world, 1)
    await term.resign()
    next_term = await elected(task, within=20)
    await asyncio.sleep(20)
    next_term.check()
    await next_term.resign()


async def test_a_create_that_comes_after_the_promotion_is_refused(world: World) -> None:
    """Otherwise the ghost of the entry would be next for ever, and never lead."""
    client, other = world.process(), world.process()
    client.backend.faults.late("commit", after=3, times=1, key="q/")
    async with election_of(client).campaign(5):
        assert world.clock.now() < 3
        await asyncio.sleep(5)
        assert world.keys("election/") == ["election/e/leader"]
        assert len(world.keys("x/")) == 1
    async with election_of(other).campaign(1):
        pass


@pytest.mark.parametrize("lost", ["drop", "drop_answer", "late"])
async def test_a_resignation_whose_answer_was_lost_is_one(world: World, lost: str) -> None:
    client, other = world.process(), world.process()
    term = await election_of(client).campaign()
    await term.proclaim({"a": 1})
    options = {"after": 0.3} if lost == "late" else {}
    getattr(client.backend.faults, lost)("commit", times=2, **options)
    await term.resign()
    assert world.keys() == []
    async with election_of(other).campaign(1):
        await asyncio.sleep(1)


async def test_a_transfer_that_fails_when_its_leader_has_gone_keeps_the_lead_for_nobody(world: World) -> None:
    """Whether it applied stayed unknown for longer than the leader waited, and the heir had left by then."""
    client, other, third = world.process(timeout=1), world.process(), world.process()
    async with election_of(client).campaign(5) as term:
        heir = standing(other, "heir")
        await queued(world, 1)
        silence = client.backend.faults.drop("commit", key="/leader")
        with pytest.raises(IndeterminateError):
            await term.transfer("heir")
        heir.cancel()
        await queued(world, 0)
    assert len(world.keys("election/e/leader")) == 1
    silence.end()
    newer = await elected(standing(third, "third"), within=5)
    assert newer.token > term.token
    assert term.over.is_set()
    await newer.resign()


@pytest.mark.parametrize("lost", ["drop", "drop_answer", "late"])
async def test_a_transfer_whose_answer_was_lost_is_one(world: World, lost: str) -> None:
    client = world.process()
    term = await election_of(client).campaign()
    tasks = [standing(world.process(), "other", priority=1), standing(world.process(), "heir")]
    await queued(world, 2)
    options = {"after": 0.3} if lost == "late" else {}
    getattr(client.backend.faults, lost)("commit", times=2, **options)
    await term.transfer("heir")
    await (await elected(*tasks)).resign()
    assert tasks[1].done()
    await (await elected(tasks[0])).resign()


async def test_a_proclamation_whose_answer_was_lost_does_not_hinder_the_next(world: World) -> None:
    client = world.process()
    election = election_of(client)
    async with election.campaign() as term:
        for lost in ("drop_answer", "drop"):
            getattr(client.backend.faults, lost)("commit", times=1)
            with pytest.raises(IndeterminateError):
                await term.proclaim({"a": 1})
            await term.proclaim({"b": lost})
            assert (await election.leader()).info == {"b": lost}


# A view that is behind


async def test_an_entry_that_an_older_view_does_not_show_is_not_taken_for_lost(world: World) -> None:
    client = world.process()
    async with election_of(world.process()).campaign() as term:
        client.backend.faults.delay("watch", answer=2)
        task = standing(client, "slow")
        await asyncio.sleep(1)
        (key,) = world.keys("election/e/q/")
        other = standing(client, "another")
        await asyncio.sleep(8)
        assert key in world.keys("election/e/q/")
        assert len(world.keys("election/e/q/")) == 2
        assert client.backend.calls["commit"] == 3, "two entries and the session's own key"
        other.cancel()
        await term.resign()
    await (await elected(task, within=5)).resign()


async def test_a_view_that_is_behind_makes_no_second_leader_and_nobody_spin(world: World) -> None:
    """It shows no leader, and us as the next one: the store knows better."""
    slow, fast = world.process(), world.process()
    term = await election_of(fast).campaign()
    task = standing(slow, "slow")
    await queued(world, 1)
    slow.backend.faults.delay("watch", answer=3)
    await asyncio.sleep(4)
    before = slow.backend.calls["commit"]
    await term.resign()
    leading = await elected(standing(fast, "quick", priority=1))
    await asyncio.sleep(10)
    leading.check()
    assert not task.done()
    assert 0 < slow.backend.calls["commit"] - before < 30
    slow.backend.faults.clear()
    await leading.resign()
    await (await elected(task, within=5)).resign()


async def test_a_forced_resync_changes_nothing(world: World) -> None:
    clients = [world.process() for _ in range(3)]
    told = Told()
    election = election_of(clients[0])
    election.add_listener(told)
    async with election.campaign(), election_of(clients[2]).observe() as leaders:
        task = standing(clients[1], "next")
        await anext(leaders)
        for _ in range(5):
            world.store.faults.compact()
            world.store.faults.resync()
            await asyncio.sleep(1)
        assert told.heard == ["acquired"]
        assert not task.done()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(leaders), 1)
    await (await elected(task)).resign()


# Keys that are removed by hand


async def test_a_candidate_whose_entry_was_removed_stands_again(world: World) -> None:
    async with election_of(world.process()).campaign():
        task = standing(world.process(), "removed")
        for _ in range(3):
            await queued(world, 1)
            (key,) = world.keys("election/e/q/")
            world.store.commit([Delete(f"{NAMESPACE}/{key}")], {})
            await asyncio.sleep(0.5)
    await (await elected(task)).resign()


async def test_a_leader_whose_key_was_removed_is_told_and_leaves_nothing(world: World) -> None:
    client = world.process()
    leading = asyncio.ensure_future(lead(election_of(client)))
    await asyncio.sleep(0.5)
    world.store.commit([Delete(f"{NAMESPACE}/election/e/leader")], {})
    with pytest.raises(LostError, match="gone"):
        await leading
    assert world.clock.now() < 1
    assert world.keys() == []


async def test_what_was_removed_while_nothing_could_be_watched_is_missed_whatever_the_revision_says(
    world: World,
) -> None:
    """Consul's falls when the traces of what was deleted are reaped, after 15 minutes."""
    leading, waiting = world.process(), world.process()
    term = await election_of(leading).campaign()
    candidate = standing(waiting)
    await queued(world, 1)
    await asyncio.sleep(1)
    for client in (leading, waiting):
        client.backend.faults.outage("watch", key="election/")
    await asyncio.sleep(1)
    world.store.commit([Delete(f"{NAMESPACE}/{key}") for key in world.keys("election/")], {})
    for client in (leading, waiting):
        client.backend.falls_back = "election/"
        client.backend.faults.clear()
    assert (await asyncio.wait_for(candidate, 10)).leading
    assert term.lost.is_set()


async def test_a_leader_that_may_no_longer_watch_leads_on(world: World) -> None:
    client = world.process()
    async with election_of(client).campaign() as term:
        client.backend.faults.deny("watch", key="election/")
        world.store.faults.resync()
        await asyncio.sleep(60)
        term.check()


async def test_a_candidate_that_may_no_longer_look_is_told(world: World) -> None:
    client = world.process()
    async with election_of(world.process()).campaign():
        for task in (standing(client, "a"), asyncio.ensure_future(election_of(client).participate())):
            await asyncio.sleep(1)
            client.backend.faults.deny("watch", key="election/")
            with pytest.raises(DeniedError):
                await asyncio.wait_for(task, 10)
            client.backend.faults.clear()
            await asyncio.sleep(1)
            assert world.keys() == ["election/e/leader"]


# The store is away


async def test_a_campaign_while_the_store_is_away_is_unavailable_in_time(world: World) -> None:
    client = world.process()
    client.backend.faults.outage()
    with pytest.raises(UnavailableError):
        await election_of(client).campaign()
    assert world.clock.now() <= client.options.timeout
    client.backend.faults.clear()
    async with election_of(client).campaign():
        pass


@pytest.mark.parametrize("fault", ["outage", "freeze"])
async def test_an_outage_within_the_ttl_unseats_nobody(world: World, fault: str) -> None:
    leader, waiter = world.process(), world.process()
    term = await election_of(leader).campaign()
    task = standing(waiter, "next")
    await asyncio.sleep(2)
    getattr(world.store.faults, fault)()
    await asyncio.sleep(0.5 * world.ttl)
    world.store.faults.clear()
    await asyncio.sleep(world.ttl)
    term.check()
    assert not task.done()
    await term.resign()
    await (await elected(task, within=5)).resign()


async def test_a_turn_that_comes_during_an_outage_is_taken_after_it(world: World) -> None:
    leader, waiter = world.process(), world.process(timeout=1)
    term = await election_of(leader).campaign()
    task = standing(waiter, "next")
    await queued(world, 1)
    rule = waiter.backend.faults.outage("commit")
    await term.resign()
    await asyncio.sleep(5)
    assert not task.done()
    rule.end()
    await (await elected(task, within=5)).resign()


async def test_a_resignation_during_an_outage_says_so_in_time_and_happens_afterwards(world: World) -> None:
    client, other = world.process(timeout=2), world.process()
    election = election_of(client)
    term = await election.campaign()
    task = standing(other, "other")
    client.backend.faults.outage("commit")
    began = world.clock.now()
    for end in (term.resign, election.resign):
        with pytest.raises(IndeterminateError):
            await end()
    assert world.clock.now() - began <= 4.1
    assert not election.is_leader
    client.backend.faults.clear()
    await (await elected(task, within=6)).resign()
    await term.resign()


async def test_who_participates_outlives_every_outage(world: World) -> None:
    client = world.process(timeout=1)
    world.store.faults.outage()
    election = election_of(client)
    task = asyncio.ensure_future(election.participate())
    for _ in range(3):
        await asyncio.sleep(60)
        assert not election.is_leader
        world.store.faults.clear()
        await asyncio.sleep(10)
        assert election.is_leader
        world.store.faults.outage()
    world.store.faults.clear()
    await asyncio.sleep(30)
    task.cancel()
    await asyncio.wait([task])


# Processes that die


async def test_a_dead_leader_is_followed_when_its_lease_ends(world: World) -> None:
    leader, waiter = world.process(), world.process()
    old = await election_of(leader).campaign()
    await old.proclaim({"a": 1})
    task = standing(waiter, "next")
    await queued(world, 1)
    world.kill(leader)
    term = await elected(task, within=1.2 * world.ttl)
    assert term.token > old.token
    assert world.keys() == ["election/e/leader"]
    await term.resign()


async def test_a_write_of_an_old_leader_that_arrives_in_the_next_term_is_refused(world: World) -> None:
    """The one that was paused between its look at the clock and its write; no deadline can prevent that."""
    paused, other = world.process(), world.process()
    old = await election_of(paused).campaign()
    task = standing(other, "next")
    await queued(world, 1)
    paused.backend.faults.late("commit", after=2 * world.ttl, times=1, key="plan")
    with pytest.raises(IndeterminateError):
        await old.commit([Put("plan", b"old")])
    paused.backend.faults.freeze()
    term = await elected(task, within=1.2 * world.ttl)
    await term.commit([Put("plan", b"new")])
    await asyncio.sleep(2 * world.ttl)
    paused.backend.faults.thaw()
    await asyncio.sleep(1)
    assert world.store.get(f"{NAMESPACE}/plan").value == b"new"
    await term.resign()


async def test_dead_candidates_delay_nobody_for_longer_than_their_lease(world: World) -> None:
    leader, waiter = world.process(), world.process()
    term = await election_of(leader).campaign()
    dying = [world.process() for _ in range(5)]
    dead = [standing(client, "dead", priority=9) for client in dying]
    task = standing(waiter, "alive")
    await queued(world, 6)
    for client in dying:
        world.kill(client)
    await term.resign()
    await (await elected(task, within=1.2 * world.ttl)).resign()
    await asyncio.gather(*dead, return_exceptions=True)
