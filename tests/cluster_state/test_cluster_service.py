"""The service, as its users see it: in virtual time, over a cluster on paper."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from math import inf
from typing import Any

import pytest
from mirrors import EVERYTHING, Mirrored, shown
from worlds import World, until

from osdisco.backend import WATCH_SILENCE
from osdisco.cluster import (
    ClusterChange,
    ClusterReplaced,
    ClusterState,
    ClusterStateEvent,
    ClusterStateService,
    NodeChanged,
    NodeJoined,
    NodeLeft,
    NodeStatus,
    ShardMoved,
    StateComponent,
)
from osdisco.cluster._gauges import gauges
from osdisco.cluster.listeners import BEHIND_MAX, SLICE
from osdisco.errors import ClosedError, ClusterError, ConfigError, TimedOutError
from osdisco.testing import FakeCluster, Fault

NODES, METADATA = StateComponent.NODES, StateComponent.METADATA
ROUTING, BLOCKS = StateComponent.ROUTING_TABLE, StateComponent.BLOCKS


async def test_a_reader_without_credentials_sees_what_the_mirror_sees(mirrored: Mirrored) -> None:
    await mirrored.mirror()
    reader = await mirrored.reader(*EVERYTHING)
    await mirrored.seen(reader)
    mirrored.cluster.join("n4", zone="a")
    mirrored.cluster.close_index("logs")
    await mirrored.seen(reader)
    assert sorted(reader.state.nodes) == ["n1", "n2", "n3", "n4"]
    assert reader.state.metadata.indices["logs"].closed
    assert reader.state.blocks.write_blocked("logs")
    assert not reader.stale
    assert reader.stale_reason is None


async def test_a_mirror_reads_what_it_wrote_as_all_others_do(mirrored: Mirrored) -> None:
    mirror = await mirrored.mirror(NODES)
    await mirrored.seen(mirror)
    assert sorted(mirror.state.nodes) == ["n1", "n2", "n3"]


async def test_starting_needs_neither_store_nor_cluster(mirrored: Mirrored) -> None:
    client = mirrored.world.process()
    away = client.backend.faults.outage()  # type: ignore[attr-defined]
    mirrored.cluster.faults.add(Fault.CUT, times=5)
    mirror = await mirrored.mirror(NODES, client=client)
    await asyncio.sleep(20)
    with pytest.raises(ClusterError, match="not known yet: the store is away"):
        mirror.state  # noqa: B018
    assert mirror.stale
    assert mirror.age == inf
    away.end()
    await mirrored.seen(mirror, seconds=60)


async def test_only_what_was_subscribed_to_is_there(mirrored: Mirrored) -> None:
    await mirrored.mirror()
    reader = await mirrored.reader()
    await reader.subscribe({NODES}, timeout=10)
    with pytest.raises(ClusterError, match="subscribe"):
        reader.state.metadata  # noqa: B018
    await reader.subscribe({METADATA, NODES}, timeout=10)
    assert reader.state.components == {NODES, METADATA}
    reader.unsubscribe({NODES})
    assert reader.components == {NODES, METADATA}  # it was subscribed to twice
    reader.unsubscribe({NODES})
    await until(lambda: reader.state.components == {METADATA})


async def test_a_component_that_was_not_asked_for_costs_nothing(mirrored: Mirrored) -> None:
    await mirrored.mirror()
    client = mirrored.world.process()
    reader = await mirrored.reader(NODES, client=client)
    await mirrored.seen(reader)
    before = client.backend.calls["get"], reader.mirror.fetched  # type: ignore[attr-defined]
    mirrored.cluster.move_shard("logs", 0, "n3")
    await mirrored.seen(reader)
    assert (client.backend.calls["get"], reader.mirror.fetched) == before  # type: ignore[attr-defined]


async def test_what_did_not_change_is_the_same_object(mirrored: Mirrored) -> None:
    mirrored.cluster.create_index("other")
    await mirrored.mirror()
    reader = await mirrored.reader(*EVERYTHING)
    await mirrored.seen(reader)
    old = reader.state
    mirrored.cluster.move_shard("logs", 0, "n3")
    await mirrored.seen(reader)
    assert reader.state.nodes is old.nodes
    assert reader.state.routing_table["other"] is old.routing_table["other"]
    assert reader.state.routing_table["logs"] is not old.routing_table["logs"]


async def test_waiting_for_a_state(mirrored: Mirrored) -> None:
    await mirrored.mirror()
    reader = await mirrored.reader(NODES)
    waiting = asyncio.ensure_future(reader.wait_for(lambda state: "n4" in state.nodes, timeout=60))
    await mirrored.seen(reader)
    mirrored.cluster.join("n4")
    assert "n4" in (await waiting).nodes
    with pytest.raises(TimedOutError, match="no state of the cluster was"):
        await reader.wait_for(lambda state: "n5" in state.nodes, timeout=1)


async def test_a_subscription_that_is_not_met_in_time_stays(mirrored: Mirrored) -> None:
    reader = await mirrored.reader()
    with pytest.raises(TimedOutError, match=r"nobody mirrors|no mirror"):
        await reader.subscribe({NODES}, timeout=8)
    await mirrored.mirror()
    await mirrored.seen(reader)
    assert reader.state.components == {NODES}


async def test_what_cannot_be_used(mirrored: Mirrored) -> None:
    client = mirrored.world.process()
    for poll in (0, -1, inf, True, "1"):
        with pytest.raises(ConfigError, match="seconds above zero"):
            ClusterStateService(client, poll=poll)  # type: ignore[arg-type]
    for name in ("", "x" * 300, "é" * 120):
        with pytest.raises(ConfigError, match="cannot be called"):
            ClusterStateService(client, cluster=name)
    service = ClusterStateService(client)
    with pytest.raises(ClosedError, match="start"):
        await service.subscribe({NODES})
    async with service:
        with pytest.raises(ConfigError, match="nodes, metadata, routing_table, blocks"):
            await service.subscribe({"shards"})
        with pytest.raises(ConfigError, match="not one str"):
            await service.subscribe("nodes")
        with pytest.raises(ConfigError, match="was not subscribed"):
            service.unsubscribe({NODES})
        with pytest.raises(ConfigError, match="ClusterStateListener"):
            service.add_listener(object())
    with pytest.raises(ClosedError):
        await service.start()
    with pytest.raises(ClosedError):
        service.add_listener(print)


@pytest.mark.parametrize("name", ["prod", "a/b", "..", "é", "a b"])
async def test_a_mirror_of_any_name_is_apart_from_all_others(world: World, name: str) -> None:
    one, two = FakeCluster(name="one"), FakeCluster(name="two")
    async with (
        ClusterStateService(world.process(), one.source(), cluster=name),
        ClusterStateService(world.process(), two.source()) as default,
        ClusterStateService(world.process(), cluster=name) as reader,
    ):
        await reader.subscribe({NODES}, 10)
        await default.subscribe({NODES}, 10)
        assert (reader.state.cluster_name, default.state.cluster_name) == ("one", "two")


class Everything:
    """A listener with all methods."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def on_state_changed(self, old: ClusterState | None, new: ClusterState) -> None:
        self.told.append(f"state {old and old.version}>{new.version}")

    def on_nodes_changed(self, old: Any, new: Any) -> None:
        self.told.append(f"nodes {None if old is None else len(old)}>{len(new)}")

    async def on_routing_table_changed(self, old: Any, new: Any) -> None:
        self.told.append("routing")

    def on_metadata_changed(self, old: Any, new: Any) -> None:
        self.told.append("metadata")

    def on_blocks_changed(self, old: Any, new: Any) -> None:
        self.told.append("blocks")


async def test_a_listener_is_told_what_is_there_and_then_what_changes(mirrored: Mirrored) -> None:
    await mirrored.mirror()
    reader = await mirrored.reader(NODES, ROUTING)
    await mirrored.seen(reader)
    listener = Everything()
    remove = reader.add_listener(listener)
    first = mirrored.cluster.version
    mirrored.cluster.join("n4")
    await mirrored.seen(reader)
    mirrored.cluster.move_shard("logs", 0, "n4")
    await mirrored.seen(reader)
    await until(lambda: len(listener.told) == 7)
    assert listener.told == [
        f"state None>{first}",
        "nodes None>3",
        "routing",
        f"state {first}>{first + 1}",
        "nodes 3>4",
        f"state {first + 1}>{first + 2}",
        "routing",
    ]
    remove()
    mirrored.cluster.leave("n4")
    await mirrored.seen(reader)
    assert len(listener.told) == 7


async def test_a_function_is_told_events(mirrored: Mirrored) -> None:
    await mirrored.mirror()
    reader = await mirrored.reader(NODES)
    heard: list[ClusterStateEvent] = []
    reader.add_listener(heard.append)
    await mirrored.seen(reader)
    mirrored.cluster.join("n4")
    await mirrored.seen(reader)
    await until(lambda: len(heard) == 2)
    assert [event.old and event.old.version for event in heard] == [None, heard[0].new.version]
    assert [type(change) for change in heard[1].changes] == [NodeJoined]
    assert heard[0].changes == ()


async def test_a_component_that_comes_later_is_told_at_once_and_the_state_is_not(mirrored: Mirrored) -> None:
    await mirrored.mirror()
    reader = await mirrored.reader(NODES)
    listener = Everything()
    reader.add_listener(listener)
    await mirrored.seen(reader)
    await until(lambda: len(listener.told) == 2)
    await reader.subscribe({BLOCKS}, 10)
    await until(lambda: listener.told[2:] == ["blocks"])


async def test_listeners_are_told_only_when_the_version_rose(mirrored: Mirrored) -> None:
    """A node that stops to answer changes no version: the state shows it, and listeners are told with the next one."""
    await mirrored.mirror()
    reader = await mirrored.reader(NODES)
    await mirrored.seen(reader)
    listener = Everything()
    reader.add_listener(listener)
    async with reader.changes() as changes:
        mirrored.cluster.silence("n2")
        await until(lambda: reader.state.nodes["n2"].status is NodeStatus.UNRESPONSIVE, 60)
        change = await anext(changes)
        assert isinstance(change, NodeChanged)
        assert change.new.status is NodeStatus.UNRESPONSIVE
        assert len(listener.told) == 2
    mirrored.cluster.create_index("new")
    await mirrored.seen(reader)
    await until(lambda: listener.told[3:] == ["nodes 3>3"])


async def test_nodes_that_shards_are_to_leave_are_shown_as_such(mirrored: Mirrored) -> None:
    await mirrored.mirror()
    reader = await mirrored.reader(NODES)
    await mirrored.seen(reader)
    mirrored.cluster.exclude("node-n2")
    await until(lambda: reader.state.nodes["n2"].status is NodeStatus.DRAINING, 60)
    mirrored.cluster.exclude()
    await until(lambda: reader.state.nodes["n2"].status is NodeStatus.ONLINE, 60)


async def test_changes_one_by_one(mirrored: Mirrored) -> None:
    await mirrored.mirror()
    reader = await mirrored.reader(NODES, ROUTING)
    await mirrored.seen(reader)
    async with reader.changes() as changes:
        mirrored.cluster.move_shard("logs", 0, "n3")
        assert isinstance(await anext(changes), ShardMoved)
        mirrored.cluster.leave("n2")
        found: ClusterChange = await anext(changes)
        assert isinstance(found, NodeLeft)
        assert found.node.status is NodeStatus.LEFT
    with pytest.raises(ClosedError, match="once"):
        await changes.__aenter__()  # type: ignore[attr-defined]


async def test_changes_end_with_the_service(mirrored: Mirrored) -> None:
    reader = await mirrored.reader(NODES)
    async with reader.changes() as changes:
        waiting = asyncio.ensure_future(anext(changes, None))
        await asyncio.sleep(1)
        await reader.stop()
        assert await waiting is None


async def test_another_cluster_begins_anew(mirrored: Mirrored) -> None:
    await mirrored.mirror()
    reader = await mirrored.reader(*EVERYTHING)
    await mirrored.seen(reader)
    async with reader.changes() as changes:
        mirrored.cluster.replace()
        await mirrored.seen(reader)
        assert isinstance(await anext(changes), ClusterReplaced)
    assert reader.state.version < 5
    assert not reader.stale


async def test_a_version_that_falls_is_never_shown(mirrored: Mirrored) -> None:
    await mirrored.mirror()
    reader = await mirrored.reader(*EVERYTHING)
    await mirrored.seen(reader)
    high = mirrored.cluster.version
    mirrored.cluster.rewind(2)
    await asyncio.sleep(10)
    assert reader.state.version == mirrored.head.version == high
    assert "does not follow" in str(reader.stale_reason)
    mirrored.cluster.version = high
    mirrored.cluster.create_index("later")
    await mirrored.seen(reader, seconds=20)
    await until(lambda: not reader.stale)


async def test_stale_without_a_mirror_and_fresh_again(mirrored: Mirrored) -> None:
    mirror = await mirrored.mirror()
    reader = await mirrored.reader(NODES)
    await mirrored.seen(reader)
    before = shown(reader.state)
    await mirror.stop()
    await asyncio.sleep(2)
    assert not reader.stale  # another one may come
    await asyncio.sleep(2)
    assert reader.stale_reason == "nobody mirrors the cluster"
    assert 3.5 < reader.age < WATCH_SILENCE
    assert shown(reader.state) == before
    await mirrored.mirror()
    await until(lambda: not reader.stale)
    assert reader.age < WATCH_SILENCE


async def test_stale_while_the_store_is_away(mirrored: Mirrored) -> None:
    await mirrored.mirror()
    client = mirrored.world.process()
    reader = await mirrored.reader(NODES, client=client)
    await mirrored.seen(reader)
    away = client.backend.faults.outage()  # type: ignore[attr-defined]
    await asyncio.sleep(5)
    assert str(reader.stale_reason).startswith("the store is away")
    assert reader.age > 4.5
    assert reader.state.nodes
    away.end()
    await until(lambda: not reader.stale, 20)


async def test_stale_while_the_cluster_is_away(mirrored: Mirrored) -> None:
    await mirrored.mirror()
    reader = await mirrored.reader(NODES)
    await mirrored.seen(reader)
    with mirrored.cluster.faults.on(Fault.DENIED):
        await asyncio.sleep(20)
        assert "the cluster cannot be mirrored" in str(reader.stale_reason)
        assert "401" in str(reader.mirror.away)
        assert reader.age > 15
    await until(lambda: not reader.stale, 20)
    assert reader.mirror.away is None


async def test_stale_while_the_cluster_takes_long_to_answer(mirrored: Mirrored) -> None:
    await mirrored.mirror()
    reader = await mirrored.reader(NODES)
    await mirrored.seen(reader)
    mirrored.cluster.faults.add(Fault.SLOW, "/_cluster/state/version,", seconds=20.0, times=1)
    mirrored.cluster.join("n4")
    await until(lambda: "not answered" in str(reader.stale_reason), 10)
    assert "n4" not in reader.state.nodes
    await mirrored.seen(reader, seconds=20)
    await until(lambda: not reader.stale)


async def test_who_mirrors_is_told(mirrored: Mirrored) -> None:
    mirror = await mirrored.mirror(client=mirrored.world.process("extension-7"))
    reader = await mirrored.reader(*EVERYTHING)
    await mirrored.seen(reader)
    told = reader.mirror
    assert told.name == "extension-7"
    assert told.since is not None
    assert told.header == reader.state.header
    assert told.candidate is None
    assert {*told.sizes} == {component.value for component in StateComponent}
    assert told.sizes["nodes"].blobs == 1
    assert 0 < told.sizes["nodes"].size < told.sizes["nodes"].raw
    assert mirror.mirroring
    assert str(mirror.mirror.candidate) == "MirrorState.LEADING"
    assert "fresh" in repr(reader)


async def test_what_metrics_show(mirrored: Mirrored) -> None:
    mirror = await mirrored.mirror(NODES)
    assert {sample.metric.name for sample in gauges("ns", mirror)} == {
        "osdisco_cluster_stale",
        "osdisco_cluster_mirroring",
    }
    await mirrored.seen(mirror)
    shown = {sample.metric.name: sample.value for sample in gauges("ns", mirror)}
    assert shown.pop("osdisco_cluster_age_seconds") < WATCH_SILENCE
    assert shown == {
        "osdisco_cluster_stale": 0,
        "osdisco_cluster_mirroring": 1,
        "osdisco_cluster_version": mirrored.cluster.version,
    }


async def test_roles_that_cannot_be_asked_for_are_said_to_be_unknown(mirrored: Mirrored) -> None:
    mirrored.cluster.faults.add(Fault.FORBIDDEN, "/_nodes")
    await mirrored.mirror()
    reader = await mirrored.reader(NODES)
    await mirrored.seen(reader)
    assert [node.heard for node in reader.state.nodes.values()] == [False] * 3
    assert {node.status for node in reader.state.nodes.values()} == {NodeStatus.ONLINE}
    await until(lambda: "403" in str(reader.mirror.nodes))
    mirrored.cluster.faults.clear()
    await until(lambda: all(node.heard for node in reader.state.nodes.values()), 60)
    await until(lambda: reader.mirror.nodes is None)


async def test_the_shard_of_a_document(mirrored: Mirrored) -> None:
    mirror = await mirrored.mirror(ROUTING)
    reader = await mirrored.reader(ROUTING)
    await mirrored.seen(mirror, reader)
    group = await reader.shard_for("logs", "1")
    assert group == reader.state.routing_table.shard_for("logs", "1")
    assert mirrored.cluster.requests["/logs/_search_shards"] == 0


async def test_a_shard_that_only_the_cluster_knows_is_asked_for(mirrored: Mirrored) -> None:
    mirrored.cluster.create_index("virtual", shards=2, settings={"number_of_virtual_shards": "64"})
    mirror = await mirrored.mirror(ROUTING)
    reader = await mirrored.reader(ROUTING)
    await mirrored.seen(mirror, reader)
    group = await mirror.shard_for("virtual", routing="user-7")
    assert group == mirror.state.routing_table["virtual"].shards[group.number]
    assert sum(count for path, count in mirrored.cluster.requests.items() if "_search_shards" in path) == 1
    with pytest.raises(ClusterError, match="_search_shards"):
        await reader.shard_for("virtual", routing="user-7")


async def test_a_client_that_closes_ends_all_who_wait(mirrored: Mirrored) -> None:
    client = mirrored.world.process()
    reader = await mirrored.reader(client=client)
    waiting = asyncio.ensure_future(reader.subscribe({NODES}))
    async with reader.changes() as changes:
        hearing = asyncio.ensure_future(anext(changes, None))
        await asyncio.sleep(1)
        await client.aclose()
        with pytest.raises(ClosedError):
            await waiting
        assert await hearing is None


async def test_stopping_twice_waits_for_the_same(mirrored: Mirrored) -> None:
    mirror = await mirrored.mirror()
    await mirrored.seen(mirror)
    await asyncio.gather(mirror.stop(), mirror.stop())
    assert mirrored.world.keys("election/") == []
    assert mirror.state.version
    assert mirror.stale


async def test_who_is_slow_keeps_few_states_and_is_told_of_several_at_once(mirrored: Mirrored) -> None:
    """Each state may be large, and a listener may hang for ever."""
    mirror = await mirrored.mirror(NODES)
    await mirrored.seen(mirror)
    told: list[tuple[int | None, int]] = []
    go_on = asyncio.Event()

    async def slow(event: ClusterStateEvent) -> None:
        told.append((event.old and event.old.version, event.new.version))
        await go_on.wait()

    mirror.add_listener(slow)
    async with mirror.changes() as changes:
        first = mirror.state.version
        for number in range(40):
            mirrored.cluster.join(f"new-{number}")
            await mirrored.seen(mirror)
        assert [len(hearer.backlog) <= BEHIND_MAX for hearer in mirror._hearers] == [True, True, True]
        go_on.set()
        await until(lambda: told[-1][1] == mirror.state.version)
        assert told[0] == (None, first)
        assert [old for old, _ in told[1:]] == [new for _, new in told[:-1]]
        joined = {
            change.node.id for change in [await anext(changes) for _ in range(40)] if isinstance(change, NodeJoined)
        }
        assert joined == {f"new-{number}" for number in range(40)}


async def test_others_have_their_turn_while_thousands_of_changes_are_told(mirrored: Mirrored) -> None:
    mirrored.cluster.create_index("many", shards=600, replicas=0)
    mirror = await mirrored.mirror(ROUTING)
    await mirrored.seen(mirror)
    turns: list[int] = []
    seen = 0

    async def others() -> None:
        while True:
            turns.append(seen)
            await asyncio.sleep(0)

    async with mirror.changes() as changes:
        with mirrored.cluster.together():
            for number in range(600):
                old = mirrored.cluster.copies("many", number)[0]["node"]
                mirrored.cluster.move_shard("many", number, "n2" if old == "n1" else "n1")
        await mirrored.seen(mirror)
        task = asyncio.ensure_future(others())
        async for change in changes:
            assert isinstance(change, ShardMoved)
            if (seen := seen + 1) == 600:
                break
        task.cancel()
    assert max(late - early for early, late in pairwise(turns)) <= SLICE


async def test_who_may_not_see_whether_anybody_mirrors_shows_nothing_as_fresh(mirrored: Mirrored) -> None:
    await mirrored.mirror()
    client = mirrored.world.process()
    client.backend.faults.deny("watch", key="election/")  # type: ignore[attr-defined]
    reader = await mirrored.reader(NODES, client=client)
    await mirrored.seen(reader)
    assert "whether anybody mirrors cannot be seen" in str(reader.stale_reason)
    client.backend.faults.clear()  # type: ignore[attr-defined]
    await until(lambda: not reader.stale, 60)


@pytest.mark.parametrize("question", ["version", "state"])
async def test_a_source_that_fails_as_none_may_is_said_to(
    mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    mirror = await mirrored.mirror(NODES)
    await mirrored.seen(mirror)
    monkeypatch.setattr(mirrored.sources[mirror], question, broken)
    mirrored.cluster.join("n4")
    await until(lambda: "ZeroDivisionError" in str(mirror.mirror.error), 20)
    monkeypatch.undo()
    await mirrored.seen(mirror, seconds=60)
