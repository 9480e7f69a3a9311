"""Feeds: whatever a watch does, its views converge, and what they tell are true differences."""

from __future__ import annotations

import asyncio
import logging

import pytest
from core_fakes import Scripted, Spy, client_of, spied

from osdisco import Batch, Change, Client, Item, Snapshot, View
from osdisco.errors import UnavailableError
from osdisco.testing import VirtualClock
from osdisco_memory import MemoryStore


def item(name: str, revision: int, created: int | None = None, value: bytes = b"") -> Item:
    return Item(f"ns/{name}", value, revision if created is None else created, revision)


def snapshot(revision: int, *items: Item) -> Snapshot:
    return Snapshot({item.key: item for item in items}, revision)


async def played(
    clock: VirtualClock, *scripts: list[Snapshot | Batch | BaseException]
) -> tuple[View, Scripted, list[Change]]:
    """Play scripts to a view, and return it with what its listener was told."""
    backend, told = Scripted(*scripts), list[Change]()
    async with client_of(backend, clock) as client:
        view = client.view()
        view.add_listener(told.append)
        view.start()
        await clock.advance(30)
    return view, backend, told


async def test_a_watch_that_ends_without_a_reason_is_opened_again_where_it_was(clock: VirtualClock) -> None:
    view, backend, _ = await played(clock, [snapshot(5, item("a", 5))], [Batch((item("b", 7),), (), 8)], [])
    assert list(view) == ["a", "b"]
    assert backend.resumed == [None, 5, 8, 8]


@pytest.mark.parametrize("strange", [KeyError("x"), OSError("x"), TimeoutError(), RecursionError(), ConnectionError()])
async def test_a_watch_that_fails_in_a_strange_way_is_logged_and_opened_again(
    clock: VirtualClock, strange: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    view, backend, _ = await played(
        clock, [snapshot(5, item("a", 5)), strange], [snapshot(6, item("a", 5), item("b", 6))]
    )
    assert list(view) == ["a", "b"]
    assert backend.resumed[:2] == [None, 5]
    assert type(strange).__name__ in caplog.text
    assert any(record.levelno == logging.ERROR for record in caplog.records)


async def test_a_watch_that_cannot_even_be_opened_is_opened_again(
    client: Client, spy: Spy, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, failures = spy.watch, [TypeError("strange")]

    def watch(target: str, *, after: int | None = None) -> object:
        if failures:
            raise failures.pop()
        return good(target, after=after)

    monkeypatch.setattr(spy, "watch", watch)
    async with client.view() as view:
        assert not view.stale


async def test_a_watch_that_keeps_failing_is_opened_more_and_more_rarely(
    client: Client, store: MemoryStore, spy: Spy
) -> None:
    store.faults.outage("watch")
    view = client.view()
    view.start()
    await asyncio.sleep(600)
    assert 100 <= len(spy.opened) <= 300
    await view.aclose()


async def test_a_watch_that_breaks_right_after_its_first_frame_is_no_busy_loop(clock: VirtualClock) -> None:
    scripts: list[list[Snapshot | Batch | BaseException]] = [[snapshot(5), UnavailableError("")] for _ in range(1000)]
    _, backend, _ = await played(clock, *scripts)
    assert len(backend.resumed) < 30


async def test_a_watch_that_lasted_is_opened_again_soon(
    client: Client, store: MemoryStore, spy: Spy, clock: VirtualClock
) -> None:
    async with client.view():
        for number in range(2, 12):
            await clock.advance(60)
            store.faults.outage("watch", times=1)
            await clock.advance(0.15)
            assert len(spy.opened) == number


async def test_frames_that_change_nothing_tell_nothing(clock: VirtualClock) -> None:
    first = snapshot(5, item("a", 5))
    _, _, told = await played(
        clock, [first, first, Batch((), (), 6), Batch((), ("ns/gone",), 7), snapshot(8, item("a", 5))]
    )
    assert [list(change.puts) for change in told] == [["a"]]


async def test_the_first_frame_is_told_even_when_nothing_is_there(clock: VirtualClock) -> None:
    view, _, told = await played(clock, [snapshot(5)])
    assert [(change.puts, change.deletes, change.resync) for change in told] == [({}, {}, True)]
    assert view.known


async def test_a_batch_deletes_first_and_then_puts(clock: VirtualClock) -> None:
    old, new = item("a", 5), item("a", 7)
    view, _, told = await played(clock, [snapshot(5, old), Batch((new,), (old.key,), 7)])
    assert view["a"].created == 7
    assert list(told[1].deletes) == list(told[1].puts) == ["a"]
    assert told[1].deletes["a"].created == 5
    assert told[1].replaced == {}


async def test_a_key_made_anew_without_a_delete_in_between_is_deleted_and_put(clock: VirtualClock) -> None:
    for frame in (Batch((item("a", 7),), (), 7), snapshot(7, item("a", 7))):
        _, _, told = await played(clock, [snapshot(5, item("a", 5)), frame])
        assert told[1].deletes["a"].created == 5
        assert told[1].puts["a"].created == 7


async def test_a_change_in_place_tells_what_it_replaced(clock: VirtualClock) -> None:
    for frame in (Batch((item("a", 7, 5),), (), 7), snapshot(7, item("a", 7, 5))):
        _, _, told = await played(clock, [snapshot(5, item("a", 5)), frame])
        assert told[1].deletes == {}
        assert told[1].replaced["a"].revision == 5
        assert told[1].puts["a"].revision == 7


async def test_a_lease_that_changes_without_a_revision_is_a_change(clock: VirtualClock) -> None:
    leased = Item("ns/a", b"", 5, 5, "lease")
    view, _, told = await played(clock, [snapshot(5, item("a", 5)), snapshot(6, leased)])
    assert view["a"].lease == "lease"
    assert len(told) == 2


async def test_a_put_that_is_delivered_twice_is_told_once(clock: VirtualClock) -> None:
    again = item("a", 7, 5)
    _, _, told = await played(clock, [snapshot(5, item("a", 5)), Batch((again,), (), 7)], [Batch((again,), (), 7)])
    assert len(told) == 2


async def test_only_a_change_of_the_whole_is_marked_as_a_resync(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    told: list[bool] = []
    async with client.view() as view:
        view.add_listener(lambda change: told.append(change.resync))
        await client.put("a", b"1")
        await clock.advance(0.1)
        store.faults.conflate = True
        await client.put("a", b"2")
        await clock.advance(0.1)
    assert told == [False, True]


async def test_a_named_view_without_changes_costs_nothing(client: Client, spy: Spy, clock: VirtualClock) -> None:
    async with client.view("empty/") as view:
        told: list[Change] = []
        view.add_listener(told.append)
        for number in range(50):
            await client.put(f"other/{number}", b"")
        await clock.advance(60)
        assert told == []
        assert spy.opened == ["ns/empty/"]


async def test_views_on_two_clients_are_two_watches(client: Client, store: MemoryStore, clock: VirtualClock) -> None:
    second, spy = spied(store, clock)
    async with second, client.view(), second.view():
        assert spy.opened == ["ns/"]
