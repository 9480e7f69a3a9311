"""Who participates in an election for ever, who listens, and who looks on."""

from __future__ import annotations

import asyncio
import logging

import pytest
from elections import Told, election_of, queued, standing
from worlds import NAMESPACE, World, lease_of

from osdisco.backend import Delete
from osdisco.coordination import Leader, LeadershipListener
from osdisco.errors import (
    OsdiscoError,
)
from osdisco.testing.clock import WALL

# Who participates, listens and looks on


async def test_who_participates_leads_again_after_every_end(world: World) -> None:
    client = world.process()
    told, terms = Told(), []
    election = election_of(client)
    election.add_listener(told)
    election.add_listener(terms.append)
    task = asyncio.ensure_future(election.participate())
    await asyncio.sleep(1)
    await election.resign()
    await asyncio.sleep(1)
    world.store.faults.end_lease(await lease_of(client))
    await asyncio.sleep(1)
    world.store.commit([Delete(f"{NAMESPACE}/election/e/leader")], {})
    await asyncio.sleep(1)
    assert election.is_leader
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert not election.is_leader
    assert told.heard == ["acquired", "lost"] * 4
    assert [term is not None for term in terms] == [True, False] * 4
    tokens = [term.token for term in terms if term]
    assert tokens == sorted(set(tokens))


async def test_after_a_resignation_another_one_leads(world: World) -> None:
    elections = [election_of(world.process(), candidate_id=name) for name in "abc"]
    tasks = [asyncio.ensure_future(election.participate()) for election in elections]
    await asyncio.sleep(1)
    seen = []
    for _ in range(6):
        (leading,) = [election for election in elections if election.is_leader]
        seen.append(leading.candidate_id)
        await leading.resign()
        await asyncio.sleep(1)
    assert seen[:3] == seen[3:]
    assert sorted(seen[:3]) == ["a", "b", "c"]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_listener_is_told_what_is_and_hears_no_more_once_removed(world: World) -> None:
    told, late = Told(), Told()
    election = election_of(world.process())
    remove = election.add_listener(told)
    async with election.campaign():
        election.add_listener(late)
        await asyncio.sleep(0.1)
        remove()
        remove()
    await asyncio.sleep(0.1)
    assert (told.heard, late.heard) == (["acquired"], ["acquired", "lost"])


async def test_a_bad_listener_harms_nobody(world: World, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(LeadershipListener):
        def on_leadership_acquired(self) -> None:
            raise ValueError("bad listener")

        async def on_leadership_lost(self) -> None:
            raise asyncio.CancelledError

    class Hanging(Told):
        async def on_leadership_lost(self) -> None:
            await asyncio.sleep(1000)

    caplog.set_level(logging.ERROR, "osdisco")
    told = Told()
    election = election_of(world.process())
    for listener in (Failing(), Hanging(), told):
        election.add_listener(listener)
    for _ in range(2):
        async with election.campaign(1):
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.1)
    assert told.heard == ["acquired", "lost"] * 2
    assert caplog.text.count("failed; it is told") == 2


async def test_what_a_listener_does_as_leader_is_cancelled_when_the_term_ends(world: World) -> None:
    done: list[str] = []

    class Working(LeadershipListener):
        async def on_leadership_acquired(self) -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                done.append("stopped")

        async def on_leadership_lost(self) -> None:
            done.append("lost")

    client = world.process()
    election = election_of(client)
    election.add_listener(Working())
    async with election.campaign():
        await asyncio.sleep(1)
        assert done == []
    await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert done == ["stopped", "lost"]


async def test_a_listener_hears_of_the_loss_when_the_client_closes(world: World) -> None:
    told = Told()
    client = world.process()
    election = election_of(client)
    election.add_listener(told)
    await election.campaign()
    await asyncio.sleep(0.1)
    await client.aclose()
    assert told.heard == ["acquired", "lost"]


@pytest.mark.parametrize("conflate", [False, True])
async def test_an_observer_sees_the_present_leader_first_and_then_every_other(world: World, conflate: bool) -> None:
    world.store.faults.conflate = conflate
    observer = election_of(world.process())
    async with observer.observe() as leaders:
        assert await anext(leaders) is None
        async with election_of(world.process("a")).campaign() as term:
            assert await anext(leaders) == Leader("a", {}, term.token, WALL + world.clock.now())
            await term.proclaim({"n": 1})
            assert (await anext(leaders)).info == {"n": 1}
            async with observer.observe() as late:
                assert (await anext(late)).info == {"n": 1}
            task = standing(world.process(), "b")
            await queued(world, 1)
        while (leader := await anext(leaders)) is None:
            pass
        assert leader.candidate_id == "b"
        await (await task).resign()
        assert await anext(leaders) is None


async def test_an_observer_whose_client_closes_or_who_may_not_look_is_told(world: World) -> None:
    for trouble in ("deny", "close"):
        client = world.process()
        async with election_of(client).observe() as leaders:
            assert await anext(leaders) is None
            if trouble == "deny":
                client.backend.faults.deny("watch")
            else:
                asyncio.get_running_loop().call_later(1, lambda c=client: asyncio.ensure_future(c.aclose()))
            with pytest.raises(OsdiscoError):
                await asyncio.wait_for(anext(leaders), 5)
        with pytest.raises(StopAsyncIteration):
            await anext(leaders)
