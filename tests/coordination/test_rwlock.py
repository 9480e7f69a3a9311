"""The read/write lock by its rules: who shares, who waits for whom, what it costs. Virtual time."""

from __future__ import annotations

import asyncio

import pytest
from worlds import World

from osdisco.backend import Delete, Put
from osdisco.client import Client
from osdisco.coordination import CoordinationService, DistributedReadWriteLock, LockGuard
from osdisco.errors import InvalidNameError, LostError, RecordError


def rw_of(client: Client, name: str = "job") -> DistributedReadWriteLock:
    return CoordinationService(client).rwlock(name)


def reading(client: Client) -> asyncio.Task[LockGuard]:
    return asyncio.ensure_future(_acquired(client, shared=True))


def writing(client: Client) -> asyncio.Task[LockGuard]:
    return asyncio.ensure_future(_acquired(client, shared=False))


async def _acquired(client: Client, *, shared: bool) -> LockGuard:
    lock = rw_of(client)
    return await (lock.read() if shared else lock.write()).acquire()


async def in_order(world: World, *begun: asyncio.Task[LockGuard]) -> None:
    """Return once so many more stand in the queue, to be called after each that begins."""
    while len(world.keys("rw/")) < len(begun):
        await asyncio.sleep(0.05)


async def test_readers_hold_together_and_a_writer_alone(world: World) -> None:
    a, b, c = world.process(), world.process(), world.process()
    first, second = await rw_of(a).read().acquire(), await rw_of(b).read().acquire()
    assert await rw_of(c).write().try_acquire() is None
    await first.release()
    assert await rw_of(c).write().try_acquire() is None
    await second.release()
    async with rw_of(c).write():
        assert await rw_of(a).read().try_acquire() is None
        assert await rw_of(b).write().try_acquire() is None


async def test_a_waiting_writer_goes_before_the_readers_that_come_after_it(world: World) -> None:
    """However many readers flood in."""
    holder, writer = world.process(), world.process()
    guard = await rw_of(holder).read().acquire()
    wanted = writing(writer)
    await in_order(world, *[wanted] * 2)
    flood = [reading(world.process()) for _ in range(20)]
    await asyncio.sleep(5)
    assert not wanted.done()
    assert not any(task.done() for task in flood)
    await guard.release()
    written = await asyncio.wait_for(wanted, 1)
    await asyncio.sleep(1)
    assert not any(task.done() for task in flood)
    await written.release()
    read = await asyncio.wait_for(asyncio.gather(*flood), 1)
    assert all(guard.token > written.token for guard in read)
    for one in read:
        await one.release()


async def test_a_later_writer_is_in_nobodys_way(world: World) -> None:
    """What kazoo's deadlocked on: a reader waits only for what came before it."""
    a, b, c = world.process(), world.process(), world.process()
    guard = await rw_of(a).write().acquire()
    reader = reading(b)
    await in_order(world, *[reader] * 2)
    writer = writing(c)
    await in_order(world, *[writer] * 3)
    await guard.release()
    await (await asyncio.wait_for(reader, 1)).release()
    await (await asyncio.wait_for(writer, 1)).release()


async def test_a_writer_that_gives_up_lets_the_readers_behind_it_share_with_those_before_it(world: World) -> None:
    a, b, c = world.process(), world.process(), world.process()
    async with rw_of(a).read():
        writer = writing(b)
        await in_order(world, *[writer] * 2)
        reader = reading(c)
        await in_order(world, *[reader] * 3)
        await asyncio.sleep(1)
        assert not reader.done()
        writer.cancel()
        await (await asyncio.wait_for(reader, 1)).release()


async def test_readers_and_writers_of_one_process_exclude_each_other_too(world: World) -> None:
    client = world.process()
    inside: list[str] = []

    async def use(kind: str) -> None:
        lock = getattr(rw_of(client), kind)()
        async with lock:
            assert "write" not in inside
            assert kind == "read" or not inside
            inside.append(kind)
            await asyncio.sleep(0.3)
            inside.remove(kind)

    await asyncio.gather(*(use(kind) for kind in ["read", "read", "write", "read", "write", "write", "read"] * 3))


async def test_readers_of_one_process_wait_for_its_writer_and_then_hold_together(world: World) -> None:
    client = world.process()
    writer = await rw_of(client).write().acquire()
    tasks = [reading(client) for _ in range(3)]
    await asyncio.sleep(1)
    assert not [task for task in tasks if task.done()]
    await writer.release()
    guards = await asyncio.wait_for(asyncio.gather(*tasks), 1)
    for guard in guards:
        await guard.release()


async def test_waiters_of_one_process_never_have_more_than_two_watches_of_a_name(world: World) -> None:
    """However readers and writers of several processes are mixed."""
    holder, crowd, other = world.process(), world.process(), world.process()
    guard = await rw_of(holder).write().acquire()
    tasks: list[asyncio.Task[LockGuard]] = []
    for _ in range(10):
        for begin, client in ((writing, other), (reading, crowd)):
            tasks.append(begin(client))
            await in_order(world, guard, *tasks)
    await asyncio.sleep(2)
    for client in (crowd, other):
        assert len([key for key in +client.backend.watching if "/rw/" in key]) <= 2
    await guard.release()
    for task in tasks:
        await (await asyncio.wait_for(task, 5)).release()


async def test_the_release_of_a_reader_wakes_no_other_reader(world: World) -> None:
    holder, writer = world.process(), world.process()
    guards = [await rw_of(holder).read().acquire(), await rw_of(world.process()).read().acquire()]
    wanted = writing(writer)
    await in_order(world, *[wanted] * 3)
    readers = [world.process() for _ in range(10)]
    tasks = [reading(client) for client in readers]
    await in_order(world, *[wanted] * 13)
    await asyncio.sleep(1)
    for client in readers:
        client.backend.calls.clear()
    for guard in guards:
        await guard.release()
    written = await asyncio.wait_for(wanted, 1)
    assert sum(client.backend.calls["frames"] for client in readers) == 0
    await written.release()
    for guard in await asyncio.gather(*tasks):
        await guard.release()
    assert sum(client.backend.calls["scan"] for client in readers) == 10


async def test_the_queue_is_shown_with_who_shares_and_who_holds(world: World) -> None:
    a, b = world.process("a"), world.process("b")
    reader = await rw_of(a).read(info={"n": 1}).acquire()
    writer = writing(b)
    await in_order(world, *[writer] * 2)
    late = reading(a)
    await in_order(world, *[writer] * 3)
    shown = [(one.owner, one.shared, one.holds) for one in await rw_of(b).read().contenders()]
    assert shown == [("a", True, True), ("b", False, False), ("a", True, False)]
    assert (await rw_of(b).write().contenders())[0].info == {"n": 1}
    await reader.release()
    await (await writer).release()
    await (await late).release()


@pytest.mark.parametrize("key", ["694d8c3e0a2b5f11", "x-1", "r", "é", "deeper/r/still"])
async def test_what_is_not_osdiscos_excludes_as_a_writer_does(world: World, key: str) -> None:
    client = world.process()
    world.store.commit([Put(f"ns/rw/job/{key}", b"")], {})
    reader, writer = reading(client), writing(client)
    await asyncio.sleep(10)
    assert [reader.done(), writer.done()] == [False, False]
    world.store.commit([Delete(f"ns/rw/job/{key}")], {})
    await (await asyncio.wait_for(reader, 1)).release()
    await (await asyncio.wait_for(writer, 1)).release()


async def test_an_old_writer_that_was_paused_cannot_write(world: World) -> None:
    old, new = world.process(), world.process()
    guard = await rw_of(old).write().acquire()
    old.backend.faults.false_renew()
    old.backend.faults.outage("watch")
    async with rw_of(new).read() as reader:
        assert reader.token > guard.token
        guard.check()  # as far as it can know
        with pytest.raises(LostError):
            await guard.commit([Put("jobs/1", b"old")])


async def test_bad_names_and_info_are_refused_before_anything_is_sent(world: World) -> None:
    client = world.process()
    with pytest.raises(InvalidNameError):
        rw_of(client, "")
    with pytest.raises(RecordError):
        rw_of(client).read(info=[1])  # type: ignore[arg-type]
    assert not client.backend.calls
