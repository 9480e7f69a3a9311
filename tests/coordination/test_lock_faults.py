"""The mutex when answers are lost, the store is away or refuses: no orphan, no second holder, nobody waits for ever."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import pytest
from attrs import evolve
from locks import lock_of, waiting
from worlds import World, lease_of

from osdisco.backend import Put
from osdisco.coordination import CoordinationService
from osdisco.errors import (
    ClosedError,
    DeniedError,
    IndeterminateError,
    LostError,
    TimedOutError,
    UnavailableError,
)
from osdisco_memory import LIMITS

# Lost answers


@pytest.mark.parametrize("lost", ["drop", "drop_answer"])
async def test_a_create_whose_answer_was_lost_makes_one_entry(world: World, lost: str) -> None:
    client = world.process()
    rule = getattr(client.backend.faults, lost)("commit", times=1, key="lock/")
    async with lock_of(client) as guard:
        assert rule.hits == 1
        assert len(world.keys("lock/")) == 1
        await guard.commit([Put("jobs/1", b"")])


async def test_one_silent_endpoint_delays_acquire_and_release_and_fails_neither(world: World) -> None:
    """The next attempt goes to the next endpoint, and there must be time for it."""
    client = world.process(timeout=5)
    await client.shared_session()
    client.backend.faults.delay("commit", request=60, times=1, key="lock/")
    guard = await lock_of(client).acquire()
    assert world.clock.now() < 4
    client.backend.faults.delay("commit", request=60, times=1, key="lock/")
    began = world.clock.now()
    await guard.release()
    assert world.clock.now() - began < 4
    await asyncio.sleep(60)  # what was held up applies now
    assert world.keys("lock/") == []


async def test_a_create_that_comes_after_the_release_is_refused(world: World) -> None:
    """Otherwise it would block everybody until the session ends."""
    client, other = world.process(), world.process()
    client.backend.faults.late("commit", after=3, times=1, key="lock/")
    guard = await lock_of(client).acquire()
    await guard.release()
    assert world.clock.now() < 3
    await asyncio.sleep(5)
    assert world.keys("lock/") == []
    async with lock_of(other).acquire(timeout=1):
        pass
    await client.aclose()
    assert world.keys("x/") == []


async def test_a_create_that_comes_after_its_waiter_gave_up_is_refused(world: World) -> None:
    client, other = world.process(), world.process()
    await client.shared_session()
    client.backend.faults.late("commit", after=3, key="lock/job")
    with pytest.raises(TimedOutError):
        await lock_of(client).acquire(timeout=1)
    client.backend.faults.clear()
    await asyncio.sleep(5)
    assert world.keys("lock/") == []
    async with lock_of(other).acquire(timeout=1):
        pass
    await client.aclose()


async def test_a_create_that_comes_after_the_session_closed_is_refused(world: World) -> None:
    client = world.process()
    async with client.session() as session:
        client.backend.faults.late("commit", after=3, key="lock/job")
        with pytest.raises(TimedOutError):
            await CoordinationService(client, session=session).lock("job").acquire(timeout=1)
    await asyncio.sleep(5)
    assert world.keys("lock/") == []


async def test_a_create_of_a_revoked_lease_is_refused_and_the_next_acquire_has_a_new_session(world: World) -> None:
    client = world.process()
    session = await client.shared_session()
    client.backend.faults.outage("watch", "renew")  # it does not hear of it
    world.store.faults.end_lease(session.id)
    with pytest.raises(LostError):
        await lock_of(client).acquire()
    assert session.lost.is_set()
    client.backend.faults.clear()
    async with lock_of(client):
        assert await lease_of(client) != session.id


async def test_a_create_that_stays_unknown_ends_in_time(world: World) -> None:
    client = world.process()
    await client.shared_session()
    rule = client.backend.faults.drop("commit", key="lock/job")
    began = world.clock.now()
    with pytest.raises(IndeterminateError):
        await lock_of(client).try_acquire()
    assert world.clock.now() - began <= 2 * client.options.timeout
    rule.end()


@pytest.mark.parametrize("lost", ["drop", "drop_answer", "late"])
async def test_a_release_whose_answer_was_lost_is_a_release(world: World, lost: str) -> None:
    client, other = world.process(), world.process()
    guard = await lock_of(client).acquire()
    options = {"after": 0.3} if lost == "late" else {}
    getattr(client.backend.faults, lost)("commit", times=2, **options)
    await guard.release()
    assert world.keys("lock/") == []
    async with lock_of(other).acquire(timeout=1):
        await asyncio.sleep(1)


async def test_try_acquire_in_vain_with_a_lost_answer_leaves_nothing(world: World) -> None:
    holder, other = world.process(), world.process()
    async with lock_of(holder):
        other.backend.faults.late("commit", after=1, times=3, key="lock/job")
        assert await lock_of(other).try_acquire() is None
        await asyncio.sleep(3)
        assert len(world.keys("lock/")) == 1


@pytest.mark.parametrize("kind", ["a mutex", "readers"])
async def test_who_came_after_a_release_is_not_lost_by_what_the_release_saw(world: World, kind: str) -> None:
    """Two answers overtake each other: that of a release, and that of who came right after it."""
    client = world.process()
    service = CoordinationService(client)
    first, then = service.lock("job"), service.lock("job")
    if kind == "readers":
        first, then = service.rwlock("job").write(), service.rwlock("job").read()
    guard = await first.acquire()
    between = asyncio.ensure_future(then.acquire())
    await asyncio.sleep(1)
    client.backend.faults.delay("commit", answer=2, times=1)
    release = asyncio.ensure_future(guard.release())
    await asyncio.sleep(0.1)
    last = asyncio.ensure_future(then.acquire())
    await asyncio.sleep(0.1)
    between.cancel()
    await (await asyncio.wait_for(last, 5)).release()
    await release


# The store is away


async def test_acquiring_while_the_store_is_away_is_unavailable_in_time(world: World) -> None:
    client = world.process()
    client.backend.faults.outage()
    with pytest.raises(UnavailableError):
        await lock_of(client).acquire()
    assert world.clock.now() <= client.options.timeout
    client.backend.faults.clear()
    async with lock_of(client):
        pass


async def test_acquiring_at_a_silent_store_ends_in_time(world: World) -> None:
    client = world.process()
    await client.shared_session()
    client.backend.faults.freeze()
    with pytest.raises((IndeterminateError, UnavailableError, LostError)):
        await lock_of(client).acquire()
    assert world.clock.now() <= 2 * client.options.timeout
    client.backend.faults.thaw()
    await asyncio.sleep(5)
    assert world.keys("lock/") == []


OUTAGES = [
    pytest.param("outage", marks=pytest.mark.fault("F1", "F8")),
    pytest.param("freeze", marks=pytest.mark.fault("F2", "F17")),
]


@pytest.mark.parametrize("fault", OUTAGES)
async def test_an_outage_within_the_ttl_loses_nobody_and_delays_nobody_for_long(world: World, fault: str) -> None:
    holder, waiter = world.process(), world.process()
    guard = await lock_of(holder).acquire()
    task = waiting(waiter)
    await asyncio.sleep(2)
    getattr(world.store.faults, fault)()
    await asyncio.sleep(0.5 * world.ttl)
    world.store.faults.clear()
    await asyncio.sleep(world.ttl)
    guard.check()
    assert not task.done()
    await guard.release()
    await (await asyncio.wait_for(task, 10)).release()


async def test_a_waiter_whose_turn_comes_during_an_outage_gets_the_lock_after_it(world: World) -> None:
    holder, waiter = world.process(), world.process(timeout=1)
    guard = await lock_of(holder).acquire()
    task = waiting(waiter)
    await asyncio.sleep(1)
    rule = waiter.backend.faults.outage("scan")
    await guard.release()
    await asyncio.sleep(5)
    assert not task.done()
    rule.end()
    await (await asyncio.wait_for(task, 5)).release()


async def test_a_release_during_an_outage_says_so_in_time_and_happens_afterwards(world: World) -> None:
    client, other = world.process(timeout=2), world.process()
    guard = await lock_of(client).acquire()
    client.backend.faults.outage("commit")
    began = world.clock.now()
    with pytest.raises(IndeterminateError):
        await guard.release()
    assert world.clock.now() - began <= 2.1
    client.backend.faults.clear()
    async with lock_of(other).acquire(timeout=5):
        pass
    await guard.release()


async def test_a_block_that_ends_during_an_outage_raises_nothing_and_frees_the_lock_afterwards(world: World) -> None:
    client, other = world.process(timeout=2), world.process()
    async with lock_of(client):
        client.backend.faults.outage("commit")
    client.backend.faults.clear()
    async with lock_of(other).acquire(timeout=5):
        pass


async def test_a_block_whose_session_ends_before_its_release_does_is_lost(world: World) -> None:
    client = world.process(timeout=20)
    with pytest.raises(LostError):
        async with lock_of(client):
            client.backend.faults.outage()
    client.backend.faults.clear()


async def test_a_holder_that_may_no_longer_look_gives_its_lock_back(world: World) -> None:
    """Its release would show the queue to the next one of its process."""
    client, other = world.process(), world.process()
    guard = await lock_of(client).acquire()
    task = waiting(client)
    await asyncio.sleep(1)
    client.backend.commit_and_scan = denied
    await guard.release()
    await (await asyncio.wait_for(task, 1)).release()
    async with lock_of(other).acquire(timeout=1):
        pass


async def denied(*_: object, **__: object) -> NoReturn:
    raise DeniedError("permission denied")


@pytest.mark.parametrize("call", ["scan", "watch"])
async def test_a_waiter_that_may_no_longer_look_is_told(world: World, call: str) -> None:
    holder, waiter = world.process(), world.process()
    guard = await lock_of(holder).acquire()
    task = waiting(waiter)
    await asyncio.sleep(1)
    waiter.backend.faults.deny(call, key="lock/")
    await guard.release()
    with pytest.raises(DeniedError):
        await (await asyncio.wait_for(task, 1)).release()
    await asyncio.sleep(1)
    assert world.keys("lock/") == []


async def test_a_holder_that_may_no_longer_watch_keeps_its_lock(world: World) -> None:
    client = world.process()
    client.backend.faults.deny("watch", key="lock/")
    async with lock_of(client) as guard:
        await asyncio.sleep(5)
        guard.check()


async def test_a_watch_that_is_behind_does_not_make_its_waiter_spin(world: World) -> None:
    """Two wait by one watch of all locks, and frames are late: what it shows is older than what was scanned."""
    holder, waiter = world.process(), world.process()
    world.store.limits = evolve(LIMITS, watches_max=1)
    guard = await lock_of(holder).acquire()
    other = await CoordinationService(holder).lock("other").acquire()
    first = waiting(waiter, "other")
    await asyncio.sleep(1)
    waiter.backend.faults.delay("watch", answer=5)
    second = await CoordinationService(holder).lock("late").acquire()
    task = waiting(waiter, "late")
    await asyncio.sleep(4)
    assert waiter.backend.calls["scan"] < 20
    for held, its_waiter in ((second, task), (other, first)):
        await held.release()
        await (await asyncio.wait_for(its_waiter, 15)).release()
    await guard.release()


# The client goes


async def test_closing_waits_for_what_was_abandoned(world: World) -> None:
    holder, client = world.process(), world.process()
    async with lock_of(holder):
        task = waiting(client)
        await asyncio.sleep(1)
        client.backend.faults.delay("commit", request=1)
        task.cancel()
        await asyncio.sleep(0)
        await client.aclose()
        assert len(world.keys("lock/")) == 1


async def test_a_waiter_whose_client_is_closed_is_told(world: World) -> None:
    holder, client = world.process(), world.process()
    async with lock_of(holder):
        task = waiting(client)
        await asyncio.sleep(1)
        await client.aclose()
        with pytest.raises((LostError, ClosedError)):
            await asyncio.wait_for(task, 1)
        assert len(world.keys("lock/")) == 1
