"""The election: who leads, in which order, and what those are told who lead, listen and look on."""

from __future__ import annotations

import asyncio

import pytest
from elections import Told, elected, election_of, queued, standing
from worlds import NAMESPACE, World

from osdisco.backend import ABSENT, Put
from osdisco.coordination import Leader, LeaderElection, LeadershipListener
from osdisco.errors import (
    ConflictError,
    CoordinationError,
    IndeterminateError,
    LostError,
    TimedOutError,
)
from osdisco.testing.clock import WALL

# Who leads


async def test_the_first_candidate_leads_and_the_next_one_after_it_with_a_higher_token(world: World) -> None:
    first, second = world.process(), world.process()
    term = await election_of(first).campaign()
    task = standing(second, "second")
    await asyncio.sleep(5)
    assert not task.done()
    await term.resign()
    other = await asyncio.wait_for(task, 0.1)
    assert other.token > term.token
    await other.resign()


async def test_candidates_lead_by_priority_and_then_in_their_order(world: World) -> None:
    term = await election_of(world.process()).campaign()
    order: list[str] = []

    async def lead(candidate_id: str, priority: int) -> None:
        async with election_of(world.process(), candidate_id=candidate_id, priority=priority).campaign():
            order.append(candidate_id)

    tasks = []
    for number, (candidate_id, priority) in enumerate({"a": 0, "b": 7, "c": -1, "d": 7, "e": 0}.items()):
        tasks.append(asyncio.ensure_future(lead(candidate_id, priority)))
        await queued(world, number + 1)
    await term.resign()
    await asyncio.gather(*tasks)
    assert order == ["b", "d", "a", "e", "c"]


async def test_priority_never_unseats_a_living_leader(world: World) -> None:
    term = await election_of(world.process(), priority=0).campaign()
    task = standing(world.process(), "better", priority=1000)
    await asyncio.sleep(60)
    term.check()
    assert not task.done()
    await term.resign()
    await (await elected(task)).resign()


async def test_a_promotion_takes_the_place_in_the_queue_with_it(world: World) -> None:
    async with election_of(world.process()).campaign():
        assert world.keys() == ["election/e/leader"]
    assert world.keys() == []


async def test_candidates_of_different_names_do_not_meet(world: World) -> None:
    client = world.process()
    async with election_of(client, "a").campaign(1), election_of(client, "b").campaign(1):
        pass
    hostile = ["..", "a//b", "q/1", "leader", "é", "%2F", "a\nb", "=2E"]
    for name in hostile:
        async with election_of(client, name).campaign(1), election_of(client, f"{name}!").campaign(1):
            assert await election_of(client, name).leader() != await election_of(client, f"{name}!").leader()


@pytest.mark.parametrize("conflate", [False, True])
async def test_two_candidates_of_one_session_exclude_each_other(world: World, conflate: bool) -> None:
    world.store.faults.conflate = conflate
    client = world.process()
    tasks = [standing(client, f"c{number}") for number in range(4)]
    while tasks:
        term = await elected(*tasks)
        await asyncio.sleep(1)
        (done,) = [task for task in tasks if task.done()]
        tasks.remove(done)
        await term.resign()


async def test_a_hundred_candidates_of_a_process_share_one_watch(world: World) -> None:
    client = world.process()
    term = await election_of(world.process()).campaign()
    tasks = [standing(client, f"c{number}") for number in range(100)]
    await queued(world, 100)
    assert client.backend.watching[f"{NAMESPACE}/election/e/"] == 1
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await asyncio.sleep(1)
    assert world.keys("election/e/q/") == []
    assert client.backend.watching[f"{NAMESPACE}/election/e/"] == 0
    await term.resign()


# A term


async def test_a_leader_commits_proclaims_and_is_seen(world: World) -> None:
    client, other = world.process("host-a"), world.process()
    assert await election_of(other).leader() is None
    async with election_of(client, info={"url": "http://a"}).campaign() as term:
        assert await election_of(other).leader() == Leader("host-a", {"url": "http://a"}, term.token, WALL)
        await term.commit([Put("plan", b"v2")])
        for url in ("http://b", "http://c"):
            await term.proclaim({"url": url})
            assert await election_of(other).leader() == Leader("host-a", {"url": url}, term.token, WALL)
        await asyncio.gather(*(term.proclaim({"n": number}) for number in range(5)))
    assert world.keys() == ["plan"]


async def test_a_commit_says_what_did_not_hold(world: World) -> None:
    client = world.process()
    async with election_of(client).campaign() as term:
        await term.commit([Put("plan", b"1")])
        with pytest.raises(ConflictError):
            await term.commit([Put("plan", b"2")], {"plan": ABSENT})
        term.check()


async def test_what_is_proclaimed_ends_with_the_term(world: World) -> None:
    client, other = world.process(), world.process()
    term = await election_of(client).campaign()
    await term.proclaim({"first": True})
    await term.resign()
    assert world.keys() == []
    with pytest.raises(LostError):
        await term.proclaim({"late": True})
    async with election_of(other).campaign():
        assert (await election_of(client).leader()).info == {}


async def test_nothing_of_an_old_term_of_the_same_session_applies_in_the_next(world: World) -> None:
    """A guard by the lease would let it."""
    client = world.process()
    old = await election_of(client).campaign()
    for key, write in {"said/": old.proclaim({"old": True}), "plan": old.commit([Put("plan", b"old")])}.items():
        rule = client.backend.faults.late("commit", after=2, times=1, key=key)
        with pytest.raises(IndeterminateError):
            await write
        assert rule.hits == 1
    await old.resign()
    async with election_of(client).campaign(1) as term:
        await asyncio.sleep(3)
        assert world.keys() == ["election/e/leader"]
        term.check()


async def test_the_epoch_of_the_operator_counts_in_tokens(world: World) -> None:
    client = world.process()
    before = await election_of(client).campaign()
    await before.resign()
    await client.put("epoch", b"3")
    later = world.process()
    async with election_of(later).campaign() as term:
        assert term.token > 3 << 48 > before.token
        assert (await election_of(client).leader()).token == term.token


async def test_resigning_twice_is_one_resignation_and_ends_what_the_term_may_do(world: World) -> None:
    election = election_of(world.process())
    with pytest.raises(LostError):
        await election.resign()
    term = await election.campaign()
    await asyncio.gather(election.resign(), term.resign())
    await term.resign()
    with pytest.raises(LostError):
        await election.resign()
    assert not election.is_leader
    with pytest.raises(LostError):
        term.check()
    for late in (term.commit([Put("a", b"")]), term.proclaim({}), term.transfer("x")):
        with pytest.raises(LostError):
            await late
    with pytest.raises(LostError):
        async with term:
            pass
    async with election.campaign(1):
        pass


async def test_a_term_given_up_in_its_body_ends_the_body_in_peace(world: World) -> None:
    client = world.process()
    async with election_of(client).campaign() as term:
        await term.resign()
        await asyncio.sleep(1)
    assert term.lost.reason is None


async def test_a_campaign_that_takes_too_long_leaves_nothing(world: World) -> None:
    leader, client = world.process(), world.process()
    async with election_of(leader).campaign():
        with pytest.raises(TimedOutError):
            await election_of(client).campaign(0.5)
        await asyncio.sleep(1)
        assert world.keys() == ["election/e/leader"]


# Handing over


async def test_a_transfer_makes_the_named_candidate_lead_before_all_others(world: World) -> None:
    client = world.process()
    async with election_of(client).campaign() as term:
        await term.proclaim({"a": 1})
        others = [standing(world.process(), name, priority=9) for name in ("x", "y")]
        heir = standing(world.process(), "heir", priority=-1)
        await queued(world, 3)
        await term.transfer("heir")
        assert not election_of(client).is_leader
    next_term = await elected(heir, *others)
    assert next_term is heir.result()
    assert (await election_of(client).leader()).candidate_id == "heir"
    assert len(world.keys()) == 3, "the heir's name went with its promotion"
    await next_term.resign()
    for other in others:
        await (await elected(other)).resign()


async def test_a_transfer_to_nobody_is_refused_and_the_term_goes_on(world: World) -> None:
    told = Told()
    election = election_of(world.process(), candidate_id="me")
    election.add_listener(told)
    async with election.campaign() as term:
        for name in ("nobody", "me"):
            with pytest.raises(CoordinationError, match=name):
                await term.transfer(name)
        term.check()
        await term.commit([Put("a", b"")])


async def test_a_candidate_that_leaves_during_the_transfer_is_no_heir(world: World) -> None:
    """Else nobody but the dead could lead: its entry is part of the condition."""
    client, leaving = world.process(), world.process()
    election = election_of(client)
    told = Told()
    election.add_listener(told)
    async with election.campaign() as term:
        task = standing(leaving, "heir")
        await queued(world, 1)
        client.backend.faults.delay("commit", request=1)
        handing = asyncio.ensure_future(term.transfer("heir"))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(CoordinationError, match="left"):
            await handing
        term.check()
        assert election.is_leader
        assert world.keys() == ["election/e/leader"]
        await asyncio.sleep(0)
        assert told.heard == ["acquired", "lost", "acquired"]


async def test_an_heir_that_dies_before_it_leads_is_ignored(world: World) -> None:
    client, dying, other = world.process(), world.process(), world.process()
    async with election_of(client).campaign() as term:
        heir, task = standing(dying, "heir", priority=5), standing(other, "other")
        await queued(world, 2)
        dying.backend.faults.outage()
        await term.transfer("heir")
    assert world.keys("election/e/heir")
    await asyncio.sleep(2)
    assert not task.done()
    next_term = await asyncio.wait_for(task, 2 * world.ttl)
    assert world.keys() == ["election/e/leader"]
    await next_term.resign()
    with pytest.raises(LostError):
        await heir


async def test_a_resignation_waits_for_a_transfer_under_way(world: World) -> None:
    client, leaving = world.process(), world.process()
    term = await election_of(client).campaign()
    task = standing(leaving, "heir")
    await queued(world, 1)
    client.backend.faults.delay("commit", request=1)
    handing = asyncio.ensure_future(term.transfer("heir"))
    await asyncio.sleep(0.5)
    task.cancel()
    await term.resign()
    with pytest.raises(CoordinationError):
        await handing
    assert world.keys() == []


def test_the_names_of_the_specification_are_there() -> None:
    assert isinstance(LeaderElection.is_leader, property)
    assert {"participate", "campaign", "resign", "leader", "observe", "add_listener"} <= set(dir(LeaderElection))
    assert {"on_leadership_acquired", "on_leadership_lost"} <= set(dir(LeadershipListener))
