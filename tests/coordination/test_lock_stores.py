"""The same mutex on every store: few tests, for what only a real server can get wrong."""

from __future__ import annotations

import asyncio
from base64 import b64encode

import pytest
from worlds import connect, process_of

from osdisco.backend import ABSENT, Lease, Put
from osdisco.client import Client
from osdisco.coordination import Contender, CoordinationService, LockGuard
from osdisco.errors import ConflictError, LostError, TimedOutError
from osdisco.testing._stores import in_namespace
from osdisco.testing.servers import EtcdServer

ALL = pytest.mark.osdisco("memory", "etcd", "etcd+http", "consul")
REAL = pytest.mark.osdisco("etcd", "etcd+http", "consul")

HOSTILE = ["..", "a//b", "a b", "é", "x:y", "a,b", "%2F", "job/../../agent/leave", "a\nb", "=2E", "?x#y"]


@ALL
async def test_five_clients_take_turns_and_tokens_rise(osdisco_url: str) -> None:
    held: list[int] = []

    async def work(client: Client) -> None:
        lock = CoordinationService(client).lock("job")
        for _ in range(4):
            async with lock.acquire(timeout=60) as guard:
                before = await client.get("counter")
                number = int(before.value) + 1 if before else 1
                await guard.commit(
                    [Put("counter", b"%d" % number)], {"counter": before.unchanged if before else ABSENT}
                )
                held.append(guard.token)

    clients = [connect(osdisco_url) for _ in range(5)]
    await asyncio.gather(*(work(client) for client in clients))
    counter = await clients[0].get("counter")
    left = (await clients[0].scan("lock/")).items
    for client in clients:
        await client.aclose()
    assert held == sorted(set(held))
    assert (len(held), counter and counter.value, left) == (20, b"20", {})


@ALL
async def test_a_revoked_holder_is_told_and_the_next_one_gets_the_lock(osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as other:
        guard = await CoordinationService(client).lock("job").acquire()
        waiting = asyncio.ensure_future(_acquire(other, "job"))
        await _queued(other, 2)
        session = await client.shared_session()
        await other.backend.revoke(Lease(session.id, session.ttl), timeout=5)
        next_guard = await asyncio.wait_for(waiting, 2)
        await asyncio.wait_for(guard.lost.wait(), 2)
        assert next_guard.token > guard.token
        with pytest.raises(LostError):
            await guard.commit([Put("written", b"")])
        await next_guard.commit([Put("written", b"")])
        await next_guard.release()


@ALL
async def test_a_removed_entry_is_a_lost_lock(osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as operator:
        guard = await CoordinationService(client).lock("job").acquire()
        (key,) = (await operator.scan("lock/")).items
        await operator.delete(key)
        with pytest.raises(LostError):
            await guard.commit([Put("written", b"")])
        guard = await CoordinationService(client).lock("job").acquire()
        (key,) = (await operator.scan("lock/")).items
        await operator.delete(key)
        await asyncio.wait_for(guard.lost.wait(), 5)


@ALL
async def test_waiters_give_up_and_leave_nothing(osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as other:
        async with CoordinationService(client).lock("job") as guard:
            lock = CoordinationService(other).lock("job")
            with pytest.raises(TimedOutError):
                await lock.acquire(timeout=0.5)
            assert await lock.try_acquire() is None
            cancelled = asyncio.ensure_future(_acquire(other, "job"))
            await _queued(other, 2)
            cancelled.cancel()
            await asyncio.wait([cancelled])
            await _queued(other, 1)
            with pytest.raises(ConflictError):
                await guard.commit([Put("written", b"")], {"written": (await _written(client)).unchanged})
        assert (await other.scan("lock/")).items == {}


async def _written(client: Client) -> object:
    """Return an item that is out of date."""
    await client.put("written", b"1")
    item = await client.get("written")
    await client.put("written", b"2")
    return item


@ALL
async def test_hostile_names_exclude_only_themselves(osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as other:
        guards = [await CoordinationService(client).lock(name).acquire(timeout=10) for name in HOSTILE]
        assert len((await client.scan("lock/")).items) == len(HOSTILE)
        for name, guard in zip(HOSTILE, guards, strict=True):
            assert [one.token for one in await CoordinationService(other).lock(name).contenders()] == [guard.token]
            await guard.release()
        assert (await client.scan("lock/")).items == {}


async def _acquire(client: Client, name: str) -> LockGuard:
    return await CoordinationService(client).lock(name).acquire()


async def _queued(client: Client, count: int) -> None:
    async with asyncio.timeout(10):
        while len(await CoordinationService(client).lock("job").contenders()) != count:
            await asyncio.sleep(0.02)


HOLD = """
import asyncio, sys, osdisco
from osdisco.coordination import CoordinationService

async def main():
    async with osdisco.connect(sys.argv[1], name="victim") as client:
        guard = await CoordinationService(client).lock("job").acquire()
        print(guard.token, flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


@REAL
async def test_the_lock_of_a_killed_process_goes_to_the_next_after_its_ttl(osdisco_url: str) -> None:
    ttl = 3
    async with connect(osdisco_url) as client:
        url = f"{osdisco_url}{'&' if '?' in osdisco_url else '?'}ttl={ttl}s"
        async with process_of(HOLD, url) as victim:
            (holder,) = await CoordinationService(client).lock("job").contenders()
            assert holder.owner == "victim"
            waiting = asyncio.ensure_future(_acquire(client, "job"))
            await asyncio.sleep(1.5)
            assert not waiting.done()
            killed = client.runtime.clock.now()
            victim.kill()
            guard = await asyncio.wait_for(waiting, ttl * client.limits.expiry_factor + 3)
            assert client.runtime.clock.now() - killed > ttl / 2
            assert guard.token > holder.token
            await guard.release()


@pytest.mark.osdisco("etcd")
async def test_etcds_own_lock_stands_in_the_same_queue(etcd_server: EtcdServer) -> None:
    """`etcdctl lock` is this call of the server: `concurrency.Mutex` of its Go client, in its own process."""
    async with connect(in_namespace(etcd_server.url, "with-etcdctl")) as client:
        lock = CoordinationService(client).lock("job")
        name = b64encode(f"{client._keys.root}lock/job".encode()).decode()
        lease = int(etcd_server.admin("POST", "/v3/lease/grant", {"TTL": "30"})["ID"])
        guard = await lock.acquire()
        theirs = asyncio.ensure_future(
            asyncio.to_thread(etcd_server.admin, "POST", "/v3/lock/lock", {"name": name, "lease": lease})
        )
        await _queued(client, 2)
        assert (await lock.contenders())[1] == Contender(f"{lease:x}", {}, (await lock.contenders())[1].token)
        ours = asyncio.ensure_future(_acquire(client, "job"))
        await _queued(client, 3)
        await asyncio.sleep(0.2)
        assert not theirs.done()
        await guard.release()
        key = (await asyncio.wait_for(theirs, 5))["key"]
        await asyncio.sleep(0.2)
        assert not ours.done()
        await asyncio.to_thread(etcd_server.admin, "POST", "/v3/lock/unlock", {"key": key})
        await (await asyncio.wait_for(ours, 5)).release()
