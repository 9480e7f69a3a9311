"""The mutex and real processes on real stores: blocked, stopped, and killed wherever they stand."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from locks import lock_of, queued, waiting
from worlds import connect, process_of

from osdisco.backend import Put, Revision
from osdisco.client import Client
from osdisco.errors import ConflictError, LostError

REAL = pytest.mark.osdisco("etcd", "etcd+http", "consul")

TTL = 2
BUSY = 2.0
"""Seconds that a busy machine may take on top of the store's expiry."""


def expiry(client: Client) -> float:
    """Return how long a lease that nobody renews stands at most: seconds."""
    return TTL * client.limits.expiry_factor + 0.5


PRELUDE = """
import asyncio, random, sys, osdisco
from osdisco.backend import Put, Revision
from osdisco.coordination import CoordinationService
from osdisco.errors import ConflictError, LostError

def say(*words):
    print(*words, flush=True)
"""

ACQUIRE = (
    PRELUDE
    + """
async def main():
    async with osdisco.connect(sys.argv[1], name=sys.argv[2]) as client:
        await client.shared_session()
        say("ready")
        async with CoordinationService(client).lock("job") as guard:
            say(guard.token)
            await guard.commit([Put("written", b"by the next one")])
            await asyncio.sleep(3600)

asyncio.run(main())
"""
)


@REAL
async def test_who_blocked_its_event_loop_learns_of_its_loss_before_any_await(osdisco_url: str) -> None:
    """Case 33. Another process has the lock by then, and what is written late is refused."""
    async with connect(osdisco_url, ttl=f"{TTL}s") as client:
        guard = await lock_of(client).acquire()
        (entry,) = (await client.scan("lock/job/")).items
        async with process_of(ACQUIRE, url_of(osdisco_url), "next") as other:
            await queued(client, 2)
            time.sleep(expiry(client) + 1.5)
            with pytest.raises(LostError):
                guard.check()
            with pytest.raises(LostError):
                await guard.commit([Put("written", b"late")])
            assert await said(other) > guard.token
            with pytest.raises(LostError):
                await guard.release()
        with pytest.raises(ConflictError):
            await client.commit([Put("written", b"late")], expect={entry: Revision(guard.token)})
        item = await client.get("written")
        assert item is not None
        assert item.value == b"by the next one"


def url_of(url: str) -> str:
    """Return the URL for processes whose leases are short."""
    return f"{url}{'&' if '?' in url else '?'}ttl={TTL}s"


async def said(process: asyncio.subprocess.Process) -> int:
    """Return the token that a process says next."""
    assert process.stdout is not None
    async with asyncio.timeout(10):
        return int(await process.stdout.readline())


HOLD = (
    PRELUDE
    + """
async def main():
    async with osdisco.connect(sys.argv[1], name="victim") as client:
        try:
            async with CoordinationService(client).lock("job") as guard:
                (entry,) = (await client.scan("lock/job/")).items
                say(guard.token)
                while True:
                    await guard.commit([Put("written", b"by the first one")])
                    await asyncio.sleep(0.01)
        except LostError:
            say("lost")
        try:
            await client.commit([Put("late", b"")], expect={entry: Revision(guard.token)})
        except ConflictError:
            say("refused")

asyncio.run(main())
"""
)


@REAL
@pytest.mark.fault("F12")
async def test_who_was_stopped_for_longer_than_its_lease_writes_nothing_any_more(osdisco_url: str) -> None:
    """Case 45."""
    async with (
        connect(osdisco_url) as client,
        process_of(HOLD, url_of(osdisco_url)) as victim,
    ):
        next_one = waiting(client)
        await queued(client, 2)
        victim.send_signal(signal.SIGSTOP)
        guard = await asyncio.wait_for(next_one, expiry(client) + BUSY)
        before = await client.get("written")
        victim.send_signal(signal.SIGCONT)
        assert victim.stdout is not None
        async with asyncio.timeout(10):
            assert [await victim.stdout.readline() for _ in range(2)] == [b"lost\n", b"refused\n"]
        assert before == await client.get("written") is not None
        assert await client.get("late") is None
        guard.check()
        await guard.release()


@REAL
@pytest.mark.fault("F13")
async def test_a_waiter_that_is_killed_holds_up_its_successor_no_longer_than_its_lease(osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as last:
        guard = await lock_of(client).acquire()
        async with process_of(ACQUIRE, url_of(osdisco_url), "victim") as victim:
            await queued(client, 2)
            successor = waiting(last)
            await queued(client, 3)
            victim.kill()
            await guard.release()
            released = client.runtime.clock.now()
            next_guard = await asyncio.wait_for(successor, expiry(client) + BUSY)
            assert client.runtime.clock.now() - released > TTL / 4, "it overtook a place in the queue"
            await next_guard.release()


@REAL
async def test_the_place_of_a_killed_waiter_goes_while_others_wait(osdisco_url: str) -> None:
    """Case 40: its successor then waits for whom the dead one waited for, and misses nothing."""
    async with connect(osdisco_url) as client, connect(osdisco_url) as last:
        guard = await lock_of(client).acquire()
        async with process_of(ACQUIRE, url_of(osdisco_url), "victim") as victim:
            await queued(client, 2)
            successor = waiting(last)
            await queued(client, 3)
            victim.kill()
            async with asyncio.timeout(expiry(client) + BUSY):
                while len(await lock_of(client).contenders()) > 2:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.3)
            assert not successor.done()
            await guard.release()
            await (await asyncio.wait_for(successor, 1)).release()


NURSERY = (
    PRELUDE
    + """
import os, signal
from importlib import import_module

# one interpreter that has everything loaded, so that a process is there within milliseconds
import_module({"etcd": "osdisco_etcd._grpc", "etcd+http": "osdisco_etcd._gateway", "consul": "osdisco_consul._wire"}[
    sys.argv[1].partition(":")[0]])
signal.signal(signal.SIGCHLD, signal.SIG_IGN)

async def main():
    async with osdisco.connect(sys.argv[1], name=f"victim-{os.getpid()}") as client:
        lock = CoordinationService(client).lock("job")
        while True:
            async with lock.acquire() as guard:
                await guard.commit([Put("written", str(guard.token).encode())])
                await asyncio.sleep(random.uniform(0, 0.02))

say("ready")
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        os.close(0)
        asyncio.run(main())
    say(pid)
"""
)


@REAL
async def test_thirty_processes_killed_at_any_moment_leave_nothing_in_the_way(osdisco_url: str) -> None:
    """While they connect, open sessions, enqueue, wait, hold, write or release: a survivor always gets the lock."""
    chance = random.Random(seed := random.SystemRandom().randrange(10**6))
    print(f"seed {seed}")
    tokens = []
    async with connect(osdisco_url, ttl=f"{TTL}s") as survivor, nursery(url_of(osdisco_url)) as birth:
        await survivor.shared_session()
        for _ in range(3):
            victims = [await birth() for _ in range(10)]
            for pid in chance.sample(victims, len(victims)):
                await asyncio.sleep(chance.uniform(0, 0.2))
                os.kill(pid, signal.SIGKILL)
            async with lock_of(survivor).acquire(timeout=expiry(survivor) + BUSY) as guard:
                tokens.append(guard.token)
                written = await survivor.get("written")
                assert written is None or int(written.value) < guard.token
        async with asyncio.timeout(expiry(survivor) + BUSY):
            while left := [key for key in (await survivor.scan("")).items if key.startswith(("lock/", "x/"))]:
                await asyncio.sleep(0.1)
    assert not left
    assert tokens == sorted(set(tokens))
    assert written is not None, "none of them ever had the lock"


@asynccontextmanager
async def nursery(url: str) -> AsyncIterator[object]:
    """Yield a function that makes a process and returns its id; those that are left are killed at the end."""
    born: list[int] = []
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", NURSERY, url, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )

    async def birth() -> int:
        process.stdin.write(b"\n")  # type: ignore[union-attr]
        born.append(int(await process.stdout.readline()))  # type: ignore[union-attr]
        return born[-1]

    try:
        await process.stdout.readline()  # type: ignore[union-attr]
        yield birth
    finally:
        for pid in born:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        await process.communicate()
