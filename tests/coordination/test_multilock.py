"""The multi-lock by its rules: all or none, no circles, lost as a whole. Virtual time, store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import combinations

import pytest
from locks import lock_of, queued, waiting
from worlds import World

from osdisco.backend import Delete, Put
from osdisco.client import Client
from osdisco.coordination import CoordinationService, MultiLock, MultiLockGuard
from osdisco.errors import ConfigError, InvalidNameError, LostError, TimedOutError


def locks_of(client: Client, *names: str) -> MultiLock:
    return CoordinationService(client).multilock(names)


async def acquired(client: Client, *names: str) -> MultiLockGuard:
    return await locks_of(client, *names).acquire()


async def test_all_are_held_with_a_token_each_and_none_stays(world: World) -> None:
    client, other = world.process(), world.process()
    async with locks_of(client, "b", "a") as guard:
        assert list(guard.tokens) == ["a", "b"]
        assert guard.token == max(guard.tokens.values())
        for name in ("a", "b"):
            assert (await lock_of(other, name).contenders())[0].token == guard.tokens[name]
            assert await lock_of(other, name).try_acquire() is None
        await guard.commit([Put("jobs/1", b"done")])
    async with lock_of(other, "a"), lock_of(other, "b"):
        pass


async def test_no_order_of_names_makes_a_circle(world: World) -> None:
    done = []

    async def use(client: Client, names: Iterable[str]) -> None:
        for _ in range(3):
            async with locks_of(client, *names):
                await asyncio.sleep(0.1)
        done.append(names)

    pairs = [pair for two in combinations("abcd", 2) for pair in (two, two[::-1])]
    async with asyncio.timeout(60):
        await asyncio.gather(*(use(world.process(), pair) for pair in pairs))
    assert len(done) == len(pairs)


async def test_tokens_of_the_same_names_rise(world: World) -> None:
    tokens: list[dict[str, int]] = []

    async def use(client: Client) -> None:
        async with locks_of(client, "a", "b") as guard:
            tokens.append({**guard.tokens, "all": guard.token})
            await asyncio.sleep(0.1)

    await asyncio.gather(*(use(world.process()) for _ in range(10)))
    for name in ("a", "b", "all"):
        assert [one[name] for one in tokens] == sorted({one[name] for one in tokens})


async def test_a_timeout_gives_all_back(world: World) -> None:
    holder, client = world.process(), world.process()
    async with lock_of(holder, "b"):
        began = world.clock.now()
        with pytest.raises(TimedOutError, match="'a', 'b', 'c'"):
            await locks_of(client, "a", "b", "c").acquire(timeout=2)
        assert world.clock.now() - began == pytest.approx(2, abs=0.01)
        await asyncio.sleep(0.5)
        assert len(world.keys("lock/")) == 1


async def test_trying_takes_all_or_none_at_once(world: World) -> None:
    holder, client = world.process(), world.process()
    async with lock_of(holder, "b"):
        assert await locks_of(client, "a", "b", "c").try_acquire() is None
        assert len(world.keys("lock/")) == 1
    guard = await locks_of(client, "a", "b", "c").try_acquire()
    assert guard is not None
    await guard.release()


async def test_given_back_last_first(world: World) -> None:
    """Who gets an earlier one then finds the later ones free."""
    client = world.process()
    guard = await locks_of(client, "a", "b", "c").acquire()
    gone: list[str] = []
    commit = world.store.commit

    def recording(ops, expect):  # type: ignore[no-untyped-def]
        gone.extend(op.key.split("/")[2] for op in ops if isinstance(op, Delete) and "/lock/" in op.key)
        return commit(ops, expect)

    world.store.commit = recording
    await guard.release()
    assert gone == ["c", "b", "a"]


@pytest.mark.parametrize("removed", ["a", "b"])
async def test_the_loss_of_one_is_the_loss_of_all(world: World, removed: str) -> None:
    client, other = world.process(), world.process()

    async def hold() -> None:
        async with locks_of(client, "a", "b") as guard:
            await asyncio.sleep(2)
            (entry,) = [entry for entry in guard._entries if f"/{removed}/" in entry.key]
            world.store.commit([Delete(entry.key)], {})
            await asyncio.sleep(1)
            pytest.fail("the body goes on without its locks")

    with pytest.raises(LostError):
        await hold()
    async with locks_of(other, "a", "b").acquire(timeout=1):
        pass


@pytest.mark.parametrize("removed", ["a", "b"])
async def test_a_commit_is_guarded_by_all_of_them(world: World, removed: str) -> None:
    client = world.process()
    guard = await locks_of(client, "a", "b").acquire()
    (entry,) = [entry for entry in guard._entries if f"/{removed}/" in entry.key]
    world.store.commit([Delete(entry.key)], {})
    with pytest.raises(LostError):
        await guard.commit([Put("jobs/1", b"")])
    assert await client.get("jobs/1") is None
    with pytest.raises(LostError):
        await guard.release()


async def test_one_that_was_taken_away_while_the_others_were_waited_for_is_no_lock(world: World) -> None:
    holder, client = world.process(), world.process()
    guard = await lock_of(holder, "b").acquire()
    task = asyncio.ensure_future(locks_of(client, "a", "b").acquire().__aenter__())
    await queued(holder, 2, "b")
    await asyncio.sleep(2)
    world.store.commit([Delete("ns/" + world.keys("lock/a/")[0])], {})
    await guard.release()
    with pytest.raises(LostError):
        await task
    await asyncio.sleep(1)
    assert world.keys("lock/") == []


async def test_one_that_was_taken_away_before_anybody_followed_it_is_no_lock(world: World) -> None:
    holder, client = world.process(), world.process()
    guards = [await lock_of(holder, name).acquire() for name in "bc"]
    task = asyncio.ensure_future(locks_of(client, "a", "b", "c").acquire().__aenter__())
    for guard in guards:
        await asyncio.sleep(0.6)
        world.store.commit([Delete(f"ns/{key}") for key in world.keys("lock/a/")], {})
        await guard.release()
    with pytest.raises(LostError, match="before all were held"):
        await task


async def test_who_is_behind_one_that_is_taken_away_meanwhile_does_not_wait_for_the_others(world: World) -> None:
    holder, client = world.process(), world.process()
    guard = await lock_of(holder, "b").acquire()
    task = asyncio.ensure_future(locks_of(client, "a", "b").acquire().__aenter__())
    await queued(holder, 2, "b")
    behind = waiting(client, "a")
    await queued(holder, 2, "a")
    await asyncio.sleep(2)
    (first, _) = await lock_of(holder, "a").contenders()
    await lock_of(holder, "a").revoke(first.token)
    await (await asyncio.wait_for(behind, 1)).release()
    with pytest.raises(LostError, match="revoked"):
        await asyncio.wait_for(task, 1)
    assert len(world.keys("lock/")) == 1
    await guard.release()


async def test_an_outage_when_all_are_held_at_last_is_waited_out(world: World) -> None:
    holder, client = world.process(), world.process(timeout=1)
    guard = await lock_of(holder, "b").acquire()
    task = asyncio.ensure_future(locks_of(client, "a", "b").acquire().__aenter__())
    await queued(holder, 2, "b")
    await asyncio.sleep(2)
    rule = client.backend.faults.outage("get")
    await guard.release()
    await asyncio.sleep(4)
    assert not task.done()
    rule.end()
    await (await asyncio.wait_for(task, 5)).release()


async def test_the_last_look_of_a_lease_that_ran_out_unnoticed_gives_nothing(world: World) -> None:
    """The store still has the entries, and would soon give the locks to others."""
    world.store.faults.expiry_factor = 3.0
    holder, client = world.process(), world.process()
    guard = await lock_of(holder, "b").acquire()
    task = asyncio.ensure_future(acquired(client, "a", "b"))
    await queued(holder, 2, "b")
    await asyncio.sleep(2)
    away = client.backend.faults.outage("renew", "get", "revoke", "commit")
    await guard.release()
    await asyncio.sleep(world.ttl + 1)
    assert len(world.keys("lock/")) == 2
    away.end()
    with pytest.raises(LostError):
        await asyncio.wait_for(task, 5)
    await asyncio.sleep(3 * world.ttl)


async def test_a_session_that_is_lost_between_two_of_them_gives_nothing(world: World) -> None:
    """Never one lock on the old session and one on the next."""
    holder, client = world.process(), world.process()
    guard = await lock_of(holder, "b").acquire()
    task = asyncio.ensure_future(locks_of(client, "a", "b").acquire().__aenter__())
    await queued(holder, 2, "b")
    world.store.faults.end_lease((await client.shared_session()).id)
    with pytest.raises(LostError):
        await asyncio.wait_for(task, 1)
    await guard.release()


@pytest.mark.parametrize("names", [[], ["a", "a"], "ab", ["a", 3], [f"n{number}" for number in range(33)]])
async def test_names_that_make_no_multilock_are_refused(world: World, names: object) -> None:
    client = world.process()
    with pytest.raises(ConfigError):
        CoordinationService(client).multilock(names)  # type: ignore[arg-type]
    with pytest.raises(InvalidNameError):
        locks_of(client, "a", "")
    assert not client.backend.calls


async def test_as_many_as_are_allowed_leave_room_for_what_is_written(world: World) -> None:
    client = world.process()
    async with locks_of(client, *(f"n{number}" for number in range(32))) as guard:
        await guard.commit([Put(f"jobs/{number}", b"") for number in range(32)])
