"""Which extension is nearest a node, and what discovery shows of the search cluster."""

from __future__ import annotations

import pytest
from extensions import info, registered
from worlds import World, until

from osdisco.cluster import ClusterStateService, NodeAddress, NodeInfo, StateComponent
from osdisco.discovery import DiscoveryService
from osdisco.discovery._nearness import by_nearness
from osdisco.errors import ClusterError, DiscoveryError
from osdisco.testing import FakeCluster

NODE = NodeInfo("n1", address=NodeAddress("Data-1", 9300, "10.0.0.1"), attributes={"zone": "a"})


def order(*extensions: str, node: NodeInfo | None = NODE) -> list[str]:
    """Return ids in their order; each extension is given as `id host zone`."""
    given = []
    for text in extensions:
        id_, host, zone = text.split()
        given.append(info(id_, host=host, metadata={} if zone == "-" else {"zone": zone}))
    return [extension.id for extension in by_nearness(given, node)]


def test_the_same_host_comes_before_the_same_zone_and_that_before_all_others() -> None:
    assert order("a 10.9.0.1 b", "b 10.9.0.2 a", "c 10.0.0.1 b", "d 10.9.0.4 -") == ["c", "b", "a", "d"]


def test_a_host_is_known_by_name_and_by_address() -> None:
    assert order("a 10.9.0.1 -", "b data-1 -", "c 10.0.0.1 -") == ["b", "c", "a"]


def test_those_that_are_as_near_come_in_the_order_of_their_ids() -> None:
    assert order("c 10.9.0.1 a", "a 10.9.0.2 a", "b 10.9.0.3 a") == ["a", "b", "c"]


def test_without_a_node_or_its_zone_nothing_is_near() -> None:
    assert order("b 10.0.0.1 a", "a 10.9.0.2 -", node=None) == ["a", "b"]
    assert order("b 10.9.0.1 a", "a 10.9.0.2 -", node=NodeInfo("n1")) == ["a", "b"]


async def test_the_nodes_of_the_cluster_are_followed_with_discovery(world: World) -> None:
    fake = FakeCluster()
    async with ClusterStateService(world.process(), fake.source()) as cluster:
        async with DiscoveryService(world.process(), cluster=cluster) as discovery:
            with pytest.raises(ClusterError, match="not known yet"):
                discovery.nodes  # noqa: B018
            await until(lambda: cluster.components and cluster._state is not None and cluster.state.components)
            assert sorted(discovery.nodes) == ["n1", "n2", "n3"]
            fake.leave("n3")
            await until(lambda: sorted(discovery.nodes) == ["n1", "n2"])
        assert cluster.components == frozenset()


async def test_the_extension_nearest_a_document(world: World) -> None:
    fake = FakeCluster()
    fake.create_index("books", replicas=0)
    here = fake.nodes[fake.copies("books", 0)[0]["node"]]
    await registered(world.process(), "a", metadata={"zone": here.attributes["zone"]})
    await registered(world.process(), "b", host=here.host)
    await registered(world.process(), "c", capabilities=["other"], host=here.host)
    cluster = ClusterStateService(world.process(), fake.source())
    async with cluster, DiscoveryService(world.process(), cluster=cluster) as discovery:
        await cluster.subscribe({StateComponent.ROUTING_TABLE}, 10)
        await until(lambda: len(discovery.extensions) == 3 and "nodes" in cluster.state.components)
        assert [one.id for one in await discovery.nearest("books", "1")] == ["b", "c", "a"]
        assert [one.id for one in await discovery.nearest("books", routing="1", capability="other")] == ["c"]
        fake.leave(here.id)
        await until(lambda: cluster.state.version == fake.version)
        assert [one.id for one in await discovery.nearest("books", "1")] == ["a", "b", "c"]
        with pytest.raises(ClusterError, match="no index"):
            await discovery.nearest("boks", "1")


async def test_an_index_that_can_only_be_searched_has_extensions_near_it_too(world: World) -> None:
    """Since 3.0 an index may be scaled down to copies that only answer searches; it has no primary then."""
    fake = FakeCluster()
    fake.create_index("books", replicas=0)
    (copy,) = fake.copies("books", 0)
    copy["primary"] = False
    await registered(world.process(), "a")
    await registered(world.process(), "b", host=fake.nodes[copy["node"]].host)
    cluster = ClusterStateService(world.process(), fake.source())
    async with cluster, DiscoveryService(world.process(), cluster=cluster) as discovery:
        await cluster.subscribe({StateComponent.ROUTING_TABLE}, 10)
        await until(lambda: len(discovery.extensions) == 2 and "nodes" in cluster.state.components)
        assert [one.id for one in await discovery.nearest("books", "1")] == ["b", "a"]


async def test_without_a_cluster_both_are_refused(world: World) -> None:
    async with DiscoveryService(world.process()) as discovery:
        with pytest.raises(DiscoveryError, match="cluster="):
            discovery.nodes  # noqa: B018
        with pytest.raises(DiscoveryError, match="cluster="):
            await discovery.nearest("books", "1")
