"""Revocation: asked for, waited for, taken away; what the holder hears and what it can still do. Virtual time."""

from __future__ import annotations

import asyncio
import json
from math import inf, nan

import pytest
from locks import KINDS, lock_of, queued, rival, waiting
from worlds import World, lease_of

from osdisco.backend import Put
from osdisco.coordination import CoordinationService
from osdisco.coordination._guard import WATCH_AFTER
from osdisco.coordination.lock import Contended
from osdisco.errors import ConfigError, IndeterminateError, LostError, UnavailableError

CONTENDED = [kind for kind in KINDS if kind != "multilock"]


def contended(kind: str, coordination: CoordinationService) -> Contended:
    lock = KINDS[kind](coordination)
    assert isinstance(lock, Contended)
    return lock


@pytest.mark.parametrize("kind", CONTENDED)
async def test_a_holder_that_is_asked_gives_it_back_within_the_grace(world: World, kind: str) -> None:
    client, other = world.process("holder"), world.process("operator")
    guard = await KINDS[kind](CoordinationService(client)).acquire()

    async def obey() -> str:
        reason = await guard.revoked.wait()
        await guard.release()
        return reason

    obeying = asyncio.ensure_future(obey())
    began = world.clock.now()
    await contended(kind, CoordinationService(other)).revoke(guard.token, grace=10)
    assert world.clock.now() - began < 1
    assert await obeying == "operator wants it back, and takes it away after 10 s"
    assert not guard.lost.is_set()
    async with rival(kind)(CoordinationService(other)).acquire(timeout=1):
        pass
    await asyncio.sleep(1)
    assert world.keys("revoke/") == []


@pytest.mark.parametrize("kind", CONTENDED)
async def test_a_holder_that_does_not_listen_loses_it_after_the_grace(world: World, kind: str) -> None:
    client, other = world.process(), world.process()

    async def hold() -> None:
        async with KINDS[kind](CoordinationService(client)) as guard:
            holding.set_result(guard)
            await asyncio.sleep(1000)

    holding = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(hold())
    guard = await holding
    began = world.clock.now()
    await contended(kind, CoordinationService(other)).revoke(guard.token, grace=3)
    assert world.clock.now() - began == pytest.approx(3, abs=0.1)
    with pytest.raises(LostError, match="revoked"):
        await asyncio.wait_for(task, 1)
    assert guard.revoked.is_set()
    with pytest.raises(LostError):
        await guard.commit([Put("a", b"")])
    assert [key for key in world.left() if not key.startswith("x/")] == []


async def test_without_grace_it_is_taken_at_once_and_nobody_is_asked(world: World) -> None:
    client, other = world.process(), world.process()
    guard = await lock_of(client).acquire()
    await lock_of(other).revoke(guard.token)
    assert world.keys("lock/") == []
    with pytest.raises(LostError):
        await guard.commit([Put("a", b"")])


async def test_a_waiter_that_is_revoked_is_out_and_its_successor_moves_up(world: World) -> None:
    holder, waiter, last = world.process(), world.process(), world.process()
    guard = await lock_of(holder).acquire()
    task = waiting(waiter)
    await queued(holder, 2)
    behind = waiting(last)
    await queued(holder, 3)
    await lock_of(last).revoke((await lock_of(last).contenders())[1].token, grace=1)
    await guard.release()
    await (await asyncio.wait_for(behind, 1)).release()
    with pytest.raises(LostError, match="removed"):
        await asyncio.wait_for(task, 1)


async def test_one_of_several_locks_is_asked_for(world: World) -> None:
    client, other = world.process(), world.process()
    async with CoordinationService(client).multilock(["a", "b"]) as guard:
        assert not guard.revoked.is_set()
        revoking = asyncio.ensure_future(lock_of(other, "b").revoke(guard.tokens["b"], grace=5))
        await asyncio.wait_for(guard.revoked.wait(), 1)
    await asyncio.wait_for(revoking, 1)


async def test_only_who_is_meant_is_asked(world: World) -> None:
    """Several of one process, one watch for all of them."""
    client, other = world.process(), world.process()
    guards = [await lock_of(client, name).acquire() for name in ("a", "b")]
    guards += [await CoordinationService(client).semaphore("a", limit=2).acquire() for _ in range(2)]
    assert not any(guard.revoked.is_set() for guard in guards)
    revoking = asyncio.ensure_future(
        CoordinationService(other).semaphore("a", limit=2).revoke(guards[2].token, grace=9)
    )
    await asyncio.wait_for(guards[2].revoked.wait(), 1)
    assert [guard.revoked.is_set() for guard in guards] == [False, False, True, False]
    assert client.backend.watching["ns/revoke/"] == 1
    for guard in guards:
        await guard.release()
    await revoking
    await asyncio.sleep(1)
    assert client.backend.watching["ns/revoke/"] == 0


async def test_short_holds_do_not_listen_and_long_ones_do(world: World) -> None:
    client, other = world.process(), world.process()
    async with lock_of(client):
        await asyncio.sleep(WATCH_AFTER / 2)
    assert client.backend.watching["ns/revoke/"] == 0
    guard = await lock_of(client).acquire()
    await asyncio.sleep(WATCH_AFTER + 0.1)
    assert client.backend.watching["ns/revoke/"] == 1
    revoking = asyncio.ensure_future(lock_of(other).revoke(guard.token, grace=2))
    await asyncio.sleep(0.5)
    assert guard._requests.revoked.is_set()
    await guard.release()
    await revoking


async def test_a_request_of_before_is_still_heard(world: World) -> None:
    client, other = world.process(), world.process()
    guard = await lock_of(client).acquire()
    revoking = asyncio.ensure_future(lock_of(other).revoke(guard.token, grace=5))
    await asyncio.sleep(0.5)
    await asyncio.wait_for(guard.revoked.wait(), 1)
    await guard.release()
    await revoking


async def test_a_revoker_that_dies_takes_its_request_with_it_and_the_lock_stays(world: World) -> None:
    client, other = world.process(), world.process()
    async with lock_of(client) as guard:
        revoking = asyncio.ensure_future(lock_of(other).revoke(guard.token, grace=3))
        await asyncio.sleep(1)
        world.kill(other)
        world.store.faults.end_lease(await lease_of(other))
        await asyncio.sleep(5)
        assert world.keys("revoke/") == []
        guard.check()
        with pytest.raises((UnavailableError, LostError, IndeterminateError)):
            await revoking
    other.backend.faults.clear()


async def test_a_revoker_that_is_cancelled_takes_its_request_back(world: World) -> None:
    client, other = world.process(), world.process()
    async with lock_of(client) as guard:
        revoking = asyncio.ensure_future(lock_of(other).revoke(guard.token, grace=30))
        await asyncio.sleep(1)
        assert len(world.keys("revoke/")) == 1
        revoking.cancel()
        await asyncio.sleep(1)
        assert world.keys("revoke/") == []
        guard.check()


async def test_two_revokers_do_not_disturb_each_other(world: World) -> None:
    client, one, two = world.process(), world.process(), world.process()
    guard = await lock_of(client).acquire()
    long, short = (
        asyncio.ensure_future(lock_of(by).revoke(guard.token, grace=grace)) for by, grace in ((one, 60), (two, 2))
    )
    await asyncio.wait_for(asyncio.gather(long, short), 3)
    with pytest.raises(LostError):
        await guard.release()


async def test_a_token_that_is_not_there_is_gone_already(world: World) -> None:
    client, other = world.process(), world.process()
    async with lock_of(client) as guard:
        began = world.clock.now()
        await lock_of(other).revoke(guard.token + 1, grace=10)
        await lock_of(other).revoke(1, grace=10)
        assert world.clock.now() == began
        guard.check()


async def test_the_next_holder_is_spared(world: World) -> None:
    """The removal names the entry by its creation, not by the lock."""
    client, other, next_one = world.process(), world.process(), world.process()
    guard = await lock_of(client).acquire()
    task = waiting(next_one)
    await queued(client, 2)
    other.backend.faults.delay("commit", request=2, times=1, key="lock/job")
    revoking = asyncio.ensure_future(lock_of(other).revoke(guard.token))
    await asyncio.sleep(1)
    await guard.release()
    current = await task
    await revoking
    await asyncio.sleep(3)
    await current.commit([Put("a", b"")])
    await current.release()


@pytest.mark.parametrize("lost", ["drop", "drop_answer", "late"])
async def test_a_removal_whose_answer_was_lost_is_tried_until_it_is_known(world: World, lost: str) -> None:
    client, other = world.process(), world.process()
    guard = await lock_of(client).acquire()
    await lease_of(other)
    options = {"after": 0.5} if lost == "late" else {}
    getattr(other.backend.faults, lost)("commit", times=2, key="lock/job", **options)
    await lock_of(other).revoke(guard.token)
    assert world.keys("lock/") == []
    with pytest.raises(LostError):
        await guard.release()


async def test_an_entry_of_another_tool_is_taken_away_after_the_grace(world: World) -> None:
    client = world.process()
    for key in ("694d8c3e0a2b5f11", "no name é"):
        world.store.commit([Put(f"ns/lock/job/{key}", b"")], {})
        (foreign,) = await lock_of(client).contenders()
        began = world.clock.now()
        await lock_of(client).revoke(foreign.token, grace=2)
        assert world.clock.now() - began == pytest.approx(2, abs=0.1)
        assert world.keys("lock/") == []


async def test_a_request_says_who_asks_and_what_others_write_there_still_asks(world: World) -> None:
    client, other = world.process(), world.process("operator")
    guard = await lock_of(client).acquire()
    revoking = asyncio.ensure_future(lock_of(other).revoke(guard.token, grace=4))
    await asyncio.sleep(0.5)
    (key,) = world.keys("revoke/")
    record = json.loads(world.store.get(f"ns/{key}").value)
    assert (record["owner"], record["grace"]) == ("operator", 4)
    assert key.startswith("revoke/" + guard._entry.key.removeprefix("ns/"))
    await guard.release()
    await revoking
    guard = await lock_of(client).acquire()
    world.store.commit([Put(f"ns/revoke/{guard._entry.key.removeprefix('ns/')}/me", b"\xff")], {})
    assert await asyncio.wait_for(guard.revoked.wait(), 1) == "somebody wants it back"
    await guard.release()
    world.store.commit([], {})
    await other.delete(world.keys("revoke/")[0])


@pytest.mark.parametrize("grace", [-1, inf, nan, "5", None, True])
async def test_a_grace_that_is_none_is_refused(world: World, grace: object) -> None:
    client = world.process()
    with pytest.raises(ConfigError, match="seconds"):
        await lock_of(client).revoke(5, grace=grace)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="whole number"):
        await lock_of(client).revoke("5")  # type: ignore[arg-type]
    assert not client.backend.calls
