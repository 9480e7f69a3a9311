"""Watches as iterators, and changes: whatever is merged or missed, each is a true difference of two real states."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from random import Random

import pytest
from core_fakes import Spy, client_of, spied
from hypothesis import given, settings, strategies as st

from osdisco import ABSENT, Change, Client, Delete, Item, Put, Revision, Runtime
from osdisco._feed import merge
from osdisco.errors import ClosedError, ConflictError, DeniedError
from osdisco.testing import VirtualClock, run
from osdisco.view import QUEUE_MAX
from osdisco_memory import MemoryBackend, MemoryStore

State = dict[str, Item]


def apply(state: State, change: Change) -> None:
    """Apply a change to a state, and see that it is a true difference from it."""
    before = dict(state)
    for key in change.deletes.keys() & change.puts.keys():
        assert change.deletes[key].created != change.puts[key].created, "only a key made anew is deleted and put"
    for key, item in change.deletes.items():
        assert state.pop(key) == item, "a delete shows the item as it last was"
    for key, item in change.puts.items():
        was = state.get(key)
        assert was != item, "a put changes something"
        if was is not None:
            assert was.created == item.created, "a key made anew was deleted before"
            assert change.replaced[key] == was, "what was overwritten is told"
        state[key] = item
    assert change.replaced.keys() == {key for key in change.puts if key in before and key not in change.deletes}


def folded(changes: Iterable[Change]) -> State:
    state: State = {}
    for change in changes:
        apply(state, change)
    return state


# the iterator


async def test_the_first_change_holds_what_is_there_and_the_next_what_comes(client: Client) -> None:
    await client.put("c/a", b"1")
    async with client.watch("c/") as changes:
        first = await anext(changes)
        assert (list(first.puts), first.deletes, first.resync) == (["c/a"], {}, True)
        await client.put("c/a", b"2")
        second = await anext(changes)
        assert second.puts["c/a"].value == b"2"
        assert second.replaced["c/a"].value == b"1"
        assert not second.resync
        await client.delete("c/a")
        third = await anext(changes)
        assert (third.puts, third.deletes["c/a"].value) == ({}, b"2")


async def test_nothing_is_lost_between_the_entry_and_the_first_step(client: Client, clock: VirtualClock) -> None:
    async with client.watch() as changes:
        for number in range(10):
            await client.put(f"k{number}", b"")
        await clock.advance(1)
        state = State()
        while len(state) < 10:
            apply(state, await anext(changes))
    assert sorted(state) == [f"k{number}" for number in range(10)]


async def test_one_commit_is_one_change(client: Client) -> None:
    async with client.watch() as changes:
        await anext(changes)
        await client.commit([Put("a", b""), Put("b", b""), Put("c", b"")])
        assert sorted((await anext(changes)).puts) == ["a", "b", "c"]


async def test_a_watch_left_in_the_middle_is_closed(client: Client, spy: Spy) -> None:
    await client.put("a", b"")
    async with client.watch() as changes:
        async for _ in changes:
            break
    assert not spy.following
    assert [change async for change in changes] == []


async def test_who_waits_for_a_change_is_released_when_the_watch_is_left(client: Client) -> None:
    watch = client.watch()
    changes = await watch.__aenter__()
    await anext(changes)

    async def rest() -> list[Change]:
        return [change async for change in changes]

    waiting = asyncio.create_task(rest())
    await asyncio.sleep(1)
    await watch.__aexit__(None, None, None)
    assert await waiting == []


async def test_waiting_for_a_change_can_be_cancelled_and_taken_up_again(client: Client) -> None:
    async with client.watch() as changes:
        await anext(changes)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await anext(changes)
        await client.put("a", b"")
        assert list((await anext(changes)).puts) == ["a"]


async def test_lost_permission_ends_a_watch_with_its_error_and_without_deletes(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    await client.put("a", b"")
    async with client.watch() as changes, client.view() as view:
        await anext(changes)
        with store.faults.deny("watch"):
            with pytest.raises(DeniedError):
                await anext(changes)
            assert list(view) == ["a"]
        await client.put("a", b"2")
        await clock.advance(20)
        with pytest.raises(DeniedError):
            await anext(changes)
        assert view["a"].value == b"2"


async def test_an_outage_is_bridged(client: Client, store: MemoryStore, clock: VirtualClock) -> None:
    await client.commit([Put("a", b""), Put("b", b"")])
    async with client.watch() as changes:
        state = folded([await anext(changes)])
        with store.faults.outage("watch"):
            await clock.advance(30)
            await client.delete("a")
            store.faults.compact()
        change = await anext(changes)
        apply(state, change)
        assert change.resync
        assert (list(state), change.deletes["a"].key) == (["b"], "a")


async def test_a_reset_tells_only_what_differs(client: Client, store: MemoryStore, clock: VirtualClock) -> None:
    await client.put("a", b"")
    async with client.watch() as changes:
        await anext(changes)
        store.faults.resync()
        await clock.advance(1)
        await client.put("b", b"")
        assert list((await anext(changes)).puts) == ["b"]


async def test_a_closed_client_ends_its_watches(store: MemoryStore, clock: VirtualClock) -> None:
    client, _ = spied(store, clock)
    async with client.watch() as changes:
        await anext(changes)
        await client.aclose()
        for _ in range(2):
            with pytest.raises(ClosedError):
                await anext(changes)


# slow readers and polls


async def test_a_put_and_delete_between_polls_leave_no_torn_or_stale_state(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    store.faults.conflate = True
    await client.put("stays", b"")
    async with client.watch() as changes:
        state = folded([await anext(changes)])
        for op in (Put("ns/short", b""), Delete("ns/short"), Put("ns/last", b"")):
            store.commit([op], {})
        apply(state, await anext(changes))
        assert sorted(state) == ["last", "stays"]


async def test_a_key_deleted_and_made_anew_between_polls_is_a_delete_and_a_put(
    client: Client, store: MemoryStore
) -> None:
    store.faults.conflate = True
    await client.put("a", b"old")
    async with client.watch() as changes:
        await anext(changes)
        for op in (Delete("ns/a"), Put("ns/a", b"new")):
            store.commit([op], {})
        change = await anext(changes)
        assert (change.deletes["a"].value, change.puts["a"].value, change.replaced) == (b"old", b"new", {})


async def test_a_slow_reader_gets_the_latest_state_and_costs_bounded_memory(client: Client, spy: Spy) -> None:
    watch = client.watch()
    async with watch as changes:
        first = await anext(changes)
        for number in range(QUEUE_MAX * 3):
            await client.put(f"k{number % 50}", str(number).encode())
            if number % 100 == 99:
                await client.delete(f"k{number % 50}")
            assert len(watch._queue) <= QUEUE_MAX
        await asyncio.sleep(0.1)
        behind = len(watch._queue)
        state = folded([first, *[await anext(changes) for _ in range(behind)]])
    assert state == (await client.scan()).items


async def test_a_slow_reader_keeps_nobody_else_waiting(client: Client) -> None:
    async with client.watch(), client.view() as view:
        for number in range(QUEUE_MAX + 10):
            await client.put("k", str(number).encode())
        await asyncio.sleep(0.1)
        assert view["k"].value == str(QUEUE_MAX + 9).encode()


# changes are true differences, whatever happens


class Model:
    """Makes changes as a feed would: one store state after the other."""

    def __init__(self) -> None:
        self.items: State = {}
        self.revision = 0

    def step(self, ops: Iterable[tuple[str, str]]) -> Change | None:
        before, self.revision = dict(self.items), self.revision + 1
        for name, op in ops:
            was = self.items.pop(name, None)
            if op == "put":
                created = was.created if was else self.revision
                self.items[name] = Item(name, b"", created, self.revision)
            elif op == "anew":
                self.items[name] = Item(name, b"", self.revision, self.revision)
        return self._difference(before)

    def _difference(self, before: State) -> Change | None:
        puts = {k: v for k, v in self.items.items() if before.get(k) != v}
        deletes = {k: v for k, v in before.items() if k not in self.items or self.items[k].created != v.created}
        replaced = {k: before[k] for k in puts if k in before and k not in deletes}
        return Change(puts, deletes, self.revision, replaced=replaced) if puts or deletes else None


steps = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from(["put", "delete", "anew"]), min_size=1).map(dict.items),
    max_size=12,
)


@given(before=steps, between=steps)
def test_merged_changes_are_one_true_difference_that_folds_to_the_same(
    before: list[Iterable[tuple[str, str]]], between: list[Iterable[tuple[str, str]]]
) -> None:
    model = Model()
    for ops in before:
        model.step(ops)
    one_by_one, at_once = dict(model.items), dict(model.items)
    changes = [change for change in map(model.step, between) if change is not None]
    for change in changes:
        apply(one_by_one, change)
    assert one_by_one == model.items
    if changes:
        merged = merge(changes)
        apply(at_once, merged)
        assert at_once == model.items
        assert (merged.revision, merged.resync) == (changes[-1].revision, True)


@given(steps, st.integers(1, 5))
def test_merging_what_was_merged_is_merging_all(all_steps: list[Iterable[tuple[str, str]]], size: int) -> None:
    model = Model()
    changes = [change for change in map(model.step, all_steps) if change is not None]
    if not changes:
        return
    parts = [merge(changes[at : at + size]) for at in range(0, len(changes), size)]
    assert merge(parts) == merge(changes)


def test_what_came_and_went_between_leaves_nothing_in_a_merged_change() -> None:
    model = Model()
    changes = [model.step([("a", "put")]), model.step([("a", "put")]), model.step([("a", "delete")])]
    merged = merge(change for change in changes if change is not None)
    assert (merged.puts, merged.deletes, merged.replaced) == ({}, {}, {})


TROUBLES = ["conflate", "resync", "compact", "cut", "noop", "wait"]
actions = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abcd")),
        st.tuples(st.just("delete"), st.sampled_from("abcd")),
        st.tuples(st.just("swap"), st.sampled_from("abcd")),
        st.tuples(st.sampled_from(TROUBLES), st.just("")),
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(actions, st.integers(0, 1000))
def test_whatever_happens_to_the_watch_each_change_is_true_and_all_fold_to_the_store(
    actions: list[tuple[str, str]], seed: int
) -> None:
    clock = VirtualClock()

    async def main() -> None:
        store = MemoryStore(clock=clock)
        client = client_of(MemoryBackend(store, Runtime(clock=clock)), clock)
        seen, listened = list[Change](), list[Change]()
        async with client, client.view() as view, client.watch() as changes:
            view.add_listener(listened.append)
            for action, name in actions:
                await act(client, store, clock, action, name)
            store.faults.clear()
            await clock.advance(30)
            assert dict(view) == (await client.scan()).items
            while True:
                try:
                    async with asyncio.timeout(0.1):
                        seen.append(await anext(changes))
                except TimeoutError:
                    break
            assert folded(seen) == folded(listened) == dict(view)

    run(main(), seed=seed, clock=clock)


async def act(client: Client, store: MemoryStore, clock: VirtualClock, action: str, name: str) -> None:
    match action:
        case "put":
            await client.put(name, b"")
        case "delete":
            await client.delete(name)
        case "swap":
            await client.commit([Delete(name), Put(name + name, b"")])
        case "conflate":
            store.faults.conflate = not store.faults.conflate
        case "noop":
            store.faults.noop_identical = not store.faults.noop_identical
        case "resync":
            store.faults.resync()
        case "compact":
            store.faults.compact()
        case "cut":
            store.faults.outage("watch", times=1)
        case "wait":
            await clock.advance(Random(name).random())


async def test_conditions_of_what_was_read_hold_while_a_watch_follows(client: Client) -> None:
    async with client.watch() as changes:
        await anext(changes)
        await client.create("a", b"")
        item = (await anext(changes)).puts["a"]
        await client.commit([Delete("a")], expect={"a": item.unchanged, "b": ABSENT})
        with pytest.raises(ConflictError):
            await client.commit([Put("a", b"")], expect={"a": Revision(item.revision)})
