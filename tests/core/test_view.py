"""Views: the present state under a prefix, from one watch per target, as it was last known through every outage."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping

import pytest
from core_fakes import Scripted, Spy, client_of

from osdisco import Change, Client, Delete, Item, Put, View
from osdisco.errors import ClosedError, DeniedError, InvalidNameError, TimedOutError, UnavailableError
from osdisco.testing import VirtualClock
from osdisco_memory import MemoryStore


def values(items: Mapping[str, Item]) -> dict[str, bytes]:
    return {name: item.value for name, item in items.items()}


async def opened(view: Awaitable[View]) -> View:
    return await view


# what it shows


async def test_a_view_shows_what_is_there_and_what_comes(client: Client, clock: VirtualClock) -> None:
    await client.put("c/a", b"1")
    await client.put("other", b"x")
    async with client.view("c/") as view:
        assert values(view) == {"c/a": b"1"}
        await client.commit([Put("c/b", b"2"), Delete("c/a")])
        await client.put("c/b", b"3")
        await clock.advance(0.1)
        assert values(view) == {"c/b": b"3"}
        assert (len(view), list(view), "c/b" in view, view.get("c/a")) == (1, ["c/b"], True, None)
        assert view["c/b"] == await client.get("c/b")
        assert view.revision == (await client.scan()).revision
        assert repr(view) == "<View of ns/c/: 1 items, fresh>"


async def test_a_view_of_everything_and_a_view_of_a_deeper_client_name_keys_from_where_they_are(
    client: Client, clock: VirtualClock
) -> None:
    tenant = client.scoped("tenant 7")
    await tenant.put("a b/ü", b"1")
    async with client.view() as whole, tenant.view() as own, tenant.view("a b/") as part:
        assert list(whole) == ["tenant 7/a b/ü"]
        assert list(own) == list(part) == ["a b/ü"]


async def test_keys_of_foreign_writers_are_left_out(client: Client, store: MemoryStore, clock: VirtualClock) -> None:
    store.commit([Put("ns/a b", b""), Put("ns/a=2", b""), Put("ns/\udcff", b""), Put("ns/ok", b"")], {})
    async with client.view() as view:
        assert list(view) == ["ok"]
        assert list((await client.scan()).items) == ["ok"]
        store.commit([Delete("ns/a b"), Put("ns/c d", b"")], {})
        await clock.advance(0.1)
        assert list(view) == ["ok"]


async def test_a_view_is_a_mapping_that_cannot_be_written(client: Client) -> None:
    async with client.view() as view:
        assert isinstance(view, Mapping)
        with pytest.raises(TypeError):
            view["a"] = None  # type: ignore[index]


@pytest.mark.parametrize("prefix", ["c", "/", "a//"])
def test_a_prefix_that_is_none_is_refused_at_once(prefix: str) -> None:
    client = client_of(Scripted(), VirtualClock())
    for show in (client.view, client.watch):
        with pytest.raises(InvalidNameError):
            show(prefix)


# one watch


async def test_all_views_and_watches_of_a_target_share_one_watch(client: Client, spy: Spy, clock: VirtualClock) -> None:
    await client.put("c/a", b"1")
    views = [await client.view("c/") for _ in range(20)]
    async with client.watch("c/") as changes, client.scoped("c").view() as deeper:
        assert list((await anext(changes)).puts) == ["c/a"]
        assert list(deeper) == ["a"]
        assert spy.opened == ["ns/c/"]
        assert all(values(view) == {"c/a": b"1"} for view in views)
    for view in views:
        await view.aclose()
    assert not spy.following


async def test_who_comes_later_knows_at_once_what_is_known(client: Client, store: MemoryStore) -> None:
    await client.put("a", b"1")
    async with client.view():
        store.faults.freeze()
        async with client.view() as second:
            assert values(second) == {"a": b"1"}
    store.faults.thaw()


async def test_the_last_one_out_closes_the_watch_and_the_next_one_in_opens_another(client: Client, spy: Spy) -> None:
    first, second = await client.view("c/"), await client.view("c/")
    await first.aclose()
    assert spy.following == {"ns/c/": 1}
    await second.aclose()
    assert not spy.following
    async with client.view("c/"):
        assert spy.opened == ["ns/c/", "ns/c/"]


async def test_closing_twice_is_closing_once(client: Client, spy: Spy) -> None:
    first, second = await client.view(), await client.view()
    await first.aclose()
    await first.aclose()
    assert spy.following == {"ns/": 1}
    await second.aclose()


async def test_a_closed_view_stays_readable_and_stale(client: Client, clock: VirtualClock) -> None:
    await client.put("a", b"1")
    async with client.view() as view:
        pass
    await client.put("a", b"2")
    await clock.advance(1)
    assert values(view) == {"a": b"1"}
    assert view.stale
    assert view.known
    with pytest.raises(ClosedError):
        await view.until(lambda _: True)


async def test_a_view_that_is_opened_again_forgets_what_went_meanwhile(client: Client) -> None:
    await client.put("a", b"1")
    async with client.view() as view:
        pass
    await client.delete("a")
    await client.put("b", b"2")
    async with client.view(), view:
        assert values(view) == {"b": b"2"}
    async with view:
        assert values(view) == {"b": b"2"}


# staleness and outages


async def test_an_idle_view_is_fresh(client: Client, clock: VirtualClock) -> None:
    async with client.view() as view:
        for _ in range(100):
            await clock.advance(3)
            assert not view.stale
            assert view.age <= 10.1


async def test_a_view_is_fresh_as_soon_as_its_watch_goes_on_though_nothing_changed(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    await client.put("a", b"1")
    async with client.view() as view:
        with store.faults.outage("watch"):
            await clock.advance(60)
            assert view.stale
        await clock.advance(6)  # the longest pause before the watch is opened again
        assert not view.stale
        assert values(view) == {"a": b"1"}


async def test_an_outage_empties_nothing_and_says_how_old_it_is(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    await client.put("a", b"1")
    async with client.view() as view:
        await clock.advance(1)
        with store.faults.outage("watch"):
            await clock.advance(60)
            assert values(view) == {"a": b"1"}
            assert view.stale
            assert isinstance(view.error, UnavailableError)
            assert 60 <= view.age <= 61
            await client.put("a", b"2")
        await clock.advance(6)
        assert values(view) == {"a": b"2"}
        assert not view.stale
        assert view.error is None
        assert view.age < 6


async def test_a_store_that_says_nothing_makes_a_view_stale_within_the_silence(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    await client.put("a", b"1")
    async with client.view() as view:
        store.faults.freeze()
        await clock.advance(15.1)
        assert view.stale
        assert values(view) == {"a": b"1"}
        store.faults.thaw()
        await client.put("b", b"2")
        await clock.advance(6)
        assert not view.stale
        assert list(view) == ["a", "b"]


async def test_a_suspend_makes_a_view_stale_before_anything_ran(client: Client, clock: VirtualClock) -> None:
    async with client.view() as view:
        clock.jump(16)
        assert view.stale
        assert view.age >= 16


async def test_a_delete_missed_in_an_outage_is_seen_after_it(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    await client.commit([Put("a", b"1"), Put("b", b"2"), Put("c", b"3")])
    changes: list[Change] = []
    async with client.view() as view:
        view.add_listener(changes.append)
        with store.faults.outage("watch"):
            await clock.advance(1)
            await client.delete("a")
            await client.put("c", b"4")
            store.faults.compact()
        await clock.advance(6)
        assert values(view) == {"b": b"2", "c": b"4"}
    assert [(list(c.deletes), list(c.puts), list(c.replaced), c.resync) for c in changes] == [
        (["a"], ["c"], ["c"], True)
    ]


async def test_lost_permission_empties_no_view_and_is_over_when_it_comes_back(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    await client.put("a", b"1")
    changes: list[Change] = []
    async with client.view() as view:
        view.add_listener(changes.append)
        with store.faults.deny("watch"):
            await clock.advance(60)
            assert values(view) == {"a": b"1"}
            assert view.stale
            assert isinstance(view.error, DeniedError)
        await clock.advance(6 + 10)  # until it is opened again, and until the idle store says something
        assert not view.stale
    assert changes == []


async def test_a_view_that_was_started_without_the_store_is_empty_and_unknown_until_it_comes(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    await client.put("a", b"1")
    view = client.view()
    with store.faults.outage():
        view.start()
        view.start()
        await clock.advance(30)
        assert (view.known, len(view), view.stale, view.age, view.revision) == (False, 0, True, float("inf"), 0)
    await view.until(lambda items: "a" in items, timeout=6)
    assert view.known
    await view.aclose()


@pytest.mark.parametrize("fault", ["outage", "freeze"])
async def test_opening_a_view_without_the_store_ends_in_time_and_leaves_nothing(
    client: Client, store: MemoryStore, spy: Spy, clock: VirtualClock, fault: str
) -> None:
    getattr(store.faults, fault)()
    with pytest.raises(UnavailableError):
        await client.view()
    assert clock.now() == pytest.approx(5)
    assert not spy.following
    store.faults.clear()


async def test_opening_a_view_without_permission_ends_at_once(
    client: Client, store: MemoryStore, spy: Spy, clock: VirtualClock
) -> None:
    store.faults.deny("watch")
    with pytest.raises(DeniedError):
        await client.view()
    assert clock.now() < 0.1
    assert not spy.following


async def test_opening_a_view_cancelled_leaves_nothing(client: Client, store: MemoryStore, spy: Spy) -> None:
    store.faults.freeze()
    opening = asyncio.create_task(opened(client.view()))
    await asyncio.sleep(1)
    assert spy.following
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not spy.following
    store.faults.thaw()


# waiting


async def test_until_waits_for_a_state(client: Client, clock: VirtualClock) -> None:
    async with client.view("c/") as view:
        asyncio.get_running_loop().call_later(3, lambda: put_later(client, "c/a"))
        await view.until(lambda items: "c/a" in items, timeout=5)
        assert clock.now() == pytest.approx(3, abs=0.01)
        await view.until(lambda items: "c/a" in items, timeout=0)


PUTS: set[asyncio.Task[int]] = set()


def put_later(client: Client, name: str) -> None:
    task = asyncio.ensure_future(client.put(name, b""))
    PUTS.add(task)
    task.add_done_callback(PUTS.discard)


async def test_until_ends_with_its_timeout(client: Client, clock: VirtualClock) -> None:
    async with client.view("c/") as view:
        with pytest.raises(TimedOutError, match=r"nothing fitting came under ns/c/ within 2 s") as caught:
            await view.until(lambda _: False, timeout=2)
        assert isinstance(caught.value, TimeoutError)
        assert clock.now() == pytest.approx(2)


async def test_until_ends_when_the_view_is_closed(client: Client) -> None:
    view = await client.view()
    waiting = asyncio.create_task(view.until(lambda _: False))
    await asyncio.sleep(1)
    await view.aclose()
    with pytest.raises(ClosedError):
        await waiting


async def test_what_a_predicate_raises_is_its_own_callers_and_nobody_elses(client: Client, clock: VirtualClock) -> None:
    async with client.view() as view:
        good = asyncio.create_task(view.until(lambda items: "a" in items))
        with pytest.raises(ZeroDivisionError):
            await view.until(lambda _: 1 // 0)
        await client.put("a", b"")
        await good


# listeners


async def test_listeners_are_told_every_change_in_order_until_they_are_removed(
    client: Client, clock: VirtualClock
) -> None:
    told: list[str] = []
    async with client.view() as view:
        remove = view.add_listener(lambda change: told.append(f"one {list(change.puts)}"))
        view.add_listener(lambda change: told.append(f"two {list(change.puts)}"))
        await client.put("a", b"")
        await clock.advance(0.1)
        remove()
        remove()
        await client.put("b", b"")
        await clock.advance(0.1)
    assert told == ["one ['a']", "two ['a']", "two ['b']"]


async def test_a_listener_that_raises_harms_nobody(
    client: Client, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    def fail(change: Change) -> None:
        raise ZeroDivisionError(change.revision)

    async with client.view() as view, client.view() as other:
        view.add_listener(fail)
        view.add_listener(lambda change: told.extend(change.puts))
        waiting = asyncio.create_task(view.until(lambda items: "a" in items))
        await client.put("a", b"")
        await waiting
        assert list(view) == list(other) == ["a"]
        assert not view.stale
    assert told == ["a"]
    assert "ZeroDivisionError" in caplog.text


async def test_a_listener_may_look_at_the_view_and_remove_itself(client: Client, clock: VirtualClock) -> None:
    told: list[dict[str, bytes]] = []

    async with client.view() as view:

        def listener(change: Change) -> None:
            told.append(values(view))
            remove()

        remove = view.add_listener(listener)
        await client.put("a", b"1")
        await client.put("a", b"2")
        await clock.advance(0.1)
    assert told == [{"a": b"1"}]
