"""Cancellation of locks of every kind at every await, once and again, and with lost answers: nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count

import pytest
from locks import KINDS, rival
from worlds import Suspensions, World, lease_of

from osdisco.client import Client
from osdisco.coordination import CoordinationService, LockGuard
from osdisco.coordination._acquire import Acquirable
from osdisco.errors import OsdiscoError
from osdisco.testing import run

Lock = Acquirable[LockGuard]
Operation = Callable[[Lock, Lock, World], Awaitable[LockGuard | None]]
"""Takes the lock, the same of another process, and the world of both."""


async def acquire(lock: Lock, other: Lock, world: World) -> LockGuard | None:
    return await lock.acquire()


async def acquire_in_time(lock: Lock, other: Lock, world: World) -> LockGuard | None:
    return await lock.acquire(timeout=60)


async def try_acquire(lock: Lock, other: Lock, world: World) -> LockGuard | None:
    return await lock.try_acquire()


async def wait(lock: Lock, other: Lock, world: World) -> LockGuard | None:
    """Behind another that goes away meanwhile."""
    await other.acquire()
    asyncio.get_running_loop().call_later(1, world.kill, world.clients[-1])
    asyncio.get_running_loop().call_later(1, world.store.faults.end_lease, await lease_of(world.clients[-1]))
    return await lock.acquire()


async def wait_locally(lock: Lock, other: Lock, world: World) -> LockGuard | None:
    """Behind another of the same process, unless they are readers."""
    holder = await lock.acquire()
    for entry in holder._entries:
        asyncio.get_running_loop().call_later(1, entry.abandon)
    return await lock.acquire()


async def try_in_vain(lock: Lock, other: Lock, world: World) -> LockGuard | None:
    async with other:
        return await lock.try_acquire()


async def hold(lock: Lock, other: Lock, world: World) -> LockGuard | None:
    async with lock:
        await asyncio.sleep(2)  # long enough for the watch of the own entry


async def release(lock: Lock, other: Lock, world: World) -> LockGuard | None:
    guard = await lock.acquire()
    try:
        await asyncio.sleep(0.1)
    finally:
        await guard.release()


OPERATIONS = [acquire, acquire_in_time, try_acquire, wait, wait_locally, try_in_vain, hold, release]


def fine(client: Client) -> None:
    pass


def answer_lost(client: Client) -> None:
    client.backend.faults.drop_answer("commit", times=1, key="/job/")


def request_lost(client: Client) -> None:
    client.backend.faults.drop("commit", times=1, key="/job/")


def comes_late(client: Client) -> None:
    client.backend.faults.late("commit", after=0.2, times=1, key="/job/")


def all_comes_late(client: Client) -> None:
    client.backend.faults.late("commit", after=0.7, times=3, key="/job/")


FAULTS = [fine, answer_lost, request_lost, comes_late, all_comes_late]


async def cancelled(kind: str, operation: Operation, fault: Callable[[Client], None], first: int, more: int) -> bool:
    """Return whether there was an await to cancel at. Whatever happened, the next one gets the lock."""
    world = World()
    client, next_one, other = world.process(), world.process(), world.process()
    for one in world.clients:
        await one.shared_session()
    fault(client)
    suspensions = Suspensions(first, more)
    lock = KINDS[kind](CoordinationService(client))
    task = asyncio.ensure_future(suspensions.of(operation(lock, rival(kind)(CoordinationService(other)), world)))
    await asyncio.wait([task])
    if not task.cancelled() and (guard := task.result()):
        await guard.release()
    began = world.clock.now()
    async with rival(kind)(CoordinationService(next_one)).acquire(timeout=5):
        held = 1.0 if operation in (wait, wait_locally) else 0.0
        assert world.clock.now() - began < held + (0.01 if fault is fine else 3)
    client.backend.faults.clear()
    await asyncio.sleep(3)  # what is late arrives
    assert [key for key in world.left() if not key.startswith("x/")] == []
    await world.aclose()
    assert world.left() == []
    return task.cancelled() or suspensions.count >= first


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_cancelled_operation_leaves_nothing_and_blocks_nobody(
    kind: str, operation: Operation, fault: Callable[[Client], None]
) -> None:
    for more in (0, 1, 3):
        for first in count(1):
            try:
                reached = run(cancelled(kind, operation, fault, first, more))
            except BaseException as exc:
                exc.add_note(f"cancelled at await {first} and {more} times after that")
                raise
            if not reached:
                break
        assert first > 1


@pytest.mark.parametrize("seed", range(20))
def test_cancelled_exactly_when_the_lock_comes_free(seed: int) -> None:
    async def main() -> None:
        world = World(seed=seed)
        holder, waiter, next_one = world.process(), world.process(), world.process()
        guard = await CoordinationService(holder).lock("job").acquire()
        task = asyncio.ensure_future(Suspensions().of(CoordinationService(waiter).lock("job").acquire()))
        await asyncio.sleep(0.5)
        await guard.release()
        for _ in range(seed // 2):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            await task.result().release()
        async with CoordinationService(next_one).lock("job").acquire(timeout=0.1):
            pass
        await world.aclose()
        assert world.keys() == []

    run(main(), seed=seed)


def test_a_timeout_at_any_moment_frees_the_place() -> None:
    """asyncio.timeout and the lock's own, with a store that takes its time."""

    async def main(timeout: float) -> None:
        world = World()
        holder, waiter = world.process(), world.process()
        waiter.backend.faults.delay(request=0.3, answer=0.3)
        async with CoordinationService(holder).lock("job"):
            await asyncio.sleep(0)
            try:
                async with asyncio.timeout(timeout):
                    await CoordinationService(waiter).lock("job").acquire()
            except TimeoutError:
                pass
            with pytest.raises(OsdiscoError):
                await CoordinationService(waiter).lock("job").acquire(timeout=timeout)
        waiter.backend.faults.clear()
        await asyncio.sleep(5)
        assert world.keys("lock/") == []
        await world.aclose()

    for tenths in range(1, 40):
        run(main(tenths / 10 + 0.05))
