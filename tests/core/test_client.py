"""The client: keys and values by name, and bad input refused before it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from core_fakes import Spy, keys

from osdisco import ABSENT, Client, Condition, Delete, HeldBy, Item, Put, Revision, Runtime, connect
from osdisco.backend import Op
from osdisco.errors import (
    ConflictError,
    InvalidCommitError,
    InvalidNameError,
    LeaseExpiredError,
    LimitError,
    OsdiscoError,
)
from osdisco.testing import VirtualClock
from osdisco_memory import MemoryBackend, MemoryStore

# keys and values


async def test_what_was_put_is_read_under_its_name(client: Client) -> None:
    assert await client.get("config/limit") is None
    first = await client.put("config/limit", b"10")
    second = await client.put("config/limit", b"11")
    assert await client.get("config/limit") == Item("config/limit", b"11", first, second)
    assert second > first


async def test_names_go_into_the_store_escaped_and_under_the_namespace(client: Client, store: MemoryStore) -> None:
    names = ["job/../../agent/leave", "a b", "é", "x:y", "%2F", "=", "..", "a/b/c"]
    for name in names:
        await client.put(name, name.encode())
    assert all(key.startswith("ns/") for key in keys(store))
    assert {name: item.value for name, item in (await client.scan()).items.items()} == {
        name: name.encode() for name in names
    }
    assert [item.value for name in names if (item := await client.get(name))] == [name.encode() for name in names]


async def test_a_scan_is_of_whole_segments_and_shows_one_moment(client: Client) -> None:
    await client.commit([Put("c/a", b"1"), Put("c/b/x", b"2"), Put("cc", b"3"), Put("d", b"4")])
    snapshot = await client.scan("c/")
    assert list(snapshot.items) == ["c/a", "c/b/x"]
    assert snapshot.revision == snapshot.items["c/a"].revision
    assert len((await client.scan()).items) == 4
    assert (await client.scan("nothing/")).items == {}


async def test_create_writes_only_what_is_not_there(client: Client) -> None:
    revision = await client.create("a", b"1")
    with pytest.raises(ConflictError, match="the key 'a' exists already"):
        await client.create("a", b"2")
    assert await client.get("a") == Item("a", b"1", revision, revision)


async def test_of_many_who_create_one_wins(client: Client) -> None:
    results = await asyncio.gather(*(client.create("a", b"") for _ in range(10)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["ConflictError"] * 9 + ["int"]


async def test_delete_takes_away_what_is_there_or_nothing(client: Client) -> None:
    await client.put("a", b"")
    await client.delete("a")
    await client.delete("a")
    assert await client.get("a") is None


@pytest.mark.parametrize("condition", [Revision(1), HeldBy("nobody"), ABSENT])
async def test_delete_on_a_condition_that_does_not_hold_is_a_conflict(client: Client, condition: Condition) -> None:
    await client.put("z", b"")
    await client.put("a", b"")
    with pytest.raises(ConflictError):
        await client.delete("a", expect=condition)
    assert await client.get("a") is not None


async def test_delete_of_an_item_that_changed_or_went_is_a_conflict(client: Client) -> None:
    await client.put("a", b"1")
    item = await client.get("a")
    assert item is not None
    await client.put("a", b"2")
    with pytest.raises(ConflictError):
        await client.delete("a", expect=item)
    fresh = await client.get("a")
    await client.delete("a", expect=fresh)
    with pytest.raises(ConflictError):
        await client.delete("a", expect=fresh)


async def test_a_commit_applies_all_or_nothing_and_tells_the_revisions_of_its_puts(client: Client) -> None:
    await client.put("b", b"")
    item = await client.get("b")
    assert item is not None
    revisions = await client.commit(
        [Put("a", b"1"), Delete("b"), Put("c/d", b"")], expect={"a": ABSENT, "b": item.unchanged}
    )
    assert revisions.keys() == {"a", "c/d"}
    assert len(set(revisions.values())) == 1
    with pytest.raises(ConflictError):
        await client.commit([Put("x", b""), Delete("a")], expect={"b": Revision(1)})
    assert sorted((await client.scan()).items) == ["a", "c/d"]


async def test_update_writes_what_it_makes_of_the_old_value(client: Client) -> None:
    seen: list[bytes | None] = []

    def count(old: bytes | None) -> bytes:
        seen.append(old)
        return str(int(old or 0) + 1).encode()

    first = await client.update("n", count)
    second = await client.update("n", count)
    assert seen == [None, b"1"]
    assert await client.get("n") == Item("n", b"2", first, second)


async def test_updates_of_many_all_count(client: Client) -> None:
    await asyncio.gather(*(client.update("n", lambda old: str(int(old or 0) + 1).encode()) for _ in range(20)))
    item = await client.get("n")
    assert item is not None
    assert item.value == b"20"


async def test_an_update_that_fails_itself_writes_nothing(client: Client, spy: Spy) -> None:
    with pytest.raises(ZeroDivisionError):
        await client.update("n", lambda _: bytes(1 // 0))
    assert spy.count("commit") == 0


async def test_an_update_that_others_always_win_ends_in_time_as_a_conflict(
    client: Client, store: MemoryStore, clock: VirtualClock
) -> None:
    def beaten(old: bytes | None) -> bytes:
        store.commit([Put("ns/n", b"other")], {})
        return b"mine"

    with pytest.raises(ConflictError, match="others changed 'n' at every attempt"):
        await client.update("n", beaten, timeout=2)
    assert 1 <= clock.now() <= 2


async def test_a_scoped_client_is_deeper_on_the_same_connection(client: Client, spy: Spy) -> None:
    tenant = client.scoped("tenant 7").scoped("a/b")
    await tenant.put("k", b"1")
    assert await tenant.get("k") == Item("k", b"1", 1, 1)
    assert list((await client.scan("tenant 7/")).items) == ["tenant 7/a/b/k"]
    assert list((await tenant.scan()).items) == ["k"]
    assert tenant.backend is client.backend is spy
    assert repr(tenant).endswith("at 'ns/tenant=207/a/b/'>")


async def test_a_scoped_session_writes_where_its_client_is(client: Client) -> None:
    async with client.scoped("deeper").session() as session:
        await session.put("k", b"")
        assert await client.get("deeper/k") is not None


async def test_a_client_without_a_namespace_is_at_the_root(store: MemoryStore, clock: VirtualClock) -> None:
    runtime = Runtime(clock=clock)
    async with Client(MemoryBackend(store, runtime), runtime) as client:
        await client.put("a/b", b"")
        assert keys(store) == ["a/b"]


async def test_a_client_can_be_awaited_or_entered(client: Client) -> None:
    assert await client is client
    async with connect("memory://") as other:
        assert (await other.scan()).items == {}


async def test_inspect_tells_of_every_endpoint(client: Client, store: MemoryStore) -> None:
    (status,) = await client.inspect()
    assert status.error is None
    with store.faults.outage():
        (status,) = await client.inspect()
    assert status.error is not None


async def test_limits_are_those_of_the_store(client: Client, store: MemoryStore) -> None:
    assert client.limits == store.limits


# bad input


Use = Callable[[Client], Awaitable[object]]
TOO_LONG = "/".join(["a" * 200] * 3)
BAD_NAMES = ["", "/", "a/", "/a", "a//b", "a" * 256, "\ud800", TOO_LONG, "é" * 128, " " * 255]


@pytest.mark.parametrize("name", BAD_NAMES, ids=range(len(BAD_NAMES)))
async def test_a_name_that_no_store_can_hold_is_refused_before_it_is_sent(client: Client, spy: Spy, name: str) -> None:
    uses: list[Use] = [
        lambda c: c.get(name),
        lambda c: c.put(name, b""),
        lambda c: c.create(name, b""),
        lambda c: c.update(name, lambda _: b""),
        lambda c: c.delete(name),
        lambda c: c.commit([Put("ok", b""), Put(name, b"")]),
        lambda c: c.commit([Delete(name)]),
        lambda c: c.commit([Put("ok", b"")], expect={name: ABSENT}),
    ]
    for use in uses:
        with pytest.raises(InvalidNameError):
            await use(client)
    assert spy.sent == []


@pytest.mark.parametrize("prefix", ["a", "/", "a//", "\ud800/", TOO_LONG + "/", None, b"a/"])
async def test_a_prefix_that_is_none_is_refused_before_it_is_sent(client: Client, spy: Spy, prefix: Any) -> None:
    with pytest.raises(InvalidNameError):
        await client.scan(prefix)
    for show in (client.view, client.watch):
        with pytest.raises(InvalidNameError):
            show(prefix)
    assert not spy.sent
    assert not spy.opened


@pytest.mark.parametrize("value", ["text", None, 7, bytearray(b"x"), memoryview(b"x"), ["x"]])
async def test_a_value_that_is_not_bytes_is_refused_before_it_is_sent(client: Client, spy: Spy, value: Any) -> None:
    uses: list[Use] = [
        lambda c: c.put("k", value),
        lambda c: c.create("k", value),
        lambda c: c.commit([Put("k", value)]),
    ]
    for use in uses:
        with pytest.raises(InvalidCommitError, match=f"a value is bytes, not {type(value).__name__}; encode it first"):
            await use(client)
    assert spy.sent == []
    with pytest.raises(InvalidCommitError, match="a value is bytes"):
        await client.update("k", lambda _: value)
    assert spy.count("commit") == 0


BIG = b"x" * (256 * 1024)
BAD_COMMITS: list[tuple[list[Op], Mapping[str, Condition], type[OsdiscoError], str]] = [
    ([], {}, InvalidCommitError, "needs at least one Put or Delete"),
    ([], {"a": ABSENT}, InvalidCommitError, "needs at least one"),
    ([Put("a", b""), Put("a", b"")], {}, InvalidCommitError, "written twice"),
    ([Put("a", b""), Delete("a")], {}, InvalidCommitError, "written twice"),
    ([Put("a", b"", "lease")], {}, InvalidCommitError, "leased put"),
    ([Put("a", b"", "lease")], {"a": HeldBy("other")}, InvalidCommitError, "leased put"),
    ([Put("a", b"", "lease")], {"a": Revision(1)}, InvalidCommitError, "leased put"),
    ([Put("a", b"", "lease")], {"b": ABSENT}, InvalidCommitError, "leased put"),
    ([Put(f"k{n}", b"") for n in range(65)], {}, LimitError, "65 ops and 0 conditions"),
    ([Put(f"k{n}", b"") for n in range(40)], {f"k{n}": ABSENT for n in range(25)}, LimitError, "at most 64 together"),
    ([Put("a", BIG + b"x")], {}, LimitError, "262145 bytes of values"),
    ([Put("a", BIG), Put("b", b"x")], {}, LimitError, "262144 are allowed"),
]


@pytest.mark.parametrize(("ops", "expect", "error", "said"), BAD_COMMITS, ids=range(len(BAD_COMMITS)))
async def test_a_commit_that_no_store_should_get_is_refused_before_it_is_sent(
    client: Client, spy: Spy, ops: list[Op], expect: Mapping[str, Condition], error: type[OsdiscoError], said: str
) -> None:
    with pytest.raises(error, match=said):
        await client.commit(ops, expect)
    assert spy.sent == []


@pytest.mark.parametrize("condition", [None, 7, "absent", Item("a", b"", 1, 1), True, type(ABSENT)])
async def test_a_condition_that_is_none_is_refused_before_it_is_sent(client: Client, spy: Spy, condition: Any) -> None:
    with pytest.raises(InvalidCommitError, match="a condition is ABSENT, Revision"):
        await client.commit([Put("a", b"")], expect={"a": condition})
    if condition is not None and not isinstance(condition, Item):
        with pytest.raises(InvalidCommitError, match="a condition is ABSENT, Revision"):
            await client.delete("a", expect=condition)
    assert spy.sent == []


@pytest.mark.parametrize("op", [None, ("a", b""), "a", ABSENT])
async def test_an_op_that_is_none_is_refused_before_it_is_sent(client: Client, spy: Spy, op: Any) -> None:
    with pytest.raises(InvalidCommitError, match="an op is a Put or a Delete"):
        await client.commit([op])
    assert spy.sent == []


async def test_the_largest_that_is_allowed_passes(client: Client) -> None:
    await client.put("a", BIG)
    await client.commit([Put(f"k{n}", b"") for n in range(64)])
    await client.put("/".join(["a" * 200, "b" * 200, "c" * 107]), b"")


async def test_a_put_under_a_lease_that_is_gone_says_so(client: Client, store: MemoryStore) -> None:
    async with client.session() as session:
        store.faults.end_lease(session.id)
        with pytest.raises(LeaseExpiredError):
            await client.commit([Put("k", b"", session.id)], expect={"k": ABSENT})
    assert await client.get("k") is None
