"""Cancellation of elections at every await, once and again, with and without lost answers: nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count

import pytest
from elections import election_of
from worlds import Suspensions, World, lease_of

from osdisco.client import Client
from osdisco.coordination import LeaderElection, Term
from osdisco.errors import OsdiscoError
from osdisco.testing import run

Operation = Callable[[LeaderElection, World], Awaitable[Term | None]]


async def campaign(election: LeaderElection, world: World) -> Term | None:
    return await election.campaign()


async def campaign_in_time(election: LeaderElection, world: World) -> Term | None:
    return await election.campaign(timeout=60)


async def wait(election: LeaderElection, world: World) -> Term | None:
    """Behind another that goes away meanwhile."""
    leader = world.process()
    await election_of(leader).campaign()
    asyncio.get_running_loop().call_later(1, world.kill, leader)
    asyncio.get_running_loop().call_later(1, world.store.faults.end_lease, await lease_of(leader))
    return await election.campaign()


async def wait_locally(election: LeaderElection, world: World) -> Term | None:
    """Behind another of the same session."""
    term = await election_of(world.clients[0], candidate_id="before").campaign()
    asyncio.get_running_loop().call_later(1, lambda: asyncio.ensure_future(term.resign()))
    return await election.campaign()


async def lead(election: LeaderElection, world: World) -> Term | None:
    async with election.campaign() as term:
        await term.proclaim({"url": "http://x"})
        await asyncio.sleep(0.5)


async def participate(election: LeaderElection, world: World) -> Term | None:
    async with asyncio.timeout(2):
        try:
            await election.participate()
        except TimeoutError:
            return None


async def transfer(election: LeaderElection, world: World) -> Term | None:
    async with election.campaign() as term:
        heir = asyncio.ensure_future(lead_briefly(world.process()))
        await asyncio.sleep(0.5)
        await term.transfer("heir")
        await heir


async def lead_briefly(client: Client) -> None:
    async with election_of(client, candidate_id="heir").campaign():
        await asyncio.sleep(0.1)


OPERATIONS = [campaign, campaign_in_time, wait, wait_locally, lead, participate, transfer]


def fine(client: Client) -> None:
    pass


def answer_lost(client: Client) -> None:
    client.backend.faults.drop_answer("commit", times=1, key="election/")


def promotion_answer_lost(client: Client) -> None:
    client.backend.faults.drop_answer("commit", times=1, key="/leader")


def promotion_comes_late(client: Client) -> None:
    client.backend.faults.late("commit", after=0.2, times=1, key="/leader")


def all_comes_late(client: Client) -> None:
    client.backend.faults.late("commit", after=0.7, times=3, key="election/")


FAULTS = [fine, answer_lost, promotion_answer_lost, promotion_comes_late, all_comes_late]


async def cancelled(operation: Operation, fault: Callable[[Client], None], first: int, more: int) -> bool:
    """Return whether there was an await to cancel at. Whatever happened, the next one leads soon."""
    world = World()
    client, next_one = world.process(), world.process()
    await client.shared_session()
    await next_one.shared_session()
    fault(client)
    suspensions = Suspensions(first, more)
    task = asyncio.ensure_future(suspensions.of(operation(election_of(client), world)))
    await asyncio.wait([task])
    if not task.cancelled() and not isinstance(task.exception(), TimeoutError) and (term := task.result()):
        await term.resign()
    began = world.clock.now()
    async with election_of(next_one).campaign(timeout=5):
        led = 1.0 if operation in (wait, wait_locally) else 0.0
        assert world.clock.now() - began < led + (0.3 if fault is fine else 3)
    client.backend.faults.clear()
    await asyncio.sleep(3)  # what is late arrives
    assert world.keys("election/") == []
    await world.aclose()
    assert world.keys() == []
    return task.cancelled() or suspensions.count >= first


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_cancelled_operation_leaves_nothing_and_blocks_nobody(
    operation: Operation, fault: Callable[[Client], None]
) -> None:
    for more in (0, 1, 3):
        for first in count(1):
            try:
                reached = run(cancelled(operation, fault, first, more))
            except BaseException as exc:
                exc.add_note(f"cancelled at await {first} and {more} times after that")
                raise
            if not reached:
                break
        assert first > 2


@pytest.mark.parametrize("seed", range(20))
def test_a_candidate_cancelled_when_its_turn_comes_leaves_no_ghost(seed: int) -> None:
    async def main() -> None:
        world = World(seed=seed)
        leader, waiter, next_one = world.process(), world.process(), world.process()
        term = await election_of(leader).campaign()
        task = asyncio.ensure_future(Suspensions().of(election_of(waiter).campaign()))
        await asyncio.sleep(0.5)
        await term.resign()
        for _ in range(seed // 2):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            await task.result().resign()
        async with election_of(next_one).campaign(timeout=0.2):
            pass
        await world.aclose()
        assert world.keys() == []

    run(main(), seed=seed)


def test_a_timeout_at_any_moment_leaves_the_queue() -> None:
    """asyncio.timeout and the campaign's own, with a store that takes its time."""

    async def main(timeout: float) -> None:
        world = World()
        leader, waiter = world.process(), world.process()
        waiter.backend.faults.delay(request=0.3, answer=0.3)
        async with election_of(leader).campaign():
            await asyncio.sleep(0)
            try:
                async with asyncio.timeout(timeout):
                    await election_of(waiter).campaign()
            except TimeoutError:
                pass
            with pytest.raises(OsdiscoError):
                await election_of(waiter).campaign(timeout=timeout)
        waiter.backend.faults.clear()
        await asyncio.sleep(5)
        assert world.keys("election/") == []
        await world.aclose()

    for tenths in range(1, 40):
        run(main(tenths / 10 + 0.05))
