"""Discovery by its rules: registered, seen, restarted, superseded, gone. Virtual time, store in memory."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
from extensions import Diary, info, observer, registered
from worlds import World, lease_of, until

from osdisco.backend import Delete, Put
from osdisco.discovery import DiscoveryService, EndpointInfo, ExtensionStatus, Superseded
from osdisco.errors import ClosedError, DiscoveryError, InvalidNameError, TimedOutError

HEALTHY, STARTING, STOPPING = ExtensionStatus.HEALTHY, ExtensionStatus.STARTING, ExtensionStatus.STOPPING


# Registered and seen


async def test_what_one_registers_another_sees_whole_and_at_once(world: World) -> None:
    me = info(
        capabilities=["geo.search", "geo.index"],
        endpoints={"rest": EndpointInfo("http", 9700, "/geo")},
        metadata={"zone": "a", "é": "ü"},
        status=HEALTHY,
    )
    seer = await observer(world.process())
    async with DiscoveryService(world.process(), me) as discovery:
        await discovery.wait_registered(timeout=5)
        await until(lambda: seer.extensions, 0.1)
        assert dict(seer.extensions) == {"geo": me} == dict(discovery.extensions)
        assert await seer.discover_extensions() == [me]
        assert seer.find_by_capability("geo.index") == [me]
        assert seer.find_by_capability("geo") == []
        assert discovery.registered
        assert not seer.extensions.stale
    assert dict(seer.extensions) == {}
    assert await seer.discover_extensions() == []


async def test_a_registration_costs_one_commit_and_every_change_one_more(world: World) -> None:
    client = world.process()
    await client.shared_session()
    await asyncio.sleep(1)
    client.backend.calls.clear()
    discovery = await registered(client)
    assert client.backend.calls["commit"] == 1
    for status in (HEALTHY, STARTING, HEALTHY):
        await discovery.set_status(status)
        await discovery.wait_registered(5)
    await asyncio.sleep(5)
    assert client.backend.calls["commit"] == 4
    assert len(world.keys("ext/")) == 1


async def test_changes_are_published_and_metadata_is_merged(world: World) -> None:
    seer = await observer(world.process())
    discovery = await registered(world.process(), metadata={"zone": "a", "rack": "1"})
    await discovery.update(metadata={"zone": "b"}, version="2.0.0", capabilities=["x"])
    await discovery.set_status(HEALTHY)  # who reads after it sees it
    want = info(version="2.0.0", capabilities=["x"], metadata={"zone": "b", "rack": "1"}, status=HEALTHY)
    assert await seer.discover_extensions() == [want]
    assert discovery.extension == want


async def test_of_many_changes_at_once_the_last_is_published(world: World) -> None:
    seer = await observer(world.process())
    diary = Diary(seer)
    discovery = await registered(world.process())
    changes = (HEALTHY, ExtensionStatus.DEGRADED, ExtensionStatus.UNHEALTHY)
    await asyncio.gather(*(discovery.set_status(status) for status in changes))
    await until(lambda: diary.lines == ["+geo starting", "geo starting>unhealthy"])


async def test_leaving_says_so_before_it_goes(world: World) -> None:
    seer = await observer(world.process())
    diary = Diary(seer)
    async with DiscoveryService(world.process(), info(status=HEALTHY)) as discovery:
        await discovery.wait_registered(5)
    await asyncio.sleep(0.1)
    assert diary.lines == ["+geo healthy", "geo healthy>stopping", "-geo stopping"]
    assert world.keys("ext/") == []


async def test_the_extension_of_a_dead_process_goes_with_its_ttl(world: World) -> None:
    seer = await observer(world.process())
    client = world.process()
    await registered(client)
    world.kill(client)
    began = world.clock.now()
    await until(lambda: not seer.extensions, 2 * world.ttl)
    assert world.ttl - 1 <= world.clock.now() - began <= world.ttl + 1


async def test_one_that_only_observes_puts_nothing_into_the_store(world: World) -> None:
    seer = await observer(world.process())
    assert world.store.revision == 0
    assert not seer.registered
    with pytest.raises(DiscoveryError, match="only observes"):
        _ = seer.extension
    for call in (seer.set_status(HEALTHY), seer.update(version="2"), seer.wait_registered(1)):
        with pytest.raises(DiscoveryError, match="only observes"):
            await call


HOSTILE = ["..", "//", "a b", "é", "x:y", "a,b", "%2F", "a/b", "geo/../../agent/leave", "=2E", "a\nb", "\0"]


@pytest.mark.parametrize("id_", HOSTILE)
async def test_hostile_ids_are_only_text(world: World, id_: str) -> None:
    """They are seen, come back when their record is deleted, and leave."""
    seer = await observer(world.process())
    discovery = await registered(world.process(), id_)
    assert list(seer.extensions) == [id_]
    delete_records(world)
    await until(lambda: world.keys("ext/"))
    await discovery.wait_registered(1)
    assert [extension.id for extension in await seer.discover_extensions()] == [id_]
    await discovery.stop()
    assert world.keys("ext/") == []


def delete_records(world: World) -> None:
    world.store.commit([Delete(f"ns/{key}") for key in world.keys("ext/")], {})


@pytest.mark.parametrize("id_", ["", "\ud800", "a" * 256])
def test_an_id_that_no_key_can_hold_is_refused(id_: str) -> None:
    with pytest.raises(InvalidNameError):
        info(id_)


# Restarts and rivals


async def test_a_restarted_process_counts_at_once(world: World) -> None:
    """Its dead predecessor's record stands until its ttl is over."""
    seer = await observer(world.process())
    dead = world.process()
    await registered(dead, port=1)
    world.kill(dead)
    await registered(world.process(), port=2)
    await until(lambda: seer.extensions["geo"].port == 2, 0.1)
    assert len(world.keys("ext/")) == 2
    diary = Diary(seer)
    await asyncio.sleep(2 * world.ttl)
    assert len(world.keys("ext/")) == 1
    assert seer.extensions["geo"].port == 2
    assert diary.lines == ["+geo starting"]


async def test_a_dead_predecessor_is_not_shown_again_when_its_successor_leaves(world: World) -> None:
    seer = await observer(world.process())
    dead = world.process()
    await registered(dead, port=1)
    seen = watched_ports(seer)
    world.kill(dead)
    successor = await registered(world.process(), port=2)
    await asyncio.sleep(0.5)
    await successor.stop()
    await asyncio.sleep(2 * world.ttl)
    assert set(seen[: seen.index(2)]) == {1}
    assert set(seen[seen.index(2) : -1]) == {2}
    assert seen[-1] is None


async def test_an_old_process_that_returns_after_an_outage_never_wins_back(world: World) -> None:
    seer = await observer(world.process())
    old = world.process()
    first = await registered(old, port=1)
    seen = watched_ports(seer)
    old.backend.faults.outage()
    await asyncio.sleep(2 * world.ttl)
    second = await registered(world.process(), port=2)
    old.backend.faults.clear()
    await asyncio.sleep(2 * world.ttl)
    assert seen == [1, None, 2]
    assert first.superseded
    assert not first.registered
    assert second.registered
    assert len(world.keys("ext/")) == 1
    with pytest.raises(DiscoveryError, match="anew"):
        await first.set_status(HEALTHY)
    with pytest.raises(DiscoveryError, match="anew"):
        await first.wait_registered(1)


def watched_ports(seer: DiscoveryService) -> list[int | None]:
    """Return the ports that the view shows, as they come."""
    seen: list[int | None] = []
    seer.add_listener(lambda event: seen.append(event.new.port if event.new else None))
    return seen


async def test_an_old_process_that_cannot_see_the_newer_one_does_not_win_back_either(world: World) -> None:
    """It registers anew after its outage, from another session, later than the newer one: its incarnation is older."""
    seer = await observer(world.process())
    old = world.process()
    first = await registered(old, port=1)
    old.backend.faults.outage("watch")
    world.store.faults.end_lease(await lease_of(old))
    await asyncio.sleep(0.5)
    await registered(world.process(), port=2)
    seen = watched_ports(seer)
    await until(lambda: len(world.keys("ext/")) == 2, 2 * world.ttl)
    assert first.registered
    await asyncio.sleep(1)
    assert seer.extensions["geo"].port == 2
    assert [extension.port for extension in await seer.discover_extensions()] == [2]
    assert set(seen) <= {2}
    old.backend.faults.clear()
    await until(lambda: first.superseded, 20)
    await until(lambda: len(world.keys("ext/")) == 1)


async def test_of_two_processes_with_one_id_the_later_wins_and_the_earlier_withdraws(world: World) -> None:
    seen = watched_ports(await observer(world.process()))
    first = await registered(world.process(), port=1)
    second = await registered(world.process(), port=2)
    await until(lambda: first.superseded, 1)
    assert seen == sorted(seen)
    assert seen[-1] == 2
    await until(lambda: len(world.keys("ext/")) == 1)
    assert second.registered
    await first.stop()
    assert second.extensions["geo"].port == 2


async def test_a_first_record_that_comes_after_its_process_was_killed_drives_nobody_out(world: World) -> None:
    """It is the newest incarnation until its lease ends: the living one has to be there then."""
    dead = world.process()
    dead.backend.faults.delay("commit", request=1.0, times=1, key="ext/")
    starting = DiscoveryService(dead, info(port=1))
    await starting.start()
    await asyncio.sleep(0.5)
    living = await registered(world.process(), port=2)
    seen = watched_ports(living)
    world.kill(dead)
    await asyncio.sleep(2 * world.ttl)
    assert seen == [2, 1, 2]
    assert living.registered
    assert not living.superseded
    assert len(world.keys("ext/")) == 1


async def test_who_learns_late_that_its_first_record_came_is_no_newer_for_that(world: World) -> None:
    """The newer one must not remove that record meanwhile: it would be made anew, later than the newer one's."""
    cut_off = world.process()
    cut_off.backend.faults.drop_answer("commit", times=1, key="ext/")
    away = cut_off.backend.faults.outage("get", key="ext/")
    async with DiscoveryService(cut_off, info(port=1)) as first:
        await until(lambda: world.keys("ext/"), 1)
        second = await registered(world.process(), port=2)
        await asyncio.sleep(0.5)
        assert not first.registered
        away.end()
        await until(lambda: first.superseded, 10)
        assert second.registered
        assert second.extensions["geo"].port == 2


async def test_a_mistake_of_a_backend_ends_no_registration(world: World, caplog: pytest.LogCaptureFixture) -> None:
    client = world.process()
    discovery = await registered(client)
    commit, client.backend.commit = client.backend.commit, _failing
    await discovery.update(port=2)
    assert not discovery.registered
    client.backend.commit = commit
    await until(lambda: discovery.registered, 10)
    assert discovery.extensions["geo"].port == 2
    assert "does not know" in caplog.text


async def _failing(*_: object, **__: object) -> None:
    raise KeyError("a mistake")


async def test_a_newer_process_that_is_seen_before_the_own_answer_has_come_wins_too(world: World) -> None:
    slow = world.process()
    slow.backend.faults.delay("commit", answer=1.0, times=1, key="ext/")
    async with DiscoveryService(slow, info(port=1)) as first, first.events() as events:
        await until(lambda: world.keys("ext/"), 1)
        second = await registered(world.process(), port=2)
        assert not first.superseded
        await until(lambda: first.superseded, 2)
        assert next(first._own._numbers) == 2, "it has written once, and does not try to stay"
        await until(lambda: len(world.keys("ext/")) == 1, 1)
        assert second.registered
        assert second.extensions["geo"].port == 2
        async with asyncio.timeout(1):
            while not isinstance(event := await anext(events), Superseded):
                pass
        assert event.by.port == 2


async def test_many_re_registrations_of_one_process_never_supersede_itself(world: World) -> None:
    discovery = await registered(world.process())
    for _ in range(5):
        delete_records(world)
        await discovery.set_status(HEALTHY)
        world.store.faults.end_lease(await lease_of(world.clients[0]))
        await asyncio.sleep(1)
    await discovery.wait_registered(5)
    assert not discovery.superseded


# It comes back


async def test_a_record_that_an_operator_deleted_comes_back(world: World) -> None:
    discovery = await registered(world.process(), status=HEALTHY)
    delete_records(world)
    await until(lambda: world.keys("ext/"), 1)
    await discovery.wait_registered(1)
    assert (await discovery.discover_extensions())[0].status is HEALTHY


async def test_a_record_that_was_deleted_before_the_view_ever_saw_it_comes_back(world: World) -> None:
    """On a store that conflates the view's state is then the same as before, and it tells of no change."""
    world.store.faults.conflate = True
    client = world.process()
    await observer(client)
    commit = world.store.commit

    def commit_and_delete(*args: Any) -> Any:
        revisions = commit(*args)
        if world.keys("ext/"):
            world.store.commit = commit
            delete_records(world)
        return revisions

    world.store.commit = commit_and_delete
    discovery = await registered(client)
    assert world.keys("ext/") == []
    await until(lambda: world.keys("ext/"), 2)
    await discovery.wait_registered(1)


async def test_a_record_that_was_deleted_while_the_view_was_away_comes_back(world: World) -> None:
    """The view saw neither the record nor its end."""
    client = world.process()
    client.backend.faults.outage("watch", key="ext")
    discovery = await registered(client)
    delete_records(world)
    await asyncio.sleep(1)
    client.backend.faults.clear()
    await until(lambda: world.keys("ext/"), 10)
    await discovery.wait_registered(1)


async def test_after_the_loss_of_its_lease_the_latest_record_stands_again(world: World) -> None:
    client = world.process()
    discovery = await registered(client)
    await discovery.update(version="2.0.0")
    await discovery.wait_registered(5)
    world.store.faults.end_lease(await lease_of(client))
    await asyncio.sleep(0)
    assert world.keys("ext/") == []
    await until(lambda: world.keys("ext/"), 1)
    await discovery.wait_registered(1)
    assert (await discovery.discover_extensions())[0].version == "2.0.0"


async def test_several_services_share_one_session_and_one_watch(world: World) -> None:
    client = world.process()
    services = [await registered(client, f"geo-{number}") for number in range(5)]
    await until(lambda: all(len(service.extensions) == 5 for service in services))
    assert len({item.lease for item in world.store.scan("ns/ext/").items.values()}) == 1
    assert client.backend.watching["ns/ext/"] == 1


async def test_the_next_service_of_a_client_shows_nothing_of_what_the_one_before_has_seen(world: World) -> None:
    """They share a view, which ends with the last of them: what it showed then is told to nobody again."""
    client = world.process()
    other = await registered(world.process(), "other")
    before = await observer(client)
    await until(lambda: before.extensions)
    await before.stop()
    assert list(before.extensions) == ["other"]
    client.backend.faults.outage()
    await other.stop()
    after = await DiscoveryService(client).start()
    diary = Diary(after)
    await asyncio.sleep(1)
    assert dict(after.extensions) == {}
    client.backend.faults.clear()
    await registered(world.process(), "new")
    await until(lambda: after.extensions, 20)
    await until(lambda: diary.lines == ["+new starting"], 1)


async def test_nothing_of_a_closed_client_stays_in_memory(world: World) -> None:
    """Nor of its services, of which some were never stopped."""
    client = world.process()
    services = [await registered(client, f"geo-{number}") for number in range(3)]
    await services[0].stop()
    connection = weakref.ref(client._connection)
    await client.aclose()
    world.clients.remove(client)
    del client, services
    await asyncio.sleep(world.ttl)
    gc.collect()
    assert connection() is None


# Use and misuse


BAD_CHANGES = [
    {"id": "other"},
    {"port": 0},
    {"port": True},
    {"port": "9700"},
    {"version": 1},
    {"status": "healthy"},
    {"capabilities": "geo.search"},
    {"capabilities": [1]},
    {"metadata": {"a": 1}},
    {"metadata": {"a": "\ud800"}},
    {"metadata": {"a": "x" * 70_000}},
    {"endpoints": {"rest": {"protocol": "http", "port": 1}}},
    {"endpoints": [EndpointInfo("http", 1)]},
    {"host": None},
]


@pytest.mark.parametrize("changes", BAD_CHANGES, ids=str)
async def test_what_no_reader_would_take_is_refused_to_the_caller(world: World, changes: dict[str, object]) -> None:
    discovery = await registered(world.process())
    with pytest.raises(DiscoveryError):
        await discovery.update(**changes)
    assert discovery.registered
    assert discovery.extension == info()
    if "id" not in changes:
        with pytest.raises(DiscoveryError):
            DiscoveryService(world.process(), info(**changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prot": 1, "version": "2"}, "an extension has no field 'prot'; known are name, version, host"),
        ({"id": "knn"}, "the id of an extension stays"),
        ({"metadata": "abc"}, "by name, not as str"),
        ({"metadata": None}, "by name, not as NoneType"),
    ],
)
async def test_a_change_that_cannot_be_is_refused_by_its_name(world: World, changes: dict[str, Any], says: str) -> None:
    discovery = await registered(world.process())
    with pytest.raises(DiscoveryError, match=says):
        await discovery.update(**changes)
    assert discovery.extension == info()


async def test_waiting_says_why_it_took_too_long(world: World) -> None:
    client = world.process()
    client.backend.faults.outage()
    async with DiscoveryService(client, info()) as discovery:
        with pytest.raises(TimedOutError, match=r"not registered within 7 s: .*not available"):
            await discovery.wait_registered(7)
        with pytest.raises(TimedOutError, match="not available"):
            await discovery.wait_known(1)


async def test_a_service_is_started_once_and_may_be_stopped_twice(world: World) -> None:
    discovery = DiscoveryService(world.process(), info())
    await discovery.stop()
    await discovery.start()
    await discovery.start()
    await discovery.wait_registered(5)
    await discovery.stop()
    await discovery.stop()
    with pytest.raises(ClosedError):
        await discovery.start()


async def test_who_waits_for_a_service_is_told_that_it_stops(world: World) -> None:
    client = world.process()
    client.backend.faults.outage()
    discovery = await DiscoveryService(client, info()).start()
    waiting = asyncio.ensure_future(discovery.wait_registered())
    await asyncio.sleep(1)
    await discovery.stop()
    with pytest.raises(ClosedError):
        await waiting


async def test_a_closed_client_takes_its_extensions_with_it(world: World) -> None:
    seer = await observer(world.process())
    client = world.process()
    discovery = await registered(client)
    await client.aclose()
    assert not discovery.registered
    await until(lambda: not seer.extensions, 0.1)
    await discovery.stop()


# After a restore


async def test_after_a_restore_that_raised_the_epoch_who_comes_later_is_newer_though_revisions_fell(
    world: World,
) -> None:
    for number in range(50):
        world.store.commit([Put("ns/other", str(number).encode())], {})
    first = await registered(world.process(), port=1)
    world.store.commit([Put("ns/epoch", b"1")], {})
    world.store.revision = 10  # as a backup has it
    second = await registered(world.process(), port=2)
    assert 0 < world.store.scan("ns/epoch").revision < first._own.incarnation
    await until(lambda: first.superseded, 1)
    assert (second.superseded, second.extensions["geo"].port) == (False, 2)
    await second.update(version="2.0.0")
    assert [one.port for one in await second.discover_extensions()] == [2]
