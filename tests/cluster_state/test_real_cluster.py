"""What holds of the cluster on paper holds of a real one; see real.py for how to name one."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator

import pytest
from real import SearchCluster, name_of_an_index, on_paper, real_urls, somewhere
from shapes import shape

from osdisco.errors import ClusterError
from osdisco.testing import FakeCluster


@pytest.fixture(scope="module")
def real_cluster_urls() -> Iterator[str]:
    with real_urls() as urls:
        yield urls


@pytest.fixture(params=["on paper", "real"])
async def cluster(request: pytest.FixtureRequest) -> AsyncGenerator[SearchCluster, None]:
    if request.param == "on paper":
        async with on_paper() as cluster:
            yield cluster
    else:
        async with somewhere(request.getfixturevalue("real_cluster_urls")) as cluster:
            yield cluster


@pytest.fixture
async def index(cluster: SearchCluster) -> AsyncGenerator[str, None]:
    """The name of an index of three shards."""
    name = name_of_an_index()
    await cluster.create_index(name, 3)
    yield name
    await cluster.delete_index(name)


async def test_the_version_is_that_of_the_state(cluster: SearchCluster) -> None:
    before = await cluster.source.version()
    state = json.loads(await cluster.source.state())
    assert state["cluster_uuid"] == before.cluster_uuid
    assert state["cluster_name"] == before.cluster_name
    assert before.version <= state["version"] <= (await cluster.source.version()).version


async def test_a_change_is_a_new_version(cluster: SearchCluster) -> None:
    before = await cluster.source.version()
    name = name_of_an_index()
    await cluster.create_index(name, 1)
    after = await cluster.source.version()
    assert after.version > before.version
    assert after.state_uuid != before.state_uuid
    await cluster.delete_index(name)
    assert (await cluster.source.version()).version > after.version


async def test_the_state_has_the_index_without_its_mappings(cluster: SearchCluster, index: str) -> None:
    state = json.loads(await cluster.source.state())
    assert state["metadata"]["indices"][index]["settings"]["index"]["number_of_shards"] == "3"
    assert "mappings" not in state["metadata"]["indices"][index]
    assert state["routing_table"]["indices"][index]["shards"].keys() == {"0", "1", "2"}


async def test_the_nodes_of_the_state_are_those_that_answer(cluster: SearchCluster) -> None:
    state, nodes = json.loads(await cluster.source.state()), json.loads(await cluster.source.nodes())
    assert state["nodes"].keys() == nodes["nodes"].keys()
    assert state["cluster_manager_node"] in state["nodes"]
    for id_, node in nodes["nodes"].items():
        assert isinstance(node["roles"], list)
        assert node["transport_address"] == state["nodes"][id_]["transport_address"]
        assert node["http"]["publish_address"]


async def test_settings_are_flat(cluster: SearchCluster) -> None:
    settings = json.loads(await cluster.source.settings())
    assert {"persistent", "transient"} <= settings.keys()
    assert all(isinstance(value, str | list) for value in settings["persistent"].values())


async def test_a_search_with_a_routing_value_goes_to_one_shard(cluster: SearchCluster, index: str) -> None:
    found = json.loads(await cluster.source.search_shards(index, "user-7"))
    assert len(found["shards"]) == 1
    assert len(json.loads(await cluster.source.search_shards(index))["shards"]) == 3
    with pytest.raises(ClusterError, match="no index or alias"):
        await cluster.source.search_shards(name_of_an_index())


async def test_the_hash_is_the_clusters_own(cluster: SearchCluster, index: str) -> None:
    """The paper's shard of each value is the real one's."""
    paper = FakeCluster()
    paper.create_index(index, shards=3, replicas=0)
    for value in ("a", "user-7", "hell", "hello", "ü", "日本", "😀", "0" * 99):
        real = json.loads(await cluster.source.search_shards(index, value))
        own = json.loads(await paper.source().search_shards(index, value))
        assert real["shards"][0][0]["shard"] == own["shards"][0][0]["shard"], value


async def test_the_shapes_are_those_of_the_paper(cluster: SearchCluster, index: str) -> None:
    """What the cluster on paper shows, the real one shows, of the same types."""
    paper = FakeCluster()
    paper.create_index(index, shards=3, replicas=0)
    other = paper.source()
    for real, own in (
        (await cluster.source.state(), await other.state()),
        (await cluster.source.nodes(), await other.nodes()),
        (await cluster.source.search_shards(index), await other.search_shards(index)),
    ):
        assert shape(json.loads(own)) <= shape(json.loads(real))
