"""The same registry on every store: few tests, for what only a real server can get wrong."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from services import Diary, definition, found, registered, viewed
from worlds import connect, until

from osdisco.backend import Lease, Put
from osdisco.client import Client
from osdisco.discovery import ExtensionStatus
from osdisco.registry import ServiceRegistry

ALL = pytest.mark.osdisco("memory", "etcd", "etcd+http", "consul")

DEGRADED = ExtensionStatus.DEGRADED


async def end_lease(client: Client, operator: Client) -> None:
    """Let an operator take a client's lease away, and all that hangs on it, in one moment."""
    session = await client.shared_session()
    await operator.backend.revoke(Lease(session.id, session.ttl), timeout=5)


@ALL
async def test_the_life_of_an_instance_as_another_process_sees_it(osdisco_url: str) -> None:
    changes = {"zone": "é", "metadata": {"a": "ü"}, "health_check_url": "http://geo/"}
    async with connect(osdisco_url) as client, connect(osdisco_url) as other:
        async with ServiceRegistry(other).view("geo") as view:
            diary = Diary(view)
            async with ServiceRegistry(client).register(definition(**changes)) as registration:
                await until(lambda: view.endpoints == (found(**changes),))
                await registration.update(weight=0)
                await registration.set_status(DEGRADED)
                want = found(**changes, weight=0, status=DEGRADED)
                assert await ServiceRegistry(other).get_endpoints("geo") == [want]
                await until(lambda: view.endpoints == (want,))
            await until(lambda: not view)
            assert await ServiceRegistry(other).get_endpoints("geo") == []
            await until(lambda: diary.lines[-1].startswith("removed"))
            assert diary.lines[0] == "added 10.0.0.7:9700 healthy"
        assert (await client.scan("svc/")).items == {}


@ALL
async def test_what_loses_its_lease_is_shown_until_it_returns(osdisco_url: str) -> None:
    async with connect(osdisco_url) as operator, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(osdisco_url)) for _ in range(4)]
        registrations = [await registered(client, number) for number, client in enumerate(clients)]
        view = await viewed(operator, protection=1.0)
        diary = Diary(view)
        sessions = [await client.shared_session() for client in clients]
        await asyncio.gather(*(end_lease(client, operator) for client in clients))
        await until(lambda: all(session.lost.is_set() for session in sessions))
        for registration in registrations:
            await registration.wait_registered(10)
        revision = (await operator.scan("svc/geo/")).revision
        await until(lambda: not view.protecting and view._roster.revision >= revision, 20)
        assert sorted(view) == sorted(endpoint.extension_id for endpoint in map(found, range(4)))
        assert not [line for line in diary.lines if line.startswith(("removed", "changed"))]
        await view.aclose()


@ALL
async def test_of_those_that_vanish_at_once_and_stay_away_the_share_is_shown_for_the_window(osdisco_url: str) -> None:
    async with connect(osdisco_url) as operator, connect(osdisco_url) as client:
        registry = ServiceRegistry(operator)
        survivor = await registered(operator, 9)
        for number in range(5):
            await operator.commit([Put(f"svc/geo/{found(number).extension_id}/foreign", record(number))])
        view = await ServiceRegistry(client).view("geo", protection_window=4)
        assert len(view) == 6
        keys = [key for key in (await operator.scan("svc/geo/")).items if key.endswith("/foreign")]
        for key in keys:
            await operator.delete(key)
        await until(lambda: view.protecting and len(view) == 3)
        assert await registry.get_endpoints("geo") == [found(9)]
        await view.until(lambda endpoints: list(endpoints) == [found(9).extension_id], timeout=10)
        assert not view.protecting
        await survivor.deregister()
        await view.aclose()


def record(number: int) -> bytes:
    address = found(number).address
    return f'{{"endpoint":{{"extension_id":"{address}","address":"{address}","status":"healthy"}}}}'.encode()


@ALL
async def test_a_deleted_record_comes_back_and_of_two_processes_the_later_counts(osdisco_url: str) -> None:
    async with connect(osdisco_url) as old, connect(osdisco_url) as new, connect(osdisco_url) as other:
        view = await viewed(other)
        first = await registered(old, weight=1)
        (key,) = (await other.scan("svc/")).items
        await other.delete(key)
        async with asyncio.timeout(5):
            while list((await other.scan("svc/")).items) in ([], [key]):
                await asyncio.sleep(0.02)
        second = await registered(new, weight=2)
        await until(lambda: view.endpoints == (found(weight=2),))
        await until(lambda: first.superseded)
        for registration in (first, second):
            await registration.deregister()
        assert (await other.scan("svc/")).items == {}
        await view.aclose()


@ALL
async def test_hostile_names_and_bad_records(osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as other:
        names = ["..", "a//b", "a b", "é", "x:y", "%2F", "geo/../../agent/leave", "?x#y"]
        registry = ServiceRegistry(client)
        registrations = [await registry.register(definition(name=name, extension_id=name)) for name in names]
        for name in names:
            assert [endpoint.extension_id for endpoint in await ServiceRegistry(other).get_endpoints(name)] == [name]
        await other.commit([Put("svc/../../bad", b"{"), Put("svc/geo/bad", b"{"), Put("svc/geo/a/bad", b"{")])
        async with ServiceRegistry(other).view("geo") as view:
            await until(lambda: len(view.skipped) == 2)
            assert view.endpoints == ()
        for registration in registrations:
            await registration.deregister()
