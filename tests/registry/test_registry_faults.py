"""The registry when the store is away, when many vanish at once, and when others write badly into it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from services import Diary, definition, found, registered, shown, viewed
from worlds import Suspensions, World, lease_of, until

from osdisco._records import encode
from osdisco.backend import Delete, Put
from osdisco.client import Client
from osdisco.discovery import ExtensionStatus, ViewFresh, ViewStale
from osdisco.errors import DeniedError, OsdiscoError, UnavailableError
from osdisco.registry import ServiceRegistry
from osdisco.registry.record import Record
from osdisco.testing import run

WINDOW = 20.0
"""Two ttls of the world's clients."""


async def fleet(world: World, size: int) -> list[Client]:
    """Let as many processes register, each with one instance."""
    clients = [world.process() for _ in range(size)]
    for number, client in enumerate(clients):
        await registered(client, number)
    return clients


def kill(world: World, clients: list[Client]) -> None:
    """Kill processes, and end their leases in one moment, as a store does that was away for long."""
    for client in clients:
        world.kill(client)
        session = client._sessions._shared
        assert session is not None
        world.store.faults.end_lease(session.id)


# The store is away


async def test_a_view_keeps_what_it_knows_while_the_store_is_away_and_says_so(world: World) -> None:
    viewer = world.process()
    view = await viewed(viewer)
    diary = Diary(view)
    await registered(world.process())
    await until(lambda: view)
    before = view.endpoints
    assert not view.stale
    viewer.backend.faults.outage()
    await asyncio.sleep(100)
    assert view.endpoints is before
    assert view.stale
    assert isinstance(view.error, UnavailableError)
    assert 99 < view.age < 101
    with pytest.raises(OsdiscoError):
        await ServiceRegistry(viewer).get_endpoints("geo")
    told: list[object] = []
    view.add_listener(told.append)
    viewer.backend.faults.clear()
    await until(lambda: told and isinstance(told[-1], ViewFresh), 10)
    assert 104 < told[-1].lasted < 112  # type: ignore[attr-defined]
    assert isinstance(told[1], ViewStale)
    assert 104 < told[1].age < 107
    assert "not available" in told[1].reason
    assert diary.lines == ["added 10.0.0.7:9700 healthy", "stale", "fresh"]
    assert not view.stale
    assert view.error is None


async def test_who_begins_to_look_in_an_outage_is_told_so(world: World) -> None:
    viewer = world.process()
    registry = ServiceRegistry(viewer)
    await registered(world.process())
    view = await registry.view("geo")
    viewer.backend.faults.outage()
    await until(lambda: view.stale)
    async with registry.watch("geo") as events:
        assert [shown(await anext(events)) for _ in range(2)] == ["added 10.0.0.7:9700 healthy", "stale"]
        viewer.backend.faults.clear()
        assert shown(await anext(events)) == "fresh"


async def test_a_silent_store_is_told_as_stale_too(world: World) -> None:
    """The watch stands, and nothing comes: no error tells of it."""
    viewer = world.process()
    view = await viewed(viewer)
    diary = Diary(view)
    viewer.backend.faults.freeze()
    await until(lambda: diary.lines == ["stale"], 40)
    viewer.backend.faults.clear()
    await until(lambda: diary.lines == ["stale", "fresh"], 40)


async def test_what_went_and_came_during_an_outage_is_told_after_it(world: World) -> None:
    viewer = world.process()
    view = await viewed(viewer)
    leaving = await registered(world.process(), 1)
    await registered(world.process(), 2)
    await until(lambda: len(view) == 2)
    diary = Diary(view)
    viewer.backend.faults.outage()
    await asyncio.sleep(5)
    await leaving.deregister()
    world.store.faults.compact()
    await registered(world.process(), 3)
    viewer.backend.faults.clear()
    await until(lambda: len(diary.lines) == 6, 10)
    assert diary.lines[2:] == [
        "stale",
        "fresh",
        "removed 10.0.0.1:9700 healthy",
        "added 10.0.0.3:9700 healthy",
    ]


async def test_a_view_that_starts_without_the_store_says_why_it_does_not_open(world: World) -> None:
    client = world.process()
    client.backend.faults.outage()
    registry = ServiceRegistry(client)
    with pytest.raises(UnavailableError, match="not available"):
        await registry.view("geo")
    view = registry.view("geo")
    view.start()
    assert view.stale
    assert not view.known
    client.backend.faults.clear()
    await view.until(lambda _: view.known, timeout=20)
    assert not view.stale


async def test_lost_permission_takes_nothing_away_and_ends_iterators(world: World) -> None:
    viewer = world.process()
    registry = ServiceRegistry(viewer)
    view = await registry.view("geo")
    diary = Diary(view)
    await registered(world.process())
    await until(lambda: view)
    async with registry.watch("geo") as events:
        assert (await anext(events)).new == found()
        viewer.backend.faults.deny("watch")
        assert isinstance(await anext(events), ViewStale)
        with pytest.raises(DeniedError):
            await anext(events)
    assert view.endpoints == (found(),)
    assert view.stale
    with pytest.raises(DeniedError):
        await registry.view("knn")
    viewer.backend.faults.clear()
    await registered(world.process(), 8)
    await until(lambda: diary.lines[1:] == ["stale", "fresh", "added 10.0.0.8:9700 healthy"], 10)


# Panic


async def test_the_share_of_those_that_vanish_at_once_is_shown_for_a_window(world: World) -> None:
    view = await viewed(world.process())
    clients = await fleet(world, 10)
    await until(lambda: len(view) == 10)
    diary = Diary(view)
    kill(world, clients[:9])
    began = world.clock.now()
    await until(lambda: view.protecting)
    assert len(view) == len(view.endpoints) == 5
    assert len(view.protected) == 4
    assert set(view.protected) < set(view)
    assert await ServiceRegistry(world.process()).get_endpoints("geo") == [found(9)]
    await asyncio.sleep(WINDOW - 1)
    assert len(view) == 5
    await view.until(lambda endpoints: len(endpoints) == 1, timeout=2)
    assert world.clock.now() - began == pytest.approx(WINDOW, abs=0.5)
    assert not view.protecting
    assert view.endpoints == (found(9),)
    await until(lambda: diary.lines[-1] == "protection over")
    told = [line.partition(" ")[0] for line in diary.lines]
    assert told == ["added"] * 10 + ["removed"] * 5 + ["protecting"] + ["removed"] * 4 + ["protection"]


async def test_those_that_return_are_not_seen_to_go(world: World) -> None:
    """As after a store that was restored from a backup: all leases are gone, and all come back."""
    view = await viewed(world.process(), protection=1.0)
    clients = await fleet(world, 10)
    await until(lambda: len(view) == 10)
    diary = Diary(view)
    for client in clients:
        world.store.faults.end_lease(await lease_of(client))
    await asyncio.sleep(2 * WINDOW)
    assert len(await ServiceRegistry(world.process()).get_endpoints("geo")) == 10
    assert [line for line in diary.lines if line.startswith(("removed", "changed"))] == []
    assert diary.lines[10:] == ["protecting", "protection over"]


async def test_who_leaves_as_it_should_is_never_protected(world: World) -> None:
    view = await viewed(world.process(), protection=1.0)
    registrations = [await registered(world.process(), number) for number in range(10)]
    await until(lambda: len(view) == 10)
    diary = Diary(view)
    await asyncio.gather(*(registration.deregister() for registration in registrations))
    await until(lambda: not view, 1)
    assert "protecting" not in diary.lines


async def test_protection_that_is_turned_off_shows_the_store(world: World) -> None:
    client = world.process()
    views = [await viewed(client, protection=0), await ServiceRegistry(client, protection=0).view("geo")]
    clients = await fleet(world, 10)
    kill(world, clients)
    await asyncio.sleep(0.1)
    assert [len(view) for view in views] == [0, 0]
    assert not any(view.protecting for view in views)


async def test_a_view_that_starts_in_a_panic_shows_what_is_there(world: World) -> None:
    clients = await fleet(world, 10)
    kill(world, clients[:9])
    view = await viewed(world.process())
    assert view.endpoints == (found(9),)
    assert not view.protecting


async def test_what_is_held_is_not_let_go_while_the_store_is_away(world: World) -> None:
    """Nobody could see whether they came back."""
    viewer = world.process()
    view = await viewed(viewer)
    clients = await fleet(world, 4)
    await until(lambda: len(view) == 4)
    kill(world, clients)
    await until(lambda: view.protecting)
    await asyncio.sleep(5)
    viewer.backend.faults.outage()
    await asyncio.sleep(10 * WINDOW)
    assert len(view) == 2
    assert view.stale
    viewer.backend.faults.clear()
    await until(lambda: not view.stale, 10)
    await asyncio.sleep(WINDOW - 10)
    assert len(view) == 2
    await view.until(lambda endpoints: not endpoints, timeout=10)
    assert not view.protecting


async def test_what_came_back_during_an_outage_ends_the_protection_after_it(world: World) -> None:
    viewer = world.process()
    view = await viewed(viewer)
    clients = await fleet(world, 4)
    await until(lambda: len(view) == 4)
    kill(world, clients)
    await until(lambda: view.protecting)
    viewer.backend.faults.outage()
    await asyncio.sleep(2 * WINDOW)
    for number in range(4):
        await registered(world.process(), number, version="3")
    viewer.backend.faults.clear()
    await until(lambda: not view.protecting, 10)
    assert {endpoint.version for endpoint in view.endpoints} == {"3"}
    assert len(view) == 4


async def test_a_closed_view_stays_as_it_was(world: World) -> None:
    client = world.process()
    kept = await viewed(client)
    view = await ServiceRegistry(client).view("geo")
    clients = await fleet(world, 4)
    kill(world, clients)
    await until(lambda: view.protecting)
    await view.aclose()
    await asyncio.sleep(2 * WINDOW)
    assert len(view) == len(view.endpoints) == 2
    assert view.stale
    assert kept.endpoints == ()


async def test_a_watch_tells_who_is_there_and_then_what_happens(world: World) -> None:
    registry = ServiceRegistry(world.process())
    registration = await registered(world.process(), 1)
    lines: list[str] = []
    async with registry.watch("geo", protection=1.0, protection_window=3) as events:
        reading = asyncio.ensure_future(read(events, lines))
        await asyncio.sleep(0.1)
        assert lines == ["added 10.0.0.1:9700 healthy"]
        await registration.set_status(ExtensionStatus.DEGRADED)
        (client,) = await fleet(world, 1)
        kill(world, [client])
        await asyncio.sleep(4)
    await reading
    assert lines[1:] == [
        "changed 10.0.0.1:9700 degraded",
        "added 10.0.0.0:9700 healthy",
        "protecting",
        "removed 10.0.0.0:9700 healthy",
        "protection over",
    ]
    assert not registry._client.backend.watching["ns/svc/geo/"]


async def read(events: Any, lines: list[str]) -> None:
    async for event in events:
        lines.append(shown(event))


# Other writers

GOOD = encode(Record(found(), 0)).decode()

BAD = {
    "empty": b"",
    "not json": b"{",
    "a list": b"[]",
    "nothing in it": b"{}",
    "not utf-8": b"\xff\xfe",
    "deep": b"[" * 10_000,
    "huge": b'{"x": "' + b"x" * 70_000 + b'"}',
    "lone surrogate": GOOD.replace('"2.1.0"', '"\\ud800"').encode(),
    "NaN": GOOD.replace("100", "NaN").encode(),
    "weight as text": GOOD.replace("100", '"100"').encode(),
    "weight as truth": GOOD.replace("100", "true").encode(),
    "weight out of range": GOOD.replace("100", "70000").encode(),
    "letters for metadata": GOOD.replace("{}", '"abc"').encode(),
    "numbers in metadata": GOOD.replace("{}", '{"a":1}').encode(),
    "address without a port": GOOD.replace('"address":"10.0.0.7:9700"', '"address":"10.0.0.7"').encode(),
    "address of a user": GOOD.replace('"address":"', '"address":"me@').encode(),
    "address that is none": GOOD.replace('"address":"10.0.0.7:9700"', '"address":null').encode(),
    "a file for a health check": GOOD.replace("null", '"file:///etc/passwd"', 1).encode(),
    "unknown status": GOOD.replace('"healthy"', '"fine"').encode(),
    "field twice": GOOD.replace('"weight"', '"zone":null,"weight"').encode(),
    "id of another": GOOD.replace('"extension_id":"10.0.0.7:9700"', '"extension_id":"other"').encode(),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_record_is_skipped_and_reported(world: World, name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert BAD[name] != GOOD.encode()
    view = await viewed(world.process(), protection=0)
    await registered(world.process(), 1)
    key = "svc/geo/10.0.0.7=3A9700/foreign"
    world.store.commit([Put(f"ns/{key}", BAD[name])], {})
    await until(lambda: view.skipped)
    assert view.endpoints == (found(1),)
    assert await ServiceRegistry(world.process()).get_endpoints("geo") == [found(1)]
    assert len(view.skipped) == 1
    assert "skipped the service endpoint at" in caplog.text
    world.store.commit([Put(f"ns/{key}", GOOD.encode())], {})
    await until(lambda: len(view) == 2 and not view.skipped)
    world.store.commit([Put(f"ns/{key}", BAD[name])], {})
    await until(lambda: len(view) == 1)
    world.store.commit([Delete(f"ns/{key}")], {})
    await until(lambda: not view.skipped)


async def test_a_newer_writer_with_more_fields_is_read_and_what_is_in_a_record_protects_nobody(world: World) -> None:
    view = await viewed(world.process())
    newer = GOOD.replace('"weight"', '"new":[1],"protected":true,"weight"').encode()
    world.store.commit([Put("ns/svc/geo/10.0.0.7=3A9700/other", newer)], {})
    await until(lambda: view.endpoints == (found(),))
    assert not view.protecting
    world.store.commit([Delete("ns/svc/geo/10.0.0.7=3A9700/other")], {})


def test_the_form_in_which_a_record_is_stored_stays() -> None:
    """Other languages and versions read it."""
    endpoint = found(metadata={"a": "é"}, zone="b", health_check_url="http://geo/")
    assert json.loads(encode(Record(endpoint, 7))) == {
        "endpoint": {
            "extension_id": "10.0.0.7:9700",
            "address": "10.0.0.7:9700",
            "metadata": {"a": "é"},
            "health_check_url": "http://geo/",
            "weight": 100,
            "zone": "b",
            "version": "2.1.0",
            "status": "healthy",
        },
        "incarnation": 7,
    }


# Cancellation


async def use(client: Client) -> None:
    registry = ServiceRegistry(client)
    async with registry.view("geo"), registry.register(definition()) as registration:
        await registration.update(weight=1)
        async with registry.watch("geo") as events:
            await anext(aiter(events))


def fine(client: Client) -> None:
    pass


def answers_lost(client: Client) -> None:
    client.backend.faults.drop_answer("commit", times=2, key="svc/")


def late(client: Client) -> None:
    client.backend.faults.late("commit", after=0.3, times=2, key="svc/")


@pytest.mark.parametrize("fault", [fine, answers_lost, late])
def test_cancelled_anywhere_it_leaves_nothing(fault: Callable[[Client], None]) -> None:
    async def main(first: int) -> bool:
        world = World()
        client = world.process()
        await client.shared_session()
        fault(client)
        suspensions = Suspensions(first)
        task = asyncio.ensure_future(suspensions.of(use(client)))
        await asyncio.wait([task])
        await asyncio.sleep(5)
        assert world.keys("svc/") == []
        assert client.backend.watching["ns/svc/geo/"] == 0
        await world.aclose()
        assert world.keys() == []
        return suspensions.count >= first

    for first in count(1):
        if not run(main(first)):
            break
    assert first > 4
