"""The same discovery on every store: few tests, for what only a real server can get wrong."""

from __future__ import annotations

import asyncio

import pytest
from extensions import Diary, info, observer, registered
from worlds import connect, process_of, until

from osdisco.backend import Lease, Put
from osdisco.discovery import DiscoveryService, EndpointInfo, ExtensionStatus

ALL = pytest.mark.osdisco("memory", "etcd", "etcd+http", "consul")
REAL = pytest.mark.osdisco("etcd", "etcd+http", "consul")

HEALTHY = ExtensionStatus.HEALTHY


@ALL
async def test_the_life_of_an_extension_as_another_sees_it(osdisco_url: str) -> None:
    me = info(
        capabilities=["geo.search"],
        endpoints={"rest": EndpointInfo("http", 9700)},
        metadata={"zone": "é"},
    )
    async with connect(osdisco_url) as client, connect(osdisco_url) as other:
        seer = await observer(other)
        diary = Diary(seer)
        async with DiscoveryService(client, me) as discovery:
            await discovery.wait_registered(timeout=10)
            await until(lambda: dict(seer.extensions) == {"geo": me})
            await discovery.set_status(HEALTHY)
            await until(lambda: seer.extensions["geo"].status is HEALTHY)
            assert [extension.status for extension in await seer.discover_extensions()] == [HEALTHY]
        await until(lambda: not seer.extensions)
        assert await seer.discover_extensions() == []
        await until(lambda: diary.lines[-1].startswith("-geo"))
        assert diary.lines[:2] == ["+geo starting", "geo starting>healthy"]
        assert (await client.scan("ext/")).items == {}
        await seer.stop()


@ALL
async def test_it_comes_back_after_its_lease_ended_and_after_its_record_was_deleted(osdisco_url: str) -> None:
    async with (
        connect(osdisco_url) as client,
        connect(osdisco_url) as operator,
        DiscoveryService(client, info()) as discovery,
    ):
        await discovery.wait_registered(10)
        await discovery.set_status(HEALTHY)
        await discovery.wait_registered(10)
        session = await client.shared_session()
        await operator.backend.revoke(Lease(session.id, session.ttl), timeout=5)
        await until(lambda: session.lost.is_set())
        await discovery.wait_registered(10)
        (key,) = (await operator.scan("ext/")).items
        await operator.delete(key)
        async with asyncio.timeout(5):
            while list((await operator.scan("ext/")).items) in ([], [key]):
                await asyncio.sleep(0.02)
        assert [extension.status for extension in await discovery.discover_extensions()] == [HEALTHY]


@ALL
async def test_the_later_process_of_one_id_counts_at_once_and_the_earlier_withdraws(osdisco_url: str) -> None:
    async with connect(osdisco_url) as old, connect(osdisco_url) as new, connect(osdisco_url) as other:
        seer = await observer(other)
        first = await registered(old, port=1)
        await until(lambda: seer.extensions)
        second = await registered(new, port=2)
        await until(lambda: seer.extensions["geo"].port == 2)
        await until(lambda: first.superseded)
        for service in (first, second, seer):
            await service.stop()
        assert (await other.scan("ext/")).items == {}


@ALL
async def test_hostile_ids_and_bad_records(osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as other:
        seer = await observer(other)
        ids = ["..", "a//b", "a b", "é", "x:y", "%2F", "geo/../../agent/leave", "?x#y"]
        services = [await registered(client, id_) for id_ in ids]
        await other.commit([Put("ext/geo/bad", b"{")])
        await until(lambda: sorted(seer.extensions) == sorted(ids) and seer.extensions.skipped)
        assert sorted(extension.id for extension in await seer.discover_extensions()) == sorted(ids)
        for service in services:
            await service.stop()
        await other.delete("ext/geo/bad")
        await until(lambda: not seer.extensions and not seer.extensions.skipped)
        await seer.stop()


REGISTER = """
import asyncio, sys, osdisco
from osdisco.discovery import DiscoveryService, ExtensionInfo

async def main():
    me = ExtensionInfo(id="geo", name="geo", version="1.0.0", host="10.0.0.7", port=int(sys.argv[2]))
    async with osdisco.connect(sys.argv[1]) as client, DiscoveryService(client, me) as discovery:
        await discovery.wait_registered(20)
        print("registered", flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


@REAL
async def test_a_killed_process_disappears_after_its_ttl_and_a_restarted_one_counts_at_once(osdisco_url: str) -> None:
    ttl = 3
    url = f"{osdisco_url}{'&' if '?' in osdisco_url else '?'}ttl={ttl}s"
    async with connect(osdisco_url) as client:
        seer = await observer(client)
        now = client.runtime.clock.now
        async with process_of(REGISTER, url, "1") as killed:
            await until(lambda: seer.extensions)
            killed.kill()
        async with process_of(REGISTER, url, "2") as killed:
            await until(lambda: seer.extensions["geo"].port == 2)
            diary = Diary(seer)
            at = now()
            killed.kill()
            await until(lambda: not seer.extensions, ttl * client.limits.expiry_factor + 3)
            assert now() - at > ttl / 2
            await until(lambda: (diary.lines[0], diary.lines[-1]) == ("+geo starting", "-geo starting"))
        await seer.stop()
