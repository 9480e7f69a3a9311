"""The registry by its rules: registered, found, changed, gone, and back again. Virtual time, store in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from services import Diary, definition, delete_records, found, registered, viewed
from worlds import World, lease_of, until

from osdisco._keeper import SEEN
from osdisco.discovery import Drain, ExtensionStatus, TtlCheck
from osdisco.errors import ClosedError, DiscoveryError, TimedOutError
from osdisco.registry import (
    ServiceRegistry,
)

HEALTHY, DEGRADED, STOPPING = ExtensionStatus.HEALTHY, ExtensionStatus.DEGRADED, ExtensionStatus.STOPPING


# Registered and found


async def test_what_one_registers_another_finds_whole_and_at_once(world: World) -> None:
    registry = ServiceRegistry(world.process())
    changes: dict[str, Any] = {"weight": 0, "zone": "é", "metadata": {"a": "ü"}, "health_check_url": "http://h:1/"}
    view = await viewed(world.process())
    async with registry.register(definition(**changes), status=DEGRADED) as registration:
        assert registration.registered
        await until(lambda: view, 0.1)
        want = found(**changes, status=DEGRADED)
        assert view.endpoints == (want,)
        assert dict(view) == {want.extension_id: want}
        assert await registry.get_endpoints("geo") == [want]
        assert registration.endpoint == want
        assert registration.definition == definition(**changes)
        assert await registry.get_endpoints("knn") == []
    assert view.endpoints == ()
    assert await registry.get_endpoints("geo") == []


async def test_a_registration_costs_one_commit_and_every_change_one_more(world: World) -> None:
    client = world.process()
    await client.shared_session()
    await asyncio.sleep(1)
    client.backend.calls.clear()
    registration = await registered(client)
    assert client.backend.calls["commit"] == 1
    for weight in (1, 2, 3):
        await registration.update(weight=weight)
        assert registration.registered
    await asyncio.sleep(5)
    assert client.backend.calls["commit"] == 4
    assert len(world.keys("svc/")) == 1


async def test_changes_are_published_in_the_end_as_the_last_of_them(world: World) -> None:
    view = await viewed(world.process())
    diary = Diary(view)
    registration = await registered(world.process(), metadata={"zone": "a", "rack": "1"})
    await asyncio.gather(*(registration.update(weight=weight) for weight in range(5)))
    last = registration.definition.weight  # whichever came last
    await registration.update(metadata={"zone": "b"}, version="3")
    await registration.set_status(DEGRADED)
    want = found(metadata={"zone": "b", "rack": "1"}, version="3", weight=last, status=DEGRADED)
    assert await ServiceRegistry(world.process()).get_endpoints("geo") == [want]
    await until(lambda: view.endpoints == (want,))
    assert len([line for line in diary.lines if line.startswith("added")]) == 1


async def test_a_view_finds_what_is_all_of_what_is_asked_for(world: World) -> None:
    client = world.process()
    await registered(client, 1, version="1.4.0", zone="a", metadata={"gpu": "1"})
    await registered(client, 2, version="2.0.0", zone="b")
    await (await registered(client, 3, version="nightly", zone="a")).set_status(DEGRADED)
    view = await viewed(client)

    def numbers(**asked: Any) -> str:
        return "".join(sorted(endpoint.address[7] for endpoint in view.find(**asked)))

    assert (numbers(), numbers(zone="a"), numbers(zone="c")) == ("123", "13", "")
    assert (numbers(version=">=1.2,<2"), numbers(version="==nightly")) == ("1", "3")
    assert (numbers(status=DEGRADED), numbers(status=HEALTHY, zone="a")) == ("3", "1")
    assert (numbers(metadata={"gpu": "1"}), numbers(metadata={"gpu": "2"})) == ("1", "")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"version": "new"}, "clauses such as"),
        ({"version": ">=x y"}, "clauses such as"),
        ({"version": []}, "text, not list: clauses such as"),
        ({"version": 2.0}, "text, not float: clauses such as"),
        ({"status": "healthy"}, "one of ExtensionStatus \\(STARTING, HEALTHY,.*not str"),
        ({"status": []}, "not list"),
        ({"zone": 1}, "a zone must be text, not int"),
        ({"zone": []}, "a zone must be text, not list"),
        ({"metadata": ["gpu"]}, "texts by name, such as .*, not list"),
        ({"metadata": []}, "texts by name, such as .*, not list"),
        ({"metadata": ""}, "texts by name, such as .*, not str"),
        ({"metadata": {"gpu": 1}}, "must be text, not int"),
    ],
    ids=repr,
)
async def test_a_view_refuses_to_look_for_what_can_be_nothing(world: World, asked: dict[str, Any], says: str) -> None:
    view = await viewed(world.process())
    with pytest.raises(DiscoveryError, match=says):
        view.find(**asked)


async def test_an_instance_that_moves_keeps_its_id(world: World) -> None:
    view = await viewed(world.process())
    registration = await registered(world.process())
    await registration.update(address="geo:1")
    await until(lambda: [endpoint.address for endpoint in view.endpoints] == ["geo:1"])
    assert list(view) == ["10.0.0.7:9700"]


async def test_leaving_says_so_before_it_goes(world: World) -> None:
    diary = Diary(await viewed(world.process()))
    async with ServiceRegistry(world.process()).register(definition()):
        pass
    await asyncio.sleep(0.5)
    geo = "10.0.0.7:9700"
    assert diary.lines == [f"added {geo} healthy", f"changed {geo} stopping", f"removed {geo} stopping"]


@pytest.mark.parametrize(("delay", "takes"), [(0.3, 0.3), (30, SEEN)])
async def test_leaving_goes_when_it_could_be_seen_to_leave(world: World, delay: float, takes: float) -> None:
    """A store that shows no states in between would show who looks later a removal alone, as of a crash."""
    view = await viewed(world.process())
    client = world.process()
    registration = await registered(client)
    await until(lambda: view)
    client.backend.faults.delay("watch", answer=delay)
    began = world.clock.now()
    await registration.deregister()
    assert world.clock.now() - began == pytest.approx(takes, abs=0.1)


async def test_leaving_drains_what_is_in_flight(world: World) -> None:
    view = await viewed(world.process())
    registry = ServiceRegistry(world.process())
    registration = await registry.register(definition(), drain=Drain(propagation=1, grace=20))
    async with registration.in_flight():
        leaving = asyncio.ensure_future(registration.deregister())
        await asyncio.sleep(10)
        assert registration.draining
        assert [endpoint.status for endpoint in view.endpoints] == [STOPPING]
    await leaving
    await until(lambda: not view, 0.1)


async def test_checks_decide_how_it_is_and_hide_nothing_worse_that_was_said(world: World) -> None:
    view = await viewed(world.process())
    heart = TtlCheck(5, name="heart")
    registration = await registered(world.process())
    await registration.deregister()
    async with ServiceRegistry(world.process()).register(definition(), checks=[heart]) as registration:
        assert registration.status is ExtensionStatus.STARTING
        assert [endpoint.status for endpoint in view.endpoints] == [ExtensionStatus.STARTING]
        heart.ok()
        await until(lambda: [endpoint.status for endpoint in view.endpoints] == [HEALTHY], 1)
        assert registration.health["heart"].reason
        await registration.set_status(DEGRADED)
        assert registration.status is DEGRADED
        await registration.update(weight=1)
        await asyncio.sleep(6)
        assert [endpoint.status for endpoint in view.endpoints] == [ExtensionStatus.UNHEALTHY]
        await registration.set_status(HEALTHY)
        assert registration.status is ExtensionStatus.UNHEALTHY
        leaving = asyncio.ensure_future(registration.deregister())
        await asyncio.sleep(0)
        heart.ok()
        await leaving
    await until(lambda: not view, 0.1)
    assert registration.status is STOPPING


async def test_several_services_and_instances_share_one_session_and_one_watch_for_each_service(world: World) -> None:
    client = world.process()
    registry = ServiceRegistry(client)
    for number in range(5):
        await registry.register(definition(number))
        await registry.register(definition(number, name="knn"))
    views = [await registry.view("geo") for _ in range(3)] + [await ServiceRegistry(client).view("geo")]
    assert [len(view) for view in views] == [5] * 4
    assert len({item.lease for item in world.store.scan("ns/svc/").items.values()}) == 1
    assert client.backend.watching["ns/svc/geo/"] == client.backend.watching["ns/svc/knn/"] == 1
    assert sum(1 for target in client.backend.watching if "/svc/" in target) == 2


async def test_the_last_who_looks_at_a_service_ends_its_watch(world: World) -> None:
    client = world.process()
    registry = ServiceRegistry(client)
    view, registration = await registry.view("geo"), await registry.register(definition())
    await registration.deregister()
    assert client.backend.watching["ns/svc/geo/"] == 1
    await view.aclose()
    await until(lambda: not client.backend.watching["ns/svc/geo/"], 1)
    for closed in (view, registry.view("geo")):
        with pytest.raises(ClosedError):
            await closed.until(lambda _: True)
    await view.aclose()
    with pytest.raises(ClosedError):
        view.start()
    async with registry.view("geo") as again:
        assert again.endpoints == ()


HOSTILE = ["..", "//", "a b", "é", "x:y", "a,b", "%2F", "geo/../../agent/leave", "=2E", "a\nb", "\0"]


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_names_are_only_text(world: World, name: str) -> None:
    client = world.process()
    registry = ServiceRegistry(client)
    view = await registry.view(name)
    registration = await registry.register(definition(name=name, extension_id=name))
    assert [endpoint.extension_id for endpoint in await registry.get_endpoints(name)] == [name]
    delete_records(world)
    await until(lambda: list(view) == [name] and world.keys("svc/"))
    await registration.deregister()
    assert world.keys("svc/") == []


# It comes back


async def test_a_record_that_an_operator_deleted_comes_back(world: World) -> None:
    registration = await registered(world.process())
    await registration.update(weight=3)
    delete_records(world)
    await until(lambda: world.keys("svc/"), 1)
    await registration.wait_registered(1)
    (endpoint,) = await ServiceRegistry(world.process()).get_endpoints("geo")
    assert endpoint.weight == 3


async def test_after_the_loss_of_its_lease_the_latest_record_stands_again(world: World) -> None:
    client = world.process()
    registration = await registered(client)
    world.store.faults.end_lease(await lease_of(client))
    await registration.update(weight=3)
    await registration.wait_registered(2)
    (endpoint,) = await ServiceRegistry(world.process()).get_endpoints("geo")
    assert endpoint.weight == 3


@pytest.mark.parametrize("seconds", [4, 60])
async def test_what_changed_during_an_outage_is_published_after_it_and_old_data_never(
    world: World, seconds: float
) -> None:
    view = await viewed(world.process(), protection=0)
    client = world.process()
    registration = await registered(client, weight=1)
    weights = [1]
    view.add_listener(lambda event: weights.append(event.new.weight) if getattr(event, "new", None) else None)
    client.backend.faults.outage()
    await registration.update(weight=2)
    await asyncio.sleep(seconds)
    await registration.update(weight=3)
    client.backend.faults.clear()
    await registration.wait_registered(10)
    await asyncio.sleep(5)
    assert weights == sorted(weights)
    assert view.endpoints == (found(weight=3),)


async def test_registering_while_the_store_is_away_waits_a_while_and_then_goes_on_by_itself(world: World) -> None:
    client = world.process()
    client.backend.faults.outage()
    registration = await registered(client)
    assert not registration.registered
    with pytest.raises(TimedOutError, match=r"not registered within 7 s: .*not available"):
        await registration.wait_registered(7)
    client.backend.faults.clear()
    await registration.wait_registered(10)


async def test_of_two_processes_with_one_id_the_later_counts_at_once_and_the_earlier_withdraws(world: World) -> None:
    view = await viewed(world.process())
    first = await registered(world.process(), weight=1)
    second = await registered(world.process(), weight=2)
    await until(lambda: view.endpoints == (found(weight=2),), 0.2)
    await until(lambda: first.superseded, 1)
    with pytest.raises(DiscoveryError, match="anew"):
        await first.update(weight=5)
    with pytest.raises(DiscoveryError, match="anew"):
        await first.wait_registered(1)
    await until(lambda: len(world.keys("svc/")) == 1)
    await first.deregister()
    assert second.registered
    assert view.endpoints == (found(weight=2),)


async def test_a_restarted_process_takes_the_place_of_its_dead_predecessor_at_once(world: World) -> None:
    """Both have the same address, and so the same id."""
    view = await viewed(world.process())
    dead = world.process()
    await registered(dead, version="1")
    world.kill(dead)
    await registered(world.process(), version="2")
    await until(lambda: view.endpoints == (found(version="2"),), 0.2)
    await asyncio.sleep(3 * world.ttl)
    assert view.endpoints == (found(version="2"),)
    assert not view.protecting
