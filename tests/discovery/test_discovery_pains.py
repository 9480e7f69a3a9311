"""The pains of other libraries' users with watches and registries, each cited: all of them must be impossible here.

"Broken by" says which change of the library brings the pain back, and makes its test fail.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from extensions import Diary, History, info, observer, registered
from worlds import World, connect, process_of, until

from osdisco.backend import WATCH_SILENCE, Delete, Lease, Put
from osdisco.client import Client
from osdisco.discovery import DiscoveryService, ExtensionEvent, ExtensionStatus
from osdisco.errors import DeniedError, TimedOutError
from osdisco.testing import ChaosProxy, Servers
from osdisco.testing._stores import EtcdServer, in_namespace

ALL = pytest.mark.osdisco("memory", "etcd", "etcd+http", "consul")
REAL = pytest.mark.osdisco("etcd", "etcd+http", "consul")

HEALTHY, DEGRADED = ExtensionStatus.HEALTHY, ExtensionStatus.DEGRADED

# Watches that lie


async def test_pain_16_a_silent_store_is_told_by_the_view(world: World) -> None:
    """etcd-io/etcd#8980, patroni/patroni#2180: the server is frozen, the watch silent, and the cache "ready".

    Broken by: a watch that waits for its next frame without end (`MemoryBackend.watch`), together with a view that is
    fresh as long as its watch has not failed (`Follower.stale`). That the endpoint is changed, too, is shown on
    clusters (`tests/cluster/test_discovery_storms.py`).
    """
    client = world.process()
    seer = await observer(client)
    await registered(world.process())
    await until(lambda: seer.extensions)
    client.backend.faults.freeze()
    frozen = world.clock.now()
    await until(lambda: seer.extensions.stale, 2 * WATCH_SILENCE)
    assert world.clock.now() - frozen <= WATCH_SILENCE + 0.1
    assert list(seer.extensions) == ["geo"]
    assert seer.extensions.age >= WATCH_SILENCE - 0.1


@pytest.fixture(scope="module")
def forgetful_etcd(osdisco_servers: Servers) -> Iterator[EtcdServer]:
    """An etcd that forgets a token after a second without use."""
    with osdisco_servers.fresh_etcd(auth=True, flags=("--auth-token-ttl=1",)) as server:
        yield server


@pytest.mark.parametrize("gateway", [False, True], ids=["grpc", "gateway"])
async def test_pain_17_an_expired_token_stops_no_view(forgetful_etcd: EtcdServer, gateway: bool) -> None:
    """kragniz/python-etcd3#1227: the client hangs once its token has expired.

    Broken by: a watch that opens with the token of before (`Auth` without a new login for streams).
    """
    access = forgetful_etcd.access
    async with ChaosProxy(forgetful_etcd.address) as proxy:
        there, direct = (access.url([address], gateway=gateway) for address in (proxy.address, forgetful_etcd.address))
        namespace = f"pain17-{gateway}"
        async with (
            connect(in_namespace(there, namespace)) as viewer,
            connect(in_namespace(direct, namespace), ttl="30s") as client,
        ):
            seer = await observer(viewer)
            discovery = await registered(client)
            await until(lambda: seer.extensions)
            await asyncio.sleep(2.6)
            proxy.cut()  # the watch must open anew, and the update be sent, both with tokens that are no longer known
            await discovery.set_status(HEALTHY)
            await until(lambda: seer.extensions["geo"].status is HEALTHY, 10)
            await seer.stop()
            await discovery.stop()


async def test_pain_18_a_compaction_costs_one_look_and_loses_nothing(world: World) -> None:
    """Revolution1/etcd3-py#61, kragniz/python-etcd3#134: compaction blocks the watch for ever, or makes it spin.

    Broken by: resuming from where the watch has ended until it works (`MemoryBackend.watch`), or a snapshot that is
    taken without its difference (`Feed._replace`).
    """
    viewer = world.process()
    seer = await observer(viewer)
    stays, leaves = await registered(world.process(), "stays"), await registered(world.process(), "leaves")
    await until(lambda: len(seer.extensions) == 2)
    diary = Diary(seer)
    viewer.backend.faults.outage("watch")
    await asyncio.sleep(1)
    await stays.set_status(HEALTHY)
    await leaves.stop()
    await registered(world.process(), "comes")
    world.store.faults.compact()
    opened = viewer.backend.calls["watch"]
    viewer.backend.faults.clear()
    await until(lambda: "comes" in seer.extensions, 10)
    await asyncio.sleep(30)
    assert viewer.backend.calls["watch"] - opened <= 1
    assert diary.lines[2:] == ["-leaves starting", "stays starting>healthy", "+comes starting"]


@pytest.mark.parametrize(
    "gateway",
    [
        pytest.param(False, id="grpc", marks=pytest.mark.fault("F19", on="etcd")),
        pytest.param(True, id="gateway", marks=pytest.mark.fault("F19", on="etcd+http")),
    ],
)
async def test_pain_18_on_etcd(etcd_server: EtcdServer, gateway: bool) -> None:
    """The same, compacted by the server itself."""
    access = etcd_server.access
    async with ChaosProxy(etcd_server.address) as proxy:
        there, direct = (access.url([address], gateway=gateway) for address in (proxy.address, etcd_server.address))
        namespace = f"pain18-{gateway}"
        async with (
            connect(in_namespace(there, namespace)) as viewer,
            connect(in_namespace(direct, namespace)) as client,
        ):
            seer = await observer(viewer)
            leaves = await registered(client, "leaves")
            await until(lambda: seer.extensions)
            diary = Diary(seer)
            proxy.hold()
            await leaves.stop()
            comes = await registered(client, "comes")
            revision = (await client.commit([Put("compact", b"")]))["compact"]
            await asyncio.to_thread(etcd_server.admin, "POST", "/v3/kv/compaction", {"revision": revision})
            proxy.cut()
            proxy.heal()
            await until(lambda: list(seer.extensions) == ["comes"], 10)
            await until(lambda: sorted(diary.lines[1:]) == ["+comes starting", "-leaves starting"])
            await seer.stop()
            await comes.stop()


@ALL
async def test_pain_19_of_many_changes_in_one_revision_none_is_lost(osdisco_url: str) -> None:
    """kragniz/python-etcd3#729: resuming loses events of a revision of which some were seen.

    Broken by: a feed that takes one key of a batch (`Feed._apply`).
    """
    ids = sorted(f"geo-{number:02}" for number in range(20))
    async with connect(osdisco_url) as client, connect(osdisco_url) as viewer:
        seer = await observer(viewer)
        services = await asyncio.gather(*(registered(client, id_) for id_ in ids))
        await until(lambda: sorted(seer.extensions) == ids)
        diary = Diary(seer)
        session = await client.shared_session()
        await viewer.backend.revoke(Lease(session.id, session.ttl), timeout=5)
        conflates = client.backend.limits.conflates  # then who was back before the next poll was never away
        await until(lambda: session.lost.is_set() and all(service.registered for service in services), 15)
        await until(lambda: (conflates or len(diary.lines) >= 60) and sorted(seer.extensions) == ids, 15)
        for id_ in ids:
            told = [line for line in diary.lines if line[1:].startswith(id_)]
            whole = [f"+{id_} starting", f"-{id_} starting", f"+{id_} starting"]
            assert told == whole or (conflates and told == whole[:1])
        await asyncio.gather(*(service.stop() for service in services))
        await seer.stop()


@ALL
async def test_pain_20_nothing_falls_between_the_list_and_the_watch(osdisco_url: str) -> None:
    """abronan/libkv#15: what is written between the list and the watch is never seen.

    Broken by: a watch that begins at the present (`EtcdBackend.watch` without the revision of its snapshot).
    """
    async with connect(osdisco_url) as client, connect(osdisco_url) as viewer:
        service = await registered(client)
        for number in range(20):
            seer, _ = await asyncio.gather(observer(viewer), service.update(metadata={"n": str(number)}))
            await until(lambda seer=seer, number=number: seer.extensions["geo"].metadata.get("n") == str(number))
            await seer.stop()
        await service.stop()


async def test_pain_21_a_watch_that_fails_says_so(world: World) -> None:
    """docker/libkv#28: there is no way in which a watch can tell of an error.

    Broken by: an end of the iterator, or a wait without a reason, when the store refuses (`Watch.on_trouble`).
    """
    client = world.process()
    client.backend.faults.deny("watch")
    async with DiscoveryService(client) as seer, client.watch("ext/") as changes:
        with pytest.raises(DeniedError):
            await asyncio.wait_for(anext(changes), 5)
        with pytest.raises(TimedOutError, match="denied"):
            await seer.wait_known(3)
        assert seer.extensions.stale
        client.backend.faults.clear()
        await seer.wait_known(20)
        assert not seer.extensions.stale


async def leaves(client: Client, service: DiscoveryService, operator: Client) -> None:
    await service.stop()


async def loses_its_lease(client: Client, service: DiscoveryService, operator: Client) -> None:
    session = await client.shared_session()
    await operator.backend.revoke(Lease(session.id, session.ttl), timeout=5)


async def is_deleted(client: Client, service: DiscoveryService, operator: Client) -> None:
    await operator.commit([Delete(name) for name in (await operator.scan("ext/geo/")).items])


@ALL
@pytest.mark.parametrize("goes", [leaves, loses_its_lease, is_deleted])
async def test_pain_22_whoever_goes_is_told_to_be_gone(osdisco_url: str, goes: Any) -> None:
    """grafana/agent#936: the watch drops deletes, and who is gone stays for ever.

    Broken by: a feed that takes only puts (`Feed._apply`), or a snapshot without the difference (`Feed._replace`).
    """
    async with connect(osdisco_url) as client, connect(osdisco_url) as viewer:
        seer = await observer(viewer)
        service = await registered(client)
        await until(lambda: seer.extensions)
        diary = Diary(seer)
        await goes(client, service, viewer)
        await until(lambda: any(line.startswith("-geo") for line in diary.lines))
        await service.stop()
        await until(lambda: not seer.extensions)
        await seer.stop()


@pytest.mark.osdisco("consul")
async def test_pain_23_what_others_write_wakes_nobody(osdisco_url: str) -> None:
    """hashicorp/consul#3890: blocking queries return for writes elsewhere.

    Broken by: a poll that asks for more than its prefix, or a feed that tells of empty frames (`Feed._fold`).
    """
    async with connect(osdisco_url) as client, connect(osdisco_url) as viewer:
        service = await registered(client)
        seer = await observer(viewer)
        await until(lambda: seer.extensions)
        diary = Diary(seer)
        contact = seer._view._feed.contact
        for number in range(50):
            await client.commit([Put("elsewhere", b"%d" % number)])
        assert diary.lines == ["+geo starting"]
        assert seer._view._feed.contact == contact
        await service.set_status(HEALTHY)
        await until(lambda: diary.lines == ["+geo starting", "geo starting>healthy"])
        await service.stop()
        await seer.stop()


async def test_pain_23_an_index_that_goes_backwards_hides_nothing(world: World) -> None:
    """hashicorp/consul#5358: the index falls when what was deleted is forgotten, and the watch waits for ever.

    Broken by: a feed that drops what is older than its revision (`Feed._fold`). Polls are held by the consul suite.
    """
    viewer = world.process()
    viewer.backend.falls_back = "ext/"
    seer = await observer(viewer)
    first = await registered(world.process(), "first")
    second = await registered(world.process(), "second")
    await until(lambda: len(seer.extensions) == 2)
    diary = Diary(seer)
    for _ in range(3):
        await second.set_status(HEALTHY)
        await second.set_status(DEGRADED)
    viewer.backend.faults.outage("watch")
    await asyncio.sleep(1)
    await second.stop()
    viewer.backend.faults.clear()  # the revision of what is left is lower than all that was seen
    await until(lambda: list(seer.extensions) == ["first"], 20)
    await first.set_status(HEALTHY)
    await until(lambda: diary.lines[-1] == "first starting>healthy", 20)
    assert [line for line in diary.lines if line.startswith("-")] == ["-second degraded"]


async def test_pain_24_listeners_may_use_what_they_are_told_by(world: World) -> None:
    """kragniz/python-etcd3#187, #1622: a call inside of a callback deadlocks; on which thread it runs nobody says.

    Broken by: an end of all listeners that waits for the one that asked for it (`cancel`), or listeners that are
    awaited where the watch is read.
    """
    client = world.process()
    seer = await DiscoveryService(client, info("self")).start()
    await seer.wait_registered(5)
    told: list[str] = []

    async def listen(event: ExtensionEvent) -> None:
        assert threading.current_thread() is threading.main_thread()
        assert asyncio.get_running_loop().is_running()
        found = await seer.discover_extensions()
        await seer.update(metadata={"seen": str(len(found))})  # which is told by this very listener
        await until(lambda: seer.extensions["self"].metadata["seen"] == str(len(found)))
        told.append(event.extension.id)
        if "geo" in told:
            await seer.stop()

    remove = seer.add_listener(listen)
    await registered(world.process())
    await until(lambda: seer._closed, 10)
    remove()
    assert world.keys("ext/self/") == []


# Registry


async def restored(client: Client, operator: Client) -> None:
    """A backup of before is put back: neither the lease nor the record is in it."""
    await loses_its_lease(client, None, operator)  # type: ignore[arg-type]
    await operator.commit([Delete(name) for name in (await operator.scan("")).items] or [Delete("none")])


async def record_deleted(client: Client, operator: Client) -> None:
    await is_deleted(client, None, operator)  # type: ignore[arg-type]


async def lease_ended(client: Client, operator: Client) -> None:
    await loses_its_lease(client, None, operator)  # type: ignore[arg-type]


@ALL
@pytest.mark.parametrize("loss", [lease_ended, record_deleted, restored])
async def test_pain_25_whatever_is_lost_is_registered_again(osdisco_url: str, loss: Any) -> None:
    """go-kit/kit#1043, go-kratos/kratos#3883: the lease is lost, and the service never registers again, silently.

    Broken by: a reconciler that ends with its session (`Keeper._run`).
    """
    async with connect(osdisco_url) as client, connect(osdisco_url) as operator:
        service = await registered(client, status=HEALTHY)
        for _ in range(2):
            (key,) = (await operator.scan("ext/")).items
            await loss(client, operator)
            async with operator.view("ext/") as records:
                await records.until(lambda records, key=key: records and key not in records, 15)
            await service.wait_registered(5)
            assert [one.status for one in await service.discover_extensions()] == [HEALTHY]
        await service.stop()


async def test_pain_25_it_never_gives_up(world: World) -> None:
    """The same after an hour without a store, with a refusal at its end; and it says that it is not registered.

    Broken by: a bound for attempts, or `registered` that only remembers (`Keeper._stands`).
    """
    client = world.process()
    service = await registered(client)
    client.backend.faults.outage()
    await asyncio.sleep(3600)
    assert not service.registered
    client.backend.faults.clear()
    client.backend.faults.deny("commit", key="ext/")
    await asyncio.sleep(600)
    assert not service.registered
    with pytest.raises(TimedOutError, match="denied"):
        await service.wait_registered(30)
    client.backend.faults.clear()
    await service.wait_registered(15)


@pytest.mark.parametrize("fault", ["outage", "freeze"])
async def test_pain_26_old_data_is_never_published_again(world: World, fault: str) -> None:
    """apache/curator#702: after a reconnect the data of before the outage is published once more.

    Broken by: registering again what was published last (`Keeper._publish` without `desired`).
    """
    history = History(world)
    client = world.process()
    service = await registered(client)
    for seconds in (3, 60):
        await service.set_status(HEALTHY)
        getattr(client.backend.faults, fault)()
        await service.set_status(DEGRADED)
        await asyncio.sleep(seconds)
        client.backend.faults.clear()
        await service.wait_registered(15)
    await asyncio.sleep(60)
    statuses = history.statuses
    assert [old for old, new in pairwise(statuses) if old == new] == []
    assert statuses == ["starting", "healthy", "degraded", "healthy", "degraded"]


async def test_pain_27_each_writes_its_own_key_and_nobody_stays_as_a_ghost(world: World) -> None:
    """grafana/dskit#117, #207: all write one key; they conflict with each other, and members of old come back.

    Broken by: a record without a lease (`Entry.create`), or a key that several processes write.
    """
    clients = [world.process() for _ in range(30)]
    services = [await registered(client, f"geo-{number}") for number, client in enumerate(clients)]
    seer = await observer(world.process())
    for client in clients:
        client.backend.calls.clear()
    for _ in range(3):
        await asyncio.gather(*(service.set_status(HEALTHY) for service in services))
        await asyncio.gather(*(service.set_status(DEGRADED) for service in services))
    assert {client.backend.calls["commit"] for client in clients} == {6}
    for client in clients[:10]:
        world.kill(client)
    await asyncio.sleep(world.ttl + 1)
    assert len(seer.extensions) == 20
    await services[10].set_status(HEALTHY)
    await asyncio.sleep(60)
    assert len(seer.extensions) == 20 == len(world.keys("ext/"))


TERMINATED = """
import asyncio, sys, osdisco
from osdisco.discovery import DiscoveryService, ExtensionInfo
from osdisco.integrations import run_until_terminated

async def main():
    me = ExtensionInfo(id="geo", name="geo", version="1.0.0", host="10.0.0.7", port=9700)
    async with osdisco.connect(sys.argv[1]) as client, DiscoveryService(client, me) as discovery:
        await discovery.wait_registered(20)
        asyncio.get_running_loop().call_soon(lambda: print("registered", flush=True))  # when it listens to signals
        await run_until_terminated(discovery)

asyncio.run(main())
"""


@REAL
async def test_pain_28_sigterm_takes_the_registration_away(osdisco_url: str) -> None:
    """spring-cloud/spring-cloud-consul#178: SIGTERM ends the process, and its registration stays until its ttl.

    Broken by: `run_until_terminated` without its handler of the signal.
    """
    async with connect(osdisco_url) as client:
        seer = await observer(client)
        diary = Diary(seer)
        async with process_of(TERMINATED, f"{osdisco_url}{'&' if '?' in osdisco_url else '?'}ttl=60s") as process:
            await until(lambda: seer.extensions)
            process.send_signal(signal.SIGTERM)
            await until(lambda: not seer.extensions, 10)
            assert await asyncio.wait_for(process.wait(), 10) == 0
        await until(lambda: diary.lines[-1].startswith("-geo"))
        assert (await client.scan("ext/")).items == {}
        await seer.stop()
