"""Keys, versions and reads: rules K, S1 and S2."""

from __future__ import annotations

import asyncio

from osdisco.backend import ABSENT
from osdisco.names import escape
from osdisco.testing.conformance._follow import differences
from osdisco.testing.conformance._harness import Harness, Peer

HOSTILE = [
    "..",
    ".",
    "...",
    "a/b",
    "//",
    "/",
    "a b",
    "é",
    "e\u0301",
    "日本",
    "x:y",
    "a,b",
    "%2F",
    "%2f",
    "a%00b",
    "=2E",
]
HOSTILE += ["?dc=x", "#", "a&b", "A", "a", "~", "*", "\\", "\x00", "\n", '"', "'", "a+b", "+", "job/../../agent/leave"]


class KeyValueRules:
    """Rules K, S1 and S2."""

    async def test_k1_hostile_names_stay_distinct_keys(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            values = {escape(name): name.encode() for name in HOSTILE}
            for key, value in values.items():
                await peer.put(f"{key}/{key}", value, ABSENT)
            for key, value in values.items():
                assert (await peer.item(f"{key}/{key}")).value == value
                assert [item.value for item in (await peer.scan(f"{key}/")).values()] == [value]
            assert {name: item.value for name, item in (await peer.scan()).items()} == {
                f"{key}/{key}": value for key, value in values.items()
            }

    async def test_k2_a_scan_takes_what_is_under_its_prefix_and_nothing_beside(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            for name in ("p", "p/a", "p/b/c", "p-q/a", "p=2F", "p0/a", "pp/a", "o/a", "q"):
                await peer.put(name)
            assert sorted(await peer.scan("p/")) == ["p/a", "p/b/c"]
            assert sorted(await peer.scan("p/b/")) == ["p/b/c"]
            assert await peer.scan("p/a/") == {}

    async def test_k2_a_key_that_is_also_a_prefix_is_watched_alone(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            async with peer.follow("p") as key, peer.follow("p/") as prefix:
                await key.ready()
                await prefix.ready()
                for name in ("p/a", "pq", "p-", "p", "p/b"):
                    await peer.put(name)
                await key.until(lambda items: list(items) == ["p"], "the key alone")
                await prefix.until(lambda items: sorted(items) == ["p/a", "p/b"], "what is under the prefix")
            async with peer.follow("p") as key, peer.follow("p/") as prefix:
                await key.until(lambda items: list(items) == ["p"], "the key alone, at first")
                await prefix.until(lambda items: sorted(items) == ["p/a", "p/b"], "what is under the prefix, at first")

    async def test_s1_1_every_change_raises_the_revision_above_all_earlier_ones(self, harness: Harness) -> None:
        async with harness:
            peer, other = await harness.peer(), await harness.peer()
            revisions = []
            for n in range(5):
                revisions.append(await peer.put("a", b"%d" % n))
                revisions.append(await other.put(f"b{n}"))
                await peer.delete(f"b{n}")
            assert revisions == sorted(set(revisions))
            assert (await other.item("a")).revision == revisions[-2]

    async def test_s1_1_one_commit_gives_all_its_keys_one_revision(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            answer = await peer.commit({"a": b"1", "b": b"1", "c/d": b"1"})
            found = await peer.scan()
            assert answer == {name: item.revision for name, item in found.items()}
            assert len(set(answer.values())) == 1
            assert {(item.created, item.revision) for item in found.values()} == {(answer["a"], answer["a"])}

    async def test_s1_1_created_stays_until_deletion_and_recreation_raises_it(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            first = await peer.put("a", b"1")
            second = await peer.put("a", b"2")
            item = await peer.item("a")
            assert (item.created, item.revision) == (first, second)
            await peer.delete("a")
            third = await peer.put("a", b"1")
            item = await peer.item("a")
            assert item.created == item.revision == third > second

    async def test_s1_2_an_identical_put_succeeds_and_tells_the_revision_that_stands(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            first = await peer.put("a", b"same")
            again = await peer.put("a", b"same")
            item = await peer.item("a")
            assert again == item.revision >= first == item.created

    async def test_s2_1_get_returns_the_bytes_that_were_put(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            for value in (b"", b"\0", bytes(range(256)), b"\xff\xfe", "é".encode(), b'{"a": 1}', b"x" * 10_000):
                revision = await peer.put("a", value)
                item = await peer.item("a")
                assert (item.key, item.value, item.revision, item.lease) == (peer.key("a"), value, revision, None)
                assert (await peer.scan())["a"] == item

    async def test_s2_1_what_is_not_there_is_none_and_an_empty_snapshot(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            assert await peer.get("a") is None
            assert await peer.scan() == {}
            await peer.put("a")
            await peer.delete("a")
            assert await peer.get("a") is None
            assert await peer.scan() == {}

    async def test_s2_1_a_read_sees_every_write_that_was_acknowledged_before(self, harness: Harness) -> None:
        async with harness:
            writer, reader = await harness.peer(), await harness.peer()
            for n in range(20):
                revision = await writer.put("a", b"%d" % n)
                item = await reader.item("a")
                assert (item.value, item.revision) == (b"%d" % n, revision)
                assert await reader.scan() == {"a": item}
                if n % 4 == 3:
                    await writer.delete("a")
                    assert await reader.get("a") is None
                    assert await reader.scan() == {}

    async def test_s2_1_a_scan_never_shows_half_a_commit(self, harness: Harness) -> None:
        async with harness:
            writer, reader = await harness.peer(), await harness.peer()
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(_write_in_step(writer, 30))
                while not writing.done():
                    values = {item.value for item in (await reader.scan()).values()}
                    assert len(values) <= 1, f"a scan shows {values}, which were never there together"

    async def test_s2_1_a_scan_is_whole_however_much_there_is(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            names = [f"n{n:04}" for n in range(600)]
            size = min(peer.backend.limits.ops_max, 50)
            for start in range(0, len(names), size):
                await peer.commit({name: name.encode() * 20 for name in names[start : start + size]})
            found = await peer.scan()
            assert {name: item.value for name, item in found.items()} == {name: name.encode() * 20 for name in names}
            for name in names[::150]:
                assert await peer.get(name) == found[name], differences(found, {name: await peer.item(name)})

    async def test_s2_2_a_snapshots_revision_is_not_before_what_it_holds(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            for name in ("a", "b", "c"):
                written = await peer.put(name)
                snapshot = await peer.backend.scan(harness.root, timeout=harness.timeout)
                assert snapshot.revision >= written
                assert all(item.revision <= snapshot.revision for item in snapshot.items.values())

    async def test_e1_no_repr_shows_a_value(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            await peer.put("a", b"hunter2")
            shown = f"{await peer.get('a')!r} {await peer.scan()!r} {peer.backend!r}"
            assert "hunter2" not in shown


async def _write_in_step(peer: Peer, times: int) -> None:
    for n in range(times):
        if n % 5 == 4:
            await peer.delete("x", "y/z", "w")
        else:
            await peer.commit({"x": b"%d" % n, "y/z": b"%d" % n, "w": b"%d" % n})
