"""The mutex by its rules: order, tokens, loss, and what it costs. Virtual time, store in memory."""

from __future__ import annotations

import asyncio
import json

import pytest
from locks import lock_of, queued, waiting
from worlds import World, lease_of

from osdisco._epoch import EPOCH_KEY
from osdisco.backend import ABSENT, Delete, Put
from osdisco.client import Client
from osdisco.coordination import Contender, CoordinationService, Fence
from osdisco.coordination._guard import WATCH_AFTER
from osdisco.coordination._handle import EPOCH_SHIFT
from osdisco.errors import (
    ClosedError,
    ConflictError,
    CoordinationError,
    InvalidNameError,
    LostError,
    RecordError,
    StaleTokenError,
    TimedOutError,
)
from osdisco_memory import CONSUL

# Order


async def test_waiters_get_the_lock_in_the_order_in_which_they_came(world: World) -> None:
    got = []

    async def turn(client: Client) -> None:
        async with lock_of(client) as guard:
            got.append((client.runtime.name, guard.token))
            await asyncio.sleep(0.5)

    tasks = []
    for number in range(5):
        tasks.append(asyncio.ensure_future(turn(world.process(f"p{number}"))))
        await queued(world.clients[0], number + 1)
    async with asyncio.timeout(60):
        await asyncio.gather(*tasks)
    assert [name for name, _ in got] == ["p0", "p1", "p2", "p3", "p4"]
    assert [token for _, token in got] == sorted({token for _, token in got})


async def test_a_waiter_that_gives_up_leaves_the_lock_to_the_next_and_not_to_its_successor(world: World) -> None:
    holder, quitter, successor = world.process(), world.process(), world.process()
    guard = await lock_of(holder).acquire()
    giving_up = waiting(quitter)
    await queued(holder, 2)
    last = waiting(successor)
    await queued(holder, 3)
    giving_up.cancel()
    await asyncio.sleep(5)
    assert giving_up.cancelled()
    assert not last.done()
    await guard.release()
    await (await last).release()


async def test_two_locks_on_one_session_exclude_each_other(world: World) -> None:
    client = world.process()
    guard = await lock_of(client).acquire()
    assert await lock_of(client).try_acquire() is None
    second = waiting(client)
    await asyncio.sleep(5)
    assert not second.done()
    await guard.release()
    assert (await second).token > guard.token
    await (await second).release()


async def test_locks_of_different_names_do_not_meet(world: World) -> None:
    client = world.process()
    async with lock_of(client, "a"), lock_of(client, "a/b"), lock_of(client, "b"):
        assert await lock_of(world.process(), "a").try_acquire() is None


HOSTILE = ["..", "//", "a b", "é", "x:y", "a,b", "%2F", "job/../../agent/leave", "=2E", "a\nb", "\0"]


async def test_hostile_names_are_only_text(world: World) -> None:
    client = world.process()
    guards = [await lock_of(client, name).acquire(timeout=1) for name in HOSTILE]
    assert len({guard.token for guard in guards}) == len(HOSTILE)
    assert len(world.keys("lock/")) == len(HOSTILE)
    for guard in guards:
        await guard.release()


@pytest.mark.parametrize("name", ["", "\ud800", "a" * 256, "é" * 120])
async def test_a_name_that_no_key_can_hold_is_refused_before_anything_is_sent(world: World, name: str) -> None:
    with pytest.raises(InvalidNameError):
        lock_of(world.process(), name)


# What it costs


async def test_an_uncontended_lock_costs_two_calls_and_no_watch(world: World) -> None:
    client = world.process()
    await client.shared_session()
    await asyncio.sleep(1)
    client.backend.calls.clear()
    guard = await lock_of(client).acquire()
    assert client.backend.calls == {"commit": 1}  # which also tells who is before us
    await guard.release()
    assert client.backend.calls == {"commit": 2}


async def test_a_lock_that_is_held_for_long_is_watched(world: World) -> None:
    client = world.process()
    async with lock_of(client):
        await asyncio.sleep(WATCH_AFTER + 0.1)
        assert [key for key in +client.backend.watching if "/lock/" in key] == ["ns/" + world.keys("lock/")[0]]
    await asyncio.sleep(1)
    assert not [key for key in +client.backend.watching if "/lock/" in key]


async def test_one_release_wakes_one_of_a_hundred_waiters(world: World) -> None:
    holder = world.process()
    guard = await lock_of(holder).acquire()
    others = [world.process() for _ in range(100)]
    tasks = []
    for number, client in enumerate(others):
        tasks.append(waiting(client))
        await queued(holder, number + 2)
    await asyncio.sleep(1)
    for client in others:
        client.backend.calls.clear()
    await guard.release()
    guards = [await tasks[0]]
    await asyncio.sleep(0.1)
    assert sum(client.backend.calls["scan"] for client in others) == 1
    assert sum(client.backend.calls["frames"] for client in others) == 1
    for task in tasks[1:]:
        await guards[-1].release()
        guards.append(await task)
    await guards[-1].release()
    assert sum(client.backend.calls["scan"] for client in others) == 100


async def test_of_a_process_only_the_first_waiter_looks_at_the_queue_however_many_stand_in_it(world: World) -> None:
    holder, crowd = world.process(), world.process()
    guard = await lock_of(holder).acquire()
    await crowd.shared_session()
    crowd.backend.calls.clear()
    tasks = [waiting(crowd) for _ in range(200)]
    await queued(holder, 201)
    assert (crowd.backend.calls["commit"], crowd.backend.calls["scan"]) == (200, 0)
    await guard.release()
    for task in tasks:
        await (await task).release()
    assert (crowd.backend.calls["commit"], crowd.backend.calls["scan"]) == (400, 1)  # each release shows the queue


async def test_a_crowd_of_one_process_is_not_shown_its_own_queue_again_and_again(world: World) -> None:
    """Else what comes in at once, or gives up one by one, costs the square of its number in bytes and memory."""
    crowd = world.process()
    await crowd.shared_session()
    tasks = [waiting(crowd) for _ in range(100)]
    await queued(crowd, 100)
    assert crowd.backend.shown == 1
    for task in tasks[1:]:
        task.cancel()
        await asyncio.sleep(0.1)
    await (await tasks[0]).release()
    assert crowd.backend.shown == 1


async def test_of_readers_that_go_only_the_last_shows_the_queue_and_only_to_who_waits(world: World) -> None:
    client = world.process()
    lock = CoordinationService(client).rwlock("job")
    readers = [await lock.read().acquire() for _ in range(10)]
    before = client.backend.shown
    for reader in readers[:5]:
        await reader.release()
    assert client.backend.shown == before
    writer = asyncio.ensure_future(lock.write().acquire())
    await asyncio.sleep(1)
    client.backend.calls.clear()
    for reader in reversed(readers[6:]):
        await reader.release()
    assert client.backend.shown == before
    await readers[5].release()
    await (await writer).release()
    assert client.backend.shown == before + 1
    assert (client.backend.calls["commit"], client.backend.calls["scan"]) == (6, 0)


async def test_a_process_has_one_watch_for_each_name_however_many_wait(world: World) -> None:
    holder, crowd = world.process(), world.process()
    guard = await lock_of(holder).acquire()
    tasks = [waiting(crowd) for _ in range(20)]
    await queued(holder, 21)
    await asyncio.sleep(WATCH_AFTER + 1)
    assert [key for key in +crowd.backend.watching if "/lock/" in key] == [guard._entry.key]
    crowd.backend.calls.clear()
    await guard.release()
    for _ in tasks:
        done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        await done.pop().result().release()
    assert crowd.backend.calls["scan"] == 1  # then each release shows the queue
    assert crowd.backend.calls["watch"] == 0  # each waits for the one before it without the store


async def test_waits_beyond_the_watches_that_a_store_takes_share_one(world: World) -> None:
    world.store.limits = CONSUL
    holder, crowd = world.process(), world.process()
    count = CONSUL.watches_max + 10
    guards = [await lock_of(holder, f"job{number}").acquire() for number in range(count)]
    tasks = [waiting(crowd, f"job{number}") for number in range(count)]
    await asyncio.sleep(5)
    watching = [key for key in +crowd.backend.watching if "/lock/" in key]
    assert len(watching) <= CONSUL.watches_max + 1
    assert "ns/lock/" in watching
    for guard, task in zip(guards, tasks, strict=True):
        await guard.release()
        await (await asyncio.wait_for(task, 5)).release()


# The guarded commit


async def test_a_commit_of_the_holder_applies(world: World) -> None:
    client = world.process()
    async with lock_of(client) as guard:
        revisions = await guard.commit([Put("jobs/1", b"a")], expect={"jobs/1": ABSENT})
        assert (await client.get("jobs/1")).revision == revisions["jobs/1"]


async def test_a_condition_of_the_holders_own_that_fails_is_a_conflict_and_no_loss(world: World) -> None:
    client = world.process()
    await client.put("jobs/1", b"a")
    async with lock_of(client) as guard:
        with pytest.raises(ConflictError):
            await guard.commit([Put("jobs/1", b"b")], expect={"jobs/1": ABSENT})
        assert not guard.lost.is_set()


async def test_an_old_holder_that_was_paused_cannot_write(world: World) -> None:
    """It does not know yet that its lease ran out; the store does."""
    old, new = world.process(), world.process()
    guard = await lock_of(old).acquire()
    old.backend.faults.false_renew()
    old.backend.faults.outage("watch")
    async with lock_of(new) as current:
        await current.commit([Put("jobs/1", b"new")])
        guard.check()  # as far as it can know
        with pytest.raises(LostError):
            await guard.commit([Put("jobs/1", b"old")])
    assert guard.lost.is_set()
    assert (await new.get("jobs/1")).value == b"new"


async def test_a_create_that_comes_late_after_a_removal_gives_the_old_holder_nothing(world: World) -> None:
    """Its key is there again, under its lease; a guard by HeldBy would let it write beside the new holder."""
    old, new = world.process(), world.process()
    old.backend.faults.late("commit", after=3, times=1, key="lock/job")
    guard = await lock_of(old).acquire()
    old.backend.faults.outage("watch")
    world.store.commit([Delete(guard._entry.key)], {})
    async with lock_of(new) as current:
        await asyncio.sleep(4)
        assert len(world.keys("lock/")) == 2
        guard.check()
        with pytest.raises(LostError):
            await guard.commit([Put("jobs/1", b"old")])
        current.check()
    await old.aclose()


async def test_a_late_write_of_an_old_term_does_not_apply_in_a_new_term_of_the_same_session(world: World) -> None:
    """What a guard by HeldBy would let through."""
    client = world.process()
    guard = await lock_of(client).acquire()
    client.backend.faults.late("commit", after=3, times=1)
    with pytest.raises(Exception, match="it may apply"):
        await guard.commit([Put("jobs/1", b"old")])
    await guard.release()
    async with lock_of(client) as current:
        await current.commit([Put("jobs/1", b"new")])
        await asyncio.sleep(5)
        assert (await client.get("jobs/1")).value == b"new"


# Tokens


async def test_tokens_rise_over_sessions_and_epochs(world: World) -> None:
    tokens = []
    for epoch in (None, b"1", b"2"):
        if epoch is not None:
            await world.clients[-1].put(EPOCH_KEY, epoch)
        client = world.process()
        async with client.session() as session:
            for _ in range(2):
                async with CoordinationService(client, session=session).lock("job") as guard:
                    tokens.append(guard.token)
                    assert (await lock_of(client).contenders())[0].token == guard.token
    assert tokens == sorted(set(tokens))
    assert [token >> EPOCH_SHIFT for token in tokens] == [0, 0, 1, 1, 2, 2]
    fence = Fence()
    for token in tokens:
        fence.admit(token)
    with pytest.raises(StaleTokenError):
        fence.admit(tokens[0])


# Guards and the queue as others see it


async def test_contenders_are_shown_in_order_with_what_they_tell_of_themselves(world: World) -> None:
    a, b = world.process("a"), world.process("b")
    guard = await CoordinationService(a).lock("job", info={"host": "h", "pid": 3}).acquire()
    await asyncio.sleep(1)
    task = waiting(b)
    await queued(a, 2)
    queue = await lock_of(b).contenders()
    assert queue[0] == Contender("a", {"host": "h", "pid": 3}, guard.token, queue[0].since, holds=True)
    assert [contender.owner for contender in queue] == ["a", "b"]
    assert queue[0].since < queue[1].since
    await guard.release()
    await (await task).release()


FOREIGN = {
    "694d8c3e0a2b5f11": b"",
    "not utf-8 \udcff": b"",
    "a=2fb": b"",
    "deeper/still": b"",
    "list": b"[1]",
    "number": b"7",
    "half": b'{"owner": ',
    "wrong": b'{"owner": 5}',
    "info": b'{"owner": "x", "info": [1]}',
    "nan": b'{"owner": "x", "since": NaN}',
    "deep": b"[" * 5000,
}


@pytest.mark.parametrize("key", FOREIGN)
async def test_a_foreign_entry_stands_in_the_queue_and_is_shown_by_its_key(world: World, key: str) -> None:
    """`etcdctl lock` writes `<prefix>/<lease in hex>` with an empty value; others may write anything."""
    client = world.process()
    world.store.commit([Put(f"ns/lock/job/{key}", FOREIGN[key])], {})
    contender = (await lock_of(client).contenders())[0]
    assert (contender.owner, contender.info) == (key.rpartition("/")[2], {})
    task = waiting(client)
    await asyncio.sleep(30)
    assert not task.done()
    assert client.backend.calls["scan"] == 1  # for the contenders; it waits by a watch, and does not spin
    world.store.commit([Delete(f"ns/lock/job/{key}")], {})
    await (await asyncio.wait_for(task, 1)).release()


async def test_what_an_entry_holds_is_json_with_the_owner(world: World) -> None:
    client = world.process("host:1")
    async with CoordinationService(client).lock("job", info={"a": None}):
        item = world.store.get("ns/" + world.keys("lock/")[0])
        record = json.loads(item.value)
        assert (record["owner"], record["info"], item.lease) == ("host:1", {"a": None}, await lease_of(client))


async def test_an_entry_tells_since_when_it_stands_whatever_else_it_holds(world: World) -> None:
    """The record is written around its time, which must not be taken for what somebody is called."""
    hostile = '","since":null,"'
    lock = CoordinationService(world.process(hostile)).lock("job", info={hostile: hostile, "since": None})
    for _ in range(2):
        await asyncio.sleep(10)
        async with lock:
            (shown,) = await lock.contenders()
        since, info = world.clock.wall(), {hostile: hostile, "since": None}
        assert (shown.owner, shown.since, shown.info) == (hostile, since, info)


async def test_info_that_is_no_json_is_refused(world: World) -> None:
    with pytest.raises(RecordError):
        await CoordinationService(world.process()).lock("job", info={"a": object()}).acquire()


async def test_a_timeout_leaves_nothing_in_the_queue(world: World) -> None:
    holder, waiter = world.process(), world.process()
    async with lock_of(holder):
        began = world.clock.now()
        with pytest.raises(TimedOutError):
            await lock_of(waiter).acquire(timeout=2)
        assert world.clock.now() - began == pytest.approx(2, abs=0.01)
        await asyncio.sleep(0.1)
        assert len(await lock_of(holder).contenders()) == 1


async def test_the_timeouts_of_a_lock_and_of_the_specifications_manager(world: World) -> None:
    holder, waiter = world.process(), world.process()
    coordination = CoordinationService(waiter)
    async with lock_of(holder):
        for acquiring in (
            coordination.lock("job", timeout=1).acquire(),
            coordination.locks.acquire("job", timeout=1),
            coordination.lock("job", timeout=1).__aenter__(),
        ):
            with pytest.raises(TimedOutError):
                await acquiring


async def test_try_acquire_does_not_wait_and_leaves_no_entry(world: World) -> None:
    holder, other = world.process(), world.process()
    guard = await lock_of(holder).try_acquire()
    assert guard is not None
    assert await lock_of(other).try_acquire() is None
    assert len(world.keys("lock/")) == 1
    await guard.release()


async def test_release_may_be_called_again_and_ends_the_guard(world: World) -> None:
    client = world.process()
    guard = await lock_of(client).acquire()
    await guard.release()
    await guard.release()
    with pytest.raises(LostError, match="released"):
        guard.check()
    with pytest.raises(LostError, match="released"):
        await guard.commit([Put("a", b"")])
    with pytest.raises(LostError):
        async with guard:
            pytest.fail("entered a lock that was given back")


async def test_release_inside_the_block_is_no_error(world: World) -> None:
    client = world.process()
    async with lock_of(client) as guard:
        await guard.release()


async def test_one_lock_object_serves_many_tasks_at_once(world: World) -> None:
    lock = lock_of(world.process())
    tokens: list[int] = []

    async def turn() -> None:
        async with lock as guard:
            tokens.append(guard.token)
            await asyncio.sleep(0.01)

    await asyncio.gather(*(turn() for _ in range(10)))
    assert tokens == sorted(set(tokens))
    assert not lock._entered


async def test_an_acquisition_is_entered_like_a_lock(world: World) -> None:
    client = world.process()
    async with lock_of(client).acquire(timeout=1) as guard:
        assert len(world.keys("lock/")) == 1
        guard.check()


async def test_a_closed_client_refuses_and_its_guards_are_lost(world: World) -> None:
    client = world.process()
    guard = await lock_of(client).acquire()
    await client.aclose()
    assert guard.lost.is_set()
    with pytest.raises(LostError):
        await guard.release()
    with pytest.raises(ClosedError):
        await lock_of(client).acquire()


async def test_a_block_may_be_left_by_another_task_when_the_one_that_entered_has_ended(world: World) -> None:
    """As fixtures of tests are."""
    lock = lock_of(world.process())
    await asyncio.ensure_future(lock.__aenter__())
    await asyncio.ensure_future(lock.__aexit__(None, None, None))
    assert world.keys("lock/") == []
    async with lock:
        with pytest.raises(CoordinationError):
            await asyncio.ensure_future(lock.__aexit__(None, None, None))
