"""The semaphore by its rules: never more than the limit, fair, and stored once. Virtual time, store in memory."""

from __future__ import annotations

import asyncio

import pytest
from worlds import World, lease_of

from osdisco.backend import Delete, Put
from osdisco.client import Client
from osdisco.coordination import CoordinationService, DistributedSemaphore, LockGuard
from osdisco.errors import (
    ConfigError,
    CoordinationError,
    IndeterminateError,
    LostError,
    OsdiscoError,
    TimedOutError,
    UnavailableError,
)


def semaphore_of(client: Client, limit: int = 2, name: str = "job") -> DistributedSemaphore:
    return CoordinationService(client).semaphore(name, limit=limit)


def waiting(client: Client, limit: int = 2) -> asyncio.Task[LockGuard]:
    async def acquire() -> LockGuard:
        return await semaphore_of(client, limit).acquire()

    return asyncio.ensure_future(acquire())


async def queued(world: World, count: int) -> None:
    while len(world.keys("sem/job/q/")) != count:
        await asyncio.sleep(0.05)


async def test_as_many_hold_as_the_limit_says_and_the_others_wait_in_order(world: World) -> None:
    inside: list[int] = []
    most = 0
    came: list[int] = []

    async def use(client: Client, number: int) -> None:
        nonlocal most
        async with semaphore_of(client, 3):
            came.append(number)
            inside.append(number)
            most = max(most, len(inside))
            await asyncio.sleep(1)
            inside.remove(number)

    tasks = []
    for number in range(10):
        tasks.append(asyncio.ensure_future(use(world.process(), number)))
        await asyncio.sleep(0.01)
    await asyncio.gather(*tasks)
    assert (most, came) == (3, list(range(10)))


async def test_permits_of_one_process_count_too(world: World) -> None:
    client = world.process()
    permits = [await semaphore_of(client).acquire() for _ in range(2)]
    assert await semaphore_of(client).try_acquire() is None
    await permits.pop().release()
    third = await semaphore_of(client).try_acquire()
    assert third is not None
    for permit in (*permits, third):
        await permit.release()


async def test_an_uncontended_permit_costs_four_calls_and_no_watch(world: World) -> None:
    client = world.process()
    async with semaphore_of(client):
        pass  # stores the limit
    await asyncio.sleep(1)
    client.backend.calls.clear()
    permit = await semaphore_of(client).acquire()
    assert client.backend.calls == {"commit": 2, "scan": 1}
    await permit.release()
    assert client.backend.calls == {"commit": 3, "scan": 1}


async def test_one_release_wakes_one_of_many_waiters(world: World) -> None:
    holder = world.process()
    permits = [await semaphore_of(holder).acquire() for _ in range(2)]
    others = [world.process() for _ in range(20)]
    tasks = []
    for number, client in enumerate(others):
        tasks.append(waiting(client))
        await queued(world, number + 1)
    await asyncio.sleep(1)
    for client in others:
        client.backend.calls.clear()
    await permits[0].release()
    first = await asyncio.wait_for(tasks[0], 1)
    await asyncio.sleep(0.1)
    assert [client.backend.calls["scan"] for client in others[:3]] == [1, 1, 0]
    assert sum(client.backend.calls["scan"] for client in others[2:]) == 0
    await permits[1].release()
    permits = [first, await asyncio.wait_for(tasks[1], 1)]
    for task in tasks[2:]:
        await permits.pop(0).release()
        permits.append(await asyncio.wait_for(task, 1))
    for permit in permits:
        await permit.release()


async def test_a_thousand_waiters_of_one_process_have_one_watch(world: World) -> None:
    holder, crowd = world.process(), world.process(timeout=600)
    permit = await semaphore_of(holder, 1).acquire()
    tasks = [waiting(crowd, 1) for _ in range(1000)]
    await queued(world, 1000)
    await asyncio.sleep(2)
    assert len([key for key in +crowd.backend.watching if "/sem/" in key]) == 1
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await permit.release()


# The limit


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "3", None, 10_001])
async def test_a_limit_that_is_none_is_refused_before_anything_is_sent(world: World, limit: object) -> None:
    client = world.process()
    with pytest.raises(ConfigError, match="from 1 to 10000"):
        CoordinationService(client).semaphore("job", limit=limit)  # type: ignore[arg-type]
    assert not client.backend.calls


@pytest.mark.parametrize("wait", [True, False])
async def test_another_limit_than_the_stored_one_is_refused_and_leaves_nothing(world: World, wait: bool) -> None:
    client, other = world.process(), world.process()
    async with semaphore_of(client, 3):
        semaphore = semaphore_of(other, 2)
        with pytest.raises(ConfigError, match="limit of 3, as it was first opened, not 2"):
            await (semaphore.acquire() if wait else semaphore.try_acquire())
        await asyncio.sleep(1)
        assert len(world.keys("sem/")) == 2
        assert world.store.get("ns/sem/job/limit").value == b"3"


@pytest.mark.parametrize("value", [b"", b"x", b"-1", b"99999999", b"\xff"])
async def test_a_limit_that_something_else_wrote_is_told(world: World, value: bytes) -> None:
    client = world.process()
    world.store.commit([Put("ns/sem/job/limit", value)], {})
    with pytest.raises(CoordinationError, match="holds no limit"):
        await semaphore_of(client).acquire()


async def test_who_opens_it_at_the_same_time_agrees_on_one_limit(world: World) -> None:
    outcomes = await asyncio.gather(
        *(semaphore_of(world.process(), limit).acquire(timeout=5) for limit in (2, 3, 2, 3)), return_exceptions=True
    )
    stored = int(world.store.get("ns/sem/job/limit").value)
    for limit, outcome in zip((2, 3, 2, 3), outcomes, strict=True):
        assert isinstance(outcome, LockGuard if limit == stored else ConfigError)
    assert len(world.keys("sem/job/h/")) == 2


async def test_a_limit_that_was_changed_is_seen_by_who_waits(world: World) -> None:
    """Deleted by an operator while nobody should use it: a promotion by the old one does not apply."""
    client, other = world.process(), world.process()
    permit = await semaphore_of(client, 1).acquire()
    task = waiting(other, 1)
    await queued(world, 1)
    other.backend.faults.delay("commit", request=2, times=1, key="/h/")
    await permit.release()
    await asyncio.sleep(1)
    world.store.commit([Put("ns/sem/job/limit", b"5")], {})
    with pytest.raises(ConfigError):
        await task


# What goes wrong


async def test_a_head_that_stalls_until_its_lease_is_over_gets_no_permit(world: World) -> None:
    """Its promotion comes too late: its place is gone with the lease, and the permit is another's."""
    holder, stalled, next_one = world.process(), world.process(), world.process()
    permit = await semaphore_of(holder, 1).acquire()
    task = waiting(stalled, 1)
    await queued(world, 1)
    stalled.backend.faults.late("commit", after=2 * world.ttl, key="/h/")
    stalled.backend.faults.outage("renew")
    await permit.release()
    with pytest.raises(LostError):
        await task
    async with semaphore_of(next_one, 1).acquire(timeout=world.ttl) as current:
        await asyncio.sleep(2 * world.ttl)
        assert len(world.keys("sem/job/h/")) == 1
        current.check()
    stalled.backend.faults.clear()


@pytest.mark.parametrize("lost", ["drop", "drop_answer", "late"])
async def test_a_promotion_whose_answer_was_lost_gives_one_permit(world: World, lost: str) -> None:
    client = world.process()
    options = {"after": 0.5} if lost == "late" else {}
    rule = getattr(client.backend.faults, lost)("commit", times=1, key="/h/", **options)
    async with semaphore_of(client, 1) as permit:
        await asyncio.sleep(1)
        assert rule.hits == 1
        assert len(world.keys("sem/job/h/")) == 1
        assert world.keys("sem/job/q/") == []
        await permit.commit([Put("jobs/1", b"")])


@pytest.mark.parametrize("wait", [True, False])
async def test_a_promotion_that_comes_after_its_waiter_gave_up_is_undone(world: World, wait: bool) -> None:
    client, other = world.process(timeout=1), world.process()
    await client.shared_session()
    client.backend.faults.late("commit", after=0.9, key="/h/", times=5)
    semaphore = semaphore_of(client, 1)
    try:
        permit = await asyncio.wait_for(semaphore.acquire(timeout=0.5) if wait else semaphore.try_acquire(), 0.5)
    except (OsdiscoError, TimeoutError):
        permit = None
    assert permit is None
    async with semaphore_of(other, 1).acquire(timeout=3):
        await asyncio.sleep(3)
        assert len(world.keys("sem/job/h/")) == 1


async def test_who_gives_up_looks_for_its_permit_only_when_its_place_is_gone(world: World) -> None:
    """Between a look and the end of the place a promotion can still apply."""
    client, other = world.process(), world.process()
    await client.shared_session()
    late = client.backend.faults.late("commit", after=0.9, key="/h/")
    task = waiting(client, 1)
    await asyncio.sleep(0.4)
    late.end()
    client.backend.faults.delay("commit", request=1.5, key="/q/", times=1)
    task.cancel()
    await asyncio.wait([task])
    async with semaphore_of(other, 1).acquire(timeout=3):
        assert len(world.keys("sem/job/h/")) == 1


async def test_waiters_and_holders_are_seen_at_one_moment(world: World) -> None:
    """In two looks, one who moved from the waiters to the holders meanwhile is in neither."""
    a, b = world.process(), world.process()
    await a.shared_session()
    await b.shared_session()
    a.backend.faults.delay("commit", request=0.5, key="/h/")
    b.backend.faults.delay("scan", answer=1)
    first = waiting(a, 1)
    await queued(world, 1)
    second = waiting(b, 1)
    await asyncio.sleep(4)
    assert first.done()
    assert not second.done()
    assert len(world.keys("sem/job/h/")) == 1
    await first.result().release()
    await (await asyncio.wait_for(second, 5)).release()


async def test_a_place_that_is_made_late_after_its_promotion_is_refused(world: World) -> None:
    """Otherwise it would stand in the queue, before everybody, until the session ends."""
    client, other = world.process(), world.process()
    client.backend.faults.late("commit", after=3, times=1, key="/q/")
    async with semaphore_of(client, 2):
        await asyncio.sleep(5)
        assert world.keys("sem/job/q/") == []
        async with semaphore_of(other, 2).acquire(timeout=1):
            pass


async def test_a_holder_that_dies_gives_its_permit_to_the_next(world: World) -> None:
    victim, other = world.process(), world.process()
    await semaphore_of(victim, 1).acquire()
    world.kill(victim)
    began = world.clock.now()
    async with semaphore_of(other, 1).acquire(timeout=3 * world.ttl):
        assert world.clock.now() - began <= world.ttl + 0.1


async def test_a_removed_permit_is_a_lost_one(world: World) -> None:
    client = world.process()
    permit = await semaphore_of(client).acquire()
    await asyncio.sleep(2)
    world.store.commit([Delete(permit._entry.key)], {})
    assert "removed" in await asyncio.wait_for(permit.lost.wait(), 1)
    with pytest.raises(LostError):
        await permit.release()


async def test_a_removed_place_is_a_lost_one_and_the_next_goes_on(world: World) -> None:
    holder, client, other = world.process(), world.process(), world.process()
    permit = await semaphore_of(holder, 1).acquire()
    task = waiting(client, 1)
    await queued(world, 1)
    last = waiting(other, 1)
    await queued(world, 2)
    world.store.commit(
        [Delete(f"ns/{min(world.keys('sem/job/q/'), key=lambda k: world.store.get(f'ns/{k}').created)}")], {}
    )
    await permit.release()
    await (await asyncio.wait_for(last, 3)).release()
    with pytest.raises(LostError):
        await asyncio.wait_for(task, 3)


async def test_holders_and_waiters_are_shown_in_order(world: World) -> None:
    a, b = world.process("a"), world.process("b")
    permits = [await semaphore_of(a).acquire(), await semaphore_of(b).acquire()]
    task = waiting(a)
    await queued(world, 1)
    shown = await semaphore_of(b).contenders()
    assert [(one.owner, one.holds) for one in shown] == [("a", True), ("b", True), ("a", False)]
    assert [one.token for one in shown[:2]] == [permit.token for permit in permits]
    for permit in permits:
        await permit.release()
    await (await task).release()


@pytest.mark.parametrize("folder", ["q", "h"])
async def test_a_foreign_entry_takes_its_place(world: World, folder: str) -> None:
    client = world.process()
    world.store.commit([Put(f"ns/sem/job/{folder}/foreign", b"[")], {})
    with pytest.raises(TimedOutError):
        await semaphore_of(client, 1).acquire(timeout=5)
    assert client.backend.calls["scan"] < 5
    await asyncio.sleep(0.1)
    (shown,) = await semaphore_of(client, 1).contenders()
    assert (shown.owner, shown.holds) == ("foreign", folder == "h")
    world.store.commit([Delete(f"ns/sem/job/{folder}/foreign")], {})
    async with semaphore_of(client, 1).acquire(timeout=1):
        pass


async def test_a_store_that_is_away_is_told_at_once_and_waited_out_later(world: World) -> None:
    client, holder = world.process(), world.process()
    client.backend.faults.outage()
    with pytest.raises(UnavailableError):
        await semaphore_of(client, 1).acquire()
    client.backend.faults.clear()
    permit = await semaphore_of(holder, 1).acquire()
    task = waiting(client, 1)
    await queued(world, 1)
    rule = client.backend.faults.outage("scan", "watch")
    await permit.release()
    await asyncio.sleep(3)
    assert not task.done()
    rule.end()
    await (await asyncio.wait_for(task, 5)).release()


async def test_trying_while_nothing_is_known_for_sure_gives_up_in_time(world: World) -> None:
    client = world.process(timeout=2)
    await lease_of(client)
    client.backend.faults.drop("commit", key="/q/")
    with pytest.raises(IndeterminateError):
        await semaphore_of(client).try_acquire()
    client.backend.faults.clear()


async def test_trying_while_no_permit_is_confirmed_gives_up_in_time_and_leaves_none(world: World) -> None:
    client = world.process(timeout=2)
    async with semaphore_of(client):
        client.backend.faults.drop("commit", key="/h/")
        began = world.clock.now()
        with pytest.raises(IndeterminateError):
            await semaphore_of(client).try_acquire()
        assert world.clock.now() - began < 2 * client.options.timeout
        client.backend.faults.clear()
        await asyncio.sleep(3)
        assert len(world.left()) == 1


async def test_who_waits_for_an_entry_of_its_own_process_is_not_deceived_when_that_is_made_anew(world: World) -> None:
    """Given an entry whose creation is unknown, and that an operator removes: it is made anew, behind the other."""
    held = await semaphore_of(world.process(), 1).acquire()
    process = world.process()
    await process.shared_session()
    faults = process.backend.faults
    with faults.drop_answer("commit", times=1, key="/q/"), faults.outage("get", key="/q/"):
        first = waiting(process, 1)
        await queued(world, 1)
        (removed,) = world.keys("sem/job/q/")
        second = waiting(process, 1)
        await queued(world, 2)
        await asyncio.sleep(0.5)
        world.store.commit([Delete(f"ns/{removed}")], {})
        await queued(world, 2)
    await held.release()
    async with asyncio.timeout(20):
        await (await second).release()
        await (await first).release()
