"""The end of a lock that nobody gave back: who is told, when, and who gets it. Virtual time, store in memory."""

from __future__ import annotations

import asyncio

import pytest
from attrs import evolve
from locks import acquire, lock_of, queued, waiting
from worlds import World, lease_of

from osdisco.backend import ABSENT, Delete, Put
from osdisco.errors import LostError
from osdisco_memory import LIMITS


async def test_the_holder_knows_at_once_that_its_session_died(world: World) -> None:
    client = world.process()
    guard = await lock_of(client).acquire()
    await asyncio.sleep(0.5)
    world.store.faults.end_lease(await lease_of(client))
    assert "gone" in await asyncio.wait_for(guard.lost.wait(), 1)
    with pytest.raises(LostError):
        guard.check()
    with pytest.raises(LostError):
        await guard.commit([Put("a", b"1")])
    with pytest.raises(LostError):
        await guard.release()


async def test_the_holder_is_told_when_an_operator_removes_its_entry(world: World) -> None:
    client, operator = world.process(), world.process()

    async def hold() -> None:
        async with lock_of(client) as guard:
            await asyncio.sleep(5)
            await operator.delete("lock/job/" + guard._entry.key.rpartition("/")[2])
            await asyncio.sleep(1)
            pytest.fail("the body goes on without the lock")

    with pytest.raises(LostError, match="removed by an operator"):
        await hold()


def make_anew(world: World, key: str) -> None:
    """Delete and put the key at one moment, so that no watch of a store that conflates sees it missing."""
    world.store.faults.conflate = True
    item = world.store.get(key)
    world.store.commit([Delete(key)], {})
    world.store.commit([Put(key, item.value, item.lease)], {key: ABSENT})


async def test_an_entry_made_anew_is_not_the_holders(world: World) -> None:
    client = world.process()
    guard = await lock_of(client).acquire()
    await asyncio.sleep(5)
    make_anew(world, guard._entry.key)
    await asyncio.wait_for(guard.lost.wait(), 1)
    with pytest.raises(LostError):
        await guard.commit([Put("a", b"1")])
    await client.aclose()


async def test_a_waiter_whose_predecessor_is_made_anew_looks_again(world: World) -> None:
    """What stands there now is behind it in the queue."""
    holder, waiter = world.process(), world.process()
    guard = await lock_of(holder).acquire()
    task = waiting(waiter)
    await asyncio.sleep(0.5)
    make_anew(world, guard._entry.key)
    await (await asyncio.wait_for(task, 1)).release()
    await holder.aclose()


async def test_a_waiter_whose_session_dies_is_lost_and_never_acquires(world: World) -> None:
    holder, waiter = world.process(), world.process()
    guard = await lock_of(holder).acquire()
    task = waiting(waiter)
    await queued(holder, 2)
    world.store.faults.end_lease(await lease_of(waiter))
    with pytest.raises(LostError):
        await asyncio.wait_for(task, 1)
    await guard.release()
    assert await lock_of(holder).contenders() == []


async def test_a_waiter_that_is_cut_off_is_lost_at_its_own_deadline(world: World) -> None:
    holder, waiter = world.process(), world.process()
    async with lock_of(holder):
        task = waiting(waiter)
        await queued(holder, 2)
        waiter.backend.faults.freeze()
        with pytest.raises(LostError):
            await asyncio.wait_for(task, world.ttl)
    waiter.backend.faults.thaw()


async def test_the_turn_of_a_lease_that_ran_out_unnoticed_is_no_turn(world: World) -> None:
    """What Jepsen found in etcd's lock: the wait ends because the waiter was away, and so is its lease."""
    holder, waiter = world.process(), world.process()
    guard = await lock_of(holder).acquire()
    task = waiting(waiter)
    await queued(holder, 2)
    waiter.backend.faults.delay("scan", answer=2)  # the answer that it is first comes when the lease is over
    waiter.backend.faults.outage("renew")
    await asyncio.sleep(world.ttl - 2)
    await guard.release()
    with pytest.raises(LostError):
        await task


async def test_a_watch_that_shows_the_time_before_the_lock_is_no_loss(world: World) -> None:
    """One watch of all locks, late by seconds: it does not show what is held, and the store does."""
    holder, client = world.process(), world.process()
    world.store.limits = evolve(LIMITS, watches_max=0)
    other = await lock_of(holder, "other").acquire()
    waiter = waiting(client, "other")
    await asyncio.sleep(1)
    client.backend.faults.delay("watch", answer=5)
    guard = await lock_of(client).acquire()
    await asyncio.sleep(4)
    guard.check()
    client.backend.faults.clear()
    await asyncio.sleep(10)
    world.store.commit([Delete(guard._entry.key)], {})
    assert "removed" in await asyncio.wait_for(guard.lost.wait(), 1)
    await other.release()
    await (await asyncio.wait_for(waiter, 5)).release()


async def test_who_was_suspended_just_before_it_got_the_lock_is_told_in_time(world: World) -> None:
    """The next look at the clock was set before that, for a time when the deadline has long passed."""
    client = world.process()
    session = await client.shared_session()
    client.backend.faults.outage("renew")
    await asyncio.sleep(0.05)
    world.clock.jump(session.deadline - world.clock.now() - 0.2)
    guard = await lock_of(client).acquire()
    await asyncio.sleep(0.25)
    assert guard.lost.is_set()
    client.backend.faults.clear()


async def test_trying_takes_no_lock_of_a_lease_that_ran_out_meanwhile(world: World) -> None:
    client = world.process()
    await client.shared_session()
    await asyncio.sleep(1)
    client.backend.faults.outage("renew", "watch")
    await asyncio.sleep(world.ttl - 3)
    client.backend.faults.delay("commit", answer=2)
    with pytest.raises(LostError):
        await lock_of(client).try_acquire()


async def test_a_machine_that_slept_while_its_turn_came_has_no_turn(world: World) -> None:
    """No timer noticed: only the clock knows."""
    holder, waiter = world.process(), world.process()
    guard = await lock_of(holder).acquire()
    task = waiting(waiter)
    await queued(holder, 2)
    waiter.backend.faults.delay("scan", answer=0.1)
    await guard.release()
    await asyncio.sleep(0.05)
    world.clock.jump(world.ttl)
    with pytest.raises(LostError):
        await task


async def test_a_blocked_event_loop_is_found_out_by_check(world: World) -> None:
    client = world.process()
    guard = await lock_of(client).acquire()
    world.clock.jump(world.ttl)
    with pytest.raises(LostError):
        guard.check()
    assert guard.lost.is_set()


async def test_the_body_is_cancelled_before_the_store_gives_the_lock_away(world: World) -> None:
    holder, waiter = world.process(), world.process()
    ended = acquired = 0.0

    async def hold() -> None:
        nonlocal ended
        try:
            async with lock_of(holder):
                holder.backend.faults.freeze()
                await asyncio.sleep(1000)
        except LostError:
            ended = world.clock.now()

    async def wait() -> None:
        nonlocal acquired
        async with lock_of(waiter):
            acquired = world.clock.now()

    body = asyncio.ensure_future(hold())
    await asyncio.sleep(1)
    await asyncio.gather(body, wait())
    assert 0 < ended < acquired <= 2 * world.ttl
    holder.backend.faults.thaw()


async def test_the_lock_of_a_dead_process_goes_to_the_next_after_its_ttl(world: World) -> None:
    dead, waiter = world.process(), world.process()
    guard = await lock_of(dead).acquire()
    world.kill(dead)
    began = world.clock.now()
    async with lock_of(waiter) as next_guard:
        assert world.ttl - 1 <= world.clock.now() - began <= world.ttl + 1
        assert next_guard.token > guard.token


async def test_a_lost_scope_does_not_hide_that_the_task_was_cancelled(world: World) -> None:
    client = world.process()

    async def body() -> None:
        async with lock_of(client):
            await asyncio.sleep(1000)

    task = asyncio.ensure_future(body())
    await asyncio.sleep(1)
    world.store.faults.end_lease(await lease_of(client))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises((asyncio.CancelledError, LostError)):
        await task


async def test_a_waiter_behind_a_lost_waiter_of_its_own_process_looks_again(world: World) -> None:
    """The one before ours has a session of its own that dies, and nobody ever ends its guard."""
    client = world.process()
    async with client.session() as ours, client.session() as other:
        first = await acquire(client, session=other)
        second = waiting(client, session=ours)
        await queued(client, 2)
        world.store.faults.end_lease(other.id)
        guard = await asyncio.wait_for(second, 1)
        assert first.lost.is_set()
        assert guard.token > first.token
        await guard.release()


async def test_a_waiter_behind_a_holder_of_its_own_process_whose_entry_is_removed_gets_the_lock(world: World) -> None:
    client, operator = world.process(), world.process()
    first = await lock_of(client).acquire()
    second = waiting(client)
    await queued(client, 2)
    await operator.delete("lock/job/" + first._entry.key.rpartition("/")[2])
    guard = await asyncio.wait_for(second, 2)
    assert first.lost.is_set()
    await guard.release()
    with pytest.raises(LostError):
        await first.release()


async def test_a_lock_whose_watch_was_refused_for_a_while_is_watched_again(world: World) -> None:
    client = world.process()
    guard = await lock_of(client).acquire()
    await asyncio.sleep(2)
    rule = client.backend.faults.deny("watch", key="lock/")
    await asyncio.sleep(5)
    guard.check()
    rule.end()
    await asyncio.sleep(10)
    world.store.commit([Delete(guard._entry.key)], {})
    await asyncio.wait_for(guard.lost.wait(), 6)


@pytest.mark.parametrize("late", [0.5, 3])
async def test_a_create_that_comes_after_a_revocation_blocks_nobody_although_nobody_releases(
    world: World, late: float
) -> None:
    client, other = world.process(), world.process()
    await lease_of(client)
    client.backend.faults.late("commit", after=late, times=1, key="lock/")
    guard = await lock_of(client).acquire()
    await lock_of(other).revoke(guard.token)
    await asyncio.sleep(5)
    assert guard.lost.is_set()
    assert world.keys("lock/") == []


async def test_a_release_after_a_revocation_says_so_although_the_create_was_answered_late(world: World) -> None:
    client, other = world.process(), world.process()
    await lease_of(client)
    client.backend.faults.late("commit", after=3, times=1, key="lock/")
    guard = await lock_of(client).acquire()
    await lock_of(other).revoke(guard.token)
    with pytest.raises(LostError):
        await guard.release()
    await asyncio.sleep(5)
    assert world.keys("lock/") == []
