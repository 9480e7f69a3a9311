"""The same mirror on every store: few tests, for what only a real server can get wrong."""

from __future__ import annotations

import asyncio

import pytest
from worlds import connect, until

from osdisco.client import Client
from osdisco.cluster import ClusterStateService, NodeJoined, NodeRole, OpenSearchHttpSource, StateComponent
from osdisco.testing import FakeCluster

ALL = pytest.mark.osdisco("memory", "etcd", "etcd+http", "consul")
REAL = pytest.mark.osdisco("etcd", "etcd+http", "consul")

EVERYTHING = frozenset(StateComponent)


def shows_now(service: ClusterStateService, cluster: FakeCluster) -> bool:
    state = service._state
    return state is not None and state.version == cluster.version and state.components == service.components


@ALL
async def test_what_a_mirror_shows_and_that_another_one_goes_on(osdisco_url: str) -> None:
    cluster = FakeCluster()
    cluster.create_index("logs", shards=3)
    async with (
        connect(osdisco_url) as first,
        connect(osdisco_url) as second,
        connect(osdisco_url) as third,
        ClusterStateService(second, cluster=(name := "prod/é")) as reader,
    ):
        async with ClusterStateService(first, cluster.source(), cluster=name, poll=0.2) as mirror:
            await reader.subscribe(EVERYTHING, timeout=15)
            await until(lambda: shows_now(reader, cluster), 15)
            cluster.move_shard("logs", 0, "n3")
            await until(lambda: shows_now(reader, cluster), 15)
            assert reader.state.routing_table["logs"].shards[0].primary.node == "n3"
            assert mirror.mirroring
            heir = ClusterStateService(third, cluster.source(), cluster=name, poll=0.2)
            await heir.start()
        cluster.leave("n3")
        await until(lambda: heir.mirroring, 10)
        await until(lambda: shows_now(reader, cluster), 15)
        assert sorted(reader.state.nodes) == ["n1", "n2"]
        assert not reader.stale
        await heir.stop()
        assert (await first.scan("election/")).items == {}


@REAL
async def test_a_state_of_many_pieces_arrives_whole(osdisco_url: str) -> None:
    """And is taken apart and built in threads, which virtual time knows nothing of."""
    cluster = FakeCluster()
    with cluster.together():
        for number in range(400):
            noise = {f"plugin.{place}": f"{hash((number, place)) & 2**60 - 1:x}" * 20 for place in range(8)}
            cluster.create_index(f"logs-{number}", shards=2, settings=noise)
    async with (
        connect(osdisco_url) as first,
        connect(osdisco_url) as second,
        ClusterStateService(first, cluster.source(), poll=0.2),
        ClusterStateService(second) as reader,
    ):
        await reader.subscribe(EVERYTHING, timeout=60)
        await until(lambda: shows_now(reader, cluster), 20)
        assert len(reader.state.metadata.indices) == 400
        for number in range(0, 400, 2):
            cluster.delete_index(f"logs-{number}")
        await until(lambda: shows_now(reader, cluster), 30)
        assert len(reader.state.metadata.indices) == 200


@REAL
async def test_from_a_cluster_over_http_to_a_reader_without_credentials(osdisco_url: str) -> None:
    async with FakeCluster(auth=("user", "pass word")) as cluster:
        cluster.create_index("logs", shards=3)
        source = OpenSearchHttpSource(cluster.urls, auth=("user", "pass word"))
        async with (
            connect(osdisco_url) as first,
            connect(osdisco_url) as second,
            ClusterStateService(first, source, poll=0.2),
            ClusterStateService(second) as reader,
        ):
            await reader.subscribe(EVERYTHING, timeout=15)
            async with reader.changes() as changes:
                cluster.join("n4", zone="b")
                change = await anext(changes)
            assert isinstance(change, NodeJoined)
            assert change.node.zone == "b"
            assert change.node.roles == {NodeRole.DATA, NodeRole.INGEST}
        await source.aclose()


@ALL
async def test_garbage_is_removed(osdisco_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osdisco.cluster._publisher.KEPT_SECONDS", 0.5)
    cluster = FakeCluster()
    async with (
        connect(osdisco_url) as client,
        ClusterStateService(client, cluster.source(), poll=0.2) as mirror,
    ):
        for number in range(6):
            cluster.create_index(f"new-{number}")
            await mirror.subscribe({StateComponent.METADATA}, timeout=10)
            await until(lambda: shows_now(mirror, cluster), 15)
        async with asyncio.timeout(10):
            while len(await blobs(client)) > 3 + 3 + 1:  # of the last three heads, which have the same nodes
                await asyncio.sleep(0.05)
        assert {component for component, _ in await blobs(client)} == {"nodes", "metadata", "routing_table"}


async def blobs(client: Client) -> set[tuple[str, str]]:
    """Return which blobs are in the store."""
    keys = (await client.scan("cluster/default/blob/")).items
    return {(component, sha) for component, sha, _ in (key.split("/")[-3:] for key in keys)}
