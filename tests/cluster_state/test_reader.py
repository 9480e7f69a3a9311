"""The reader: what it fetches, and that nothing but a whole state that is not before the last one is ever shown."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from mirrors import EVERYTHING, HEAD, PREFIX, Mirrored, shown
from worlds import World, until

from osdisco.backend import Batch, Delete, Put, Snapshot
from osdisco.cluster import ClusterStateService, StateComponent
from osdisco.testing import Fault

NODES = StateComponent.NODES


async def test_slow_readers_see_whole_states_and_never_an_earlier_one(mirrored: Mirrored) -> None:
    """To read takes longer than the cluster takes to change; each state that is shown is held against the truth."""
    await mirrored.mirror()
    clients = [mirrored.world.process(timeout=60) for _ in range(3)]
    readers = [await mirrored.reader(*EVERYTHING, client=client) for client in clients]
    await mirrored.seen(*readers)
    for seconds, client in zip((0.3, 1.0, 2.5), clients, strict=True):
        client.backend.faults.delay("get", answer=seconds)  # type: ignore[attr-defined]
    for number in range(30):
        mirrored.cluster.create_index(f"new-{number}")
        mirrored.cluster.move_shard("logs", number % 2, f"n{1 + number % 3}")
        await asyncio.sleep(mirrored.world.random.uniform(0.5, 3))
    await mirrored.seen(*readers, seconds=60)


async def test_a_blob_that_was_collected_meanwhile_makes_it_look_for_a_newer_head(
    mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fetch takes longer than five changes, and most of what it is after is removed by then."""
    monkeypatch.setattr("osdisco.cluster._publisher.KEPT_SECONDS", 1.0)
    await mirrored.mirror()
    client = mirrored.world.process(timeout=60)
    reader = await mirrored.reader(*EVERYTHING, client=client)
    await mirrored.seen(reader)
    looks: list[object] = []
    look_again = reader._reader._look_again
    reader._reader._look_again = lambda item: looks.append(item) or look_again(item)  # type: ignore[func-returns-value]
    slow = client.backend.faults.delay("get", request=10.0, key="blob")  # type: ignore[attr-defined]
    for number in range(20):
        mirrored.cluster.create_index(f"new-{number}")
        await asyncio.sleep(2)
    slow.end()
    await mirrored.seen(reader, seconds=60)
    assert looks
    assert not reader.stale


async def test_large_fetches_do_not_begin_all_at_once(mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osdisco.cluster._reader.SPREAD_FROM", 100)
    await mirrored.mirror()
    readers = [await mirrored.reader(*EVERYTHING) for _ in range(20)]
    await mirrored.seen(*readers)
    at: dict[ClusterStateService, float] = {}
    for reader in readers:
        show = reader._reader._show
        reader._reader._show = lambda state, reader=reader, show=show: (  # type: ignore[misc]
            at.setdefault(reader, mirrored.world.clock.now()),
            show(state),
        )
    mirrored.cluster.create_index("new")
    await mirrored.seen(*readers)
    assert 0.2 < max(at.values()) - min(at.values()) <= 0.5


async def test_trouble_while_fetching_is_waited_out(mirrored: Mirrored) -> None:
    await mirrored.mirror()
    client = mirrored.world.process()
    reader = await mirrored.reader(NODES, client=client)
    await mirrored.seen(reader)
    away = client.backend.faults.outage("get")  # type: ignore[attr-defined]
    mirrored.cluster.join("n4")
    await until(lambda: "could not be fetched" in str(reader.stale_reason), 20)
    assert sorted(reader.state.nodes) == ["n1", "n2", "n3"]
    away.end()
    await mirrored.seen(reader)
    assert not reader.stale


Document = dict[str, Any]


def with_blob(head: Document, data: bytes, raw: int, sha: str) -> list[Put]:
    """Let the head name another blob for the nodes, and return what puts that."""
    head["components"]["nodes"] = {sha: [1, len(data), raw]}
    return [Put(f"{PREFIX}blob/nodes/{sha}/0", data)]


def sized(head: Document, *sizes: int | None) -> list[Put]:
    """The same with a good blob, whose pieces, size and size of text are told otherwise."""
    text = b'"n1"\t{"info":null,"state":{"name":"x"},"status":"online"}\n'
    data, sha = zlib.compress(text), sha256(text).hexdigest()
    puts = with_blob(head, data, len(text), sha)
    told = [one if other is None else other for one, other in zip((1, len(data), len(text)), sizes, strict=False)]
    head["components"]["nodes"][sha] = told
    return puts


def a_bomb(head: Document) -> list[Put]:
    text = b'"n1"\t{"state":{}}\n' + b" " * 10**7
    return with_blob(head, zlib.compress(text, 9), 1000, sha256(text).hexdigest())


def what_is_not_zlib(head: Document) -> list[Put]:
    return with_blob(head, b"no zlib", 7, sha256(b"no zlib").hexdigest())


def another_content(head: Document) -> list[Put]:
    return with_blob(head, zlib.compress(b'"n1"\t{"state":{}}\n'), 18, "0" * 64)


def a_malformed_pack(head: Document) -> list[Put]:
    text = b"{}\n"
    return with_blob(head, zlib.compress(text), len(text), sha256(text).hexdigest())


def a_wrong_type(head: Document) -> list[Put]:
    text = b'"n1"\t{"info":null,"state":{"name":7},"status":"online"}\n'
    return with_blob(head, zlib.compress(text), len(text), sha256(text).hexdigest())


Damage = Callable[[Document], "list[Put] | None"]

DAMAGES: list[tuple[str, Damage, str]] = [
    ("a missing blob", lambda head: head["components"]["nodes"].update({"1" * 64: [1, 10, 10]}), "is not there"),
    ("a piece too many", lambda head: sized(head, 2, None, None), "piece 1 of 2 is not there"),
    ("more text than it says", lambda head: sized(head, None, None, 10), "larger than the 10 bytes"),
    ("more bytes than it says", lambda head: sized(head, None, 5, None), "is larger than the 5 bytes"),
    ("less text than it says", lambda head: sized(head, None, None, 10**6), "of which its head says 1000000"),
    ("gigabytes", lambda head: sized(head, None, None, 10**12), "no blob is that"),
    ("pieces without end", lambda head: sized(head, 10**9, None, None), "no blob is that"),
    ("no pieces", lambda head: sized(head, 0, None, None), "no blob is that"),
    ("a negative size", lambda head: sized(head, None, -1, None), "no blob is that"),
    ("two sizes", lambda head: sized(head, None, None), "2 sizes"),
    ("no address", lambda head: head["components"]["nodes"].update({"../../x": [1, 2, 3]}), "not a sha256"),
    ("no component's name", lambda head: head["components"].update({"../x": {}}), "name of none"),
    ("a component too few", lambda head: head["components"].pop("nodes"), "the head has no nodes"),
    ("a zip bomb", a_bomb, "larger than the 1000 bytes"),
    ("no zlib", what_is_not_zlib, "zlib cannot expand"),
    ("another content", another_content, "not what its address says"),
    ("a malformed pack", a_malformed_pack, "pack"),
    ("a wrong type in a part", a_wrong_type, "nodes[n1].state.name must be text"),
    ("a text for a number", lambda head: head.update(version="7"), "version"),
    ("a version that none can follow", lambda head: head.update(version=2**63), "no cluster can have"),
    ("a term that none can follow", lambda head: head.update(term=10**400), "no cluster can have"),
    ("no uuid", lambda head: head.update(cluster_uuid=""), "without a cluster's uuid"),
    ("a field that is missing", lambda head: head.pop("state_uuid"), "'state_uuid' is missing"),
    ("a newer format", lambda head: head.update(format=2, components="other"), "format 2"),
    ("an earlier version", lambda head: head.update(version=1), "fell from version"),
    ("an earlier term", lambda head: head.update(term=0), "fell from version"),
]


@pytest.mark.parametrize(("damage", "reason"), [case[1:] for case in DAMAGES], ids=[case[0] for case in DAMAGES])
async def test_what_a_hostile_writer_shows_is_not_shown_and_the_last_good_state_stays(
    world: World, damage: Damage, reason: str
) -> None:
    mirrored = Mirrored(world, audited=False)
    mirror = await mirrored.mirror()
    reader = await mirrored.reader(NODES)
    await mirrored.seen(reader)
    before = reader.state
    head = json.loads(world.store.scan(PREFIX).items[HEAD].value)
    head |= {"seq": head["seq"] + 1, "version": head["version"] + 1}
    puts = damage(head)
    await mirror.stop()
    world.store.commit([*(puts if isinstance(puts, list) else ()), Put(HEAD, json.dumps(head).encode())], {})
    await until(lambda: reader.stale)
    assert reason in str(reader.stale_reason)
    assert reader.state is before
    assert shown(reader.state)


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"null", b"\xff", b'{"format":1}', b"{}" + b" " * 70_000])
async def test_a_head_that_is_no_head_is_written_over_by_the_next_mirror(world: World, value: bytes) -> None:
    mirrored = Mirrored(world, audited=False)
    world.store.commit([Put(HEAD, value)], {})
    reader = await mirrored.reader(NODES)
    await until(lambda: reader._reader.unusable is not None)
    await mirrored.mirror()
    await mirrored.seen(reader)
    assert not reader.stale


async def test_a_state_that_was_shown_stays_when_everything_is_removed(world: World) -> None:
    mirrored = Mirrored(world, audited=False)
    mirror = await mirrored.mirror()
    reader = await mirrored.reader(NODES)
    await mirrored.seen(reader)
    await mirror.stop()
    for key in list(world.store.scan(PREFIX).items):
        world.store.commit([Delete(key)], {})
    await until(lambda: "was removed" in str(reader.stale_reason))
    assert sorted(reader.state.nodes) == ["n1", "n2", "n3"]


async def test_a_cluster_that_is_away_takes_nothing_from_who_comes_later(mirrored: Mirrored) -> None:
    mirror = await mirrored.mirror()
    await mirrored.seen(mirror)
    mirrored.cluster.faults.add(Fault.CUT)
    late = await mirrored.reader(NODES)
    await mirrored.seen(late)
    await until(lambda: late.stale, 20)
    assert sorted(late.state.nodes) == ["n1", "n2", "n3"]


async def test_no_more_is_fetched_of_a_blob_than_its_head_says(world: World) -> None:
    """Given a thousand pieces, each as large as the store takes, the second one is too many already."""
    mirrored = Mirrored(world, audited=False)
    mirror = await mirrored.mirror()
    await mirrored.seen(mirror)
    await mirror.stop()
    head = json.loads(world.store.scan(PREFIX).items[HEAD].value)
    head |= {"version": head["version"] + 1}
    head["components"]["nodes"] = {"1" * 64: [1000, 1500, 10]}
    pieces = [Put(f"{PREFIX}blob/nodes/{'1' * 64}/{number}", bytes(1000)) for number in range(1000)]
    for put in [*pieces, Put(HEAD, json.dumps(head).encode())]:
        world.store.commit([put], {})
    client = world.process()
    reader = await mirrored.reader(NODES, client=client)
    await until(lambda: "is larger than the 1500 bytes" in str(reader.stale_reason))
    assert client.backend.calls["get"] <= 3  # type: ignore[attr-defined]


async def test_a_store_that_was_set_back_is_followed_from_there(mirrored: Mirrored) -> None:
    """Given a backup that was restored, revisions go back, and what is written next has one that was there already."""
    mirror = await mirrored.mirror()
    reader = await mirrored.reader(NODES)
    await mirrored.seen(reader)
    await mirror.stop()
    feed = reader._reader.follower._feed
    assert feed is not None
    item = feed.items[HEAD]
    feed._fold(Snapshot({HEAD: item._replace(revision=item.revision + 100)}, item.revision + 100))
    await until(lambda: reader._reader._done is not None and reader._reader._done[0] == item.revision + 100)
    feed._fold(Snapshot({HEAD: item}, item.revision))
    await until(lambda: reader._reader._done is not None and reader._reader._done[0] == item.revision)
    later = json.loads(item.value)
    later |= {"version": later["version"] + 1}
    written = json.dumps(later).encode()
    feed._fold(Batch([item._replace(value=written, revision=item.revision + 1)], [], item.revision + 1))
    await until(lambda: reader.state.version == later["version"])
