"""A source over real sockets: what it asks, whom, and what it makes of each kind of trouble."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from sources import Lowest, source_of

from osdisco.cluster._ring import PAUSE_MAX, PAUSE_MIN, TOLD_MAX, Ring, parse_nodes
from osdisco.errors import (
    ClosedError,
    ClusterDeniedError,
    ClusterDocumentError,
    ClusterError,
    ClusterUnavailableError,
    ConfigError,
)
from osdisco.runtime import Runtime
from osdisco.testing import FakeCluster, Fault, VirtualClock

VERSION = "/_cluster/state/version"


def paths(cluster: FakeCluster) -> set[str]:
    return set(cluster.requests)


async def test_the_version_is_asked_for_by_one_small_request() -> None:
    async with FakeCluster() as cluster, source_of(cluster.urls) as source:
        version = await source.version()
        assert (version.version, version.state_uuid) == (cluster.version, cluster.state_uuid)
        assert (version.cluster_name, version.cluster_uuid) == (cluster.name, cluster.cluster_uuid)
        assert cluster.requests == {VERSION: 1}
        assert cluster.sent[VERSION] < 300


async def test_the_state_has_all_but_mappings_and_templates() -> None:
    async with FakeCluster() as cluster, source_of(cluster.urls) as source:
        cluster.create_index("logs", shards=2)
        state = json.loads(await source.state())
        assert {"version", "nodes", "metadata", "routing_table", "blocks", "cluster_manager_node"} <= set(state)
        assert state["routing_table"]["indices"]["logs"]["shards"].keys() == {"0", "1"}
        assert "templates" not in state["metadata"]
        assert "mappings" not in state["metadata"]["indices"]["logs"]
        assert state["metadata"]["indices"]["logs"]["settings"]["index"]["number_of_shards"] == "2"


async def test_all_of_the_state_is_there_when_nothing_is_left_out() -> None:
    async with FakeCluster() as cluster, source_of(cluster.urls, left_out=()) as source:
        cluster.create_index("logs")
        metadata = json.loads(await source.state())["metadata"]
        assert metadata["templates"]
        assert metadata["indices"]["logs"]["mappings"]


@pytest.mark.parametrize("release", ["1.3.20", "2.19.0", "3.3.0"])
async def test_every_release_takes_the_questions(release: str) -> None:
    """An unknown parameter is refused by all of them, and 1.x knows no `cluster_manager`."""
    async with FakeCluster(release=release) as cluster, source_of(cluster.urls) as source:
        state = json.loads(await source.state())
        assert state["master_node"] == cluster.manager
        assert ("cluster_manager_node" in state) == (not release.startswith("1."))
        await source.version()


async def test_nodes_are_those_that_answer() -> None:
    async with FakeCluster() as cluster, source_of(cluster.urls) as source:
        cluster.silence("n2")
        nodes = json.loads(await source.nodes())
        assert set(nodes["nodes"]) == {"n1", "n3"}
        assert nodes["_nodes"]["failed"] == 1
        assert "roles" in nodes["nodes"]["n1"]


async def test_settings_are_flat() -> None:
    async with FakeCluster() as cluster, source_of(cluster.urls) as source:
        cluster.exclude("node-n1", "node-n2")
        settings = json.loads(await source.settings())
        assert settings["persistent"] == {"cluster.routing.allocation.exclude._name": "node-n1,node-n2"}


async def test_where_a_search_goes() -> None:
    async with FakeCluster() as cluster, source_of(cluster.urls) as source:
        cluster.create_index("logs", shards=5, replicas=0, aliases=["all"])
        everywhere = json.loads(await source.search_shards("all"))
        assert len(everywhere["shards"]) == 5
        once = json.loads(await source.search_shards("logs", routing="user 7/ü&x=y"))
        assert len(once["shards"]) == 1


async def test_an_index_that_there_is_not_is_told_from_a_path_that_there_is_not() -> None:
    async with FakeCluster(servers=2) as cluster, source_of(cluster.urls) as source:
        with pytest.raises(ClusterError, match="no index or alias 'missing'") as caught:
            await source.search_shards("missing")
        assert type(caught.value) is ClusterError
        assert sum(cluster.requests.values()) == 1, "the next node would say the same"
        cluster.faults.add(Fault.NOT_FOUND)
        with pytest.raises(ClusterDocumentError, match="is it a node of OpenSearch"):
            await source.search_shards("missing")
        with pytest.raises(ClusterDocumentError, match=f"GET {VERSION} at 127.0.0.1"):
            await source.version()


UNAVAILABLE = [Fault.UNAVAILABLE, Fault.BUSY, Fault.CUT, Fault.HANG]
NONSENSE = [Fault.HALF, Fault.NO_JSON, Fault.HTML, Fault.EMPTY, Fault.REDIRECT, Fault.NOT_FOUND, Fault.WRONG_JSON]


@pytest.mark.parametrize("fault", [*UNAVAILABLE, *NONSENSE, Fault.HUGE, Fault.BOMB, Fault.DENIED, Fault.FORBIDDEN])
async def test_trouble_is_told_by_its_kind_with_path_and_node(fault: Fault) -> None:
    options = {"timeout": 0.2} if fault is Fault.HANG else {}
    async with FakeCluster() as cluster, source_of(cluster.urls, **options) as source:
        cluster.faults.add(fault, seconds=0)  # nobody asks to be left alone
        kind = ClusterUnavailableError if fault in UNAVAILABLE else ClusterDocumentError
        with pytest.raises(ClusterDeniedError if fault in (Fault.DENIED, Fault.FORBIDDEN) else kind) as caught:
            await source.version()
        assert f"GET {VERSION} at 127.0.0.1:" in str(caught.value)
        cluster.faults.clear()
        if fault is not Fault.HANG:
            assert (await source.version()).version == cluster.version, "and it is over when the trouble is"


@pytest.mark.parametrize("fault", [*UNAVAILABLE, *NONSENSE])
async def test_the_next_node_is_asked_at_once(fault: Fault) -> None:
    async with FakeCluster(servers=2) as cluster, source_of(cluster.urls, timeout=2) as source:
        cluster.faults.add(fault, server=0)
        assert (await source.version()).version == cluster.version
        assert cluster.requests.total() <= 3  # aiohttp asks once more where a pooled connection was cut


async def test_a_node_that_is_gone_is_asked_no_more_while_another_answers() -> None:
    async with FakeCluster(servers=2) as cluster, source_of(cluster.urls) as source:
        await cluster.stop_server(0)
        for _ in range(5):
            await source.version()
        assert cluster.requests == {VERSION: 5}
        await cluster.stop_server(1)
        await cluster.start_server(0)
        assert (await source.version()).version == cluster.version, "it is asked again when no other will do"


async def test_denied_is_denied_and_asked_of_nobody_else() -> None:
    async with FakeCluster(servers=3) as cluster, source_of(cluster.urls) as source:
        cluster.faults.add(Fault.FORBIDDEN)
        with pytest.raises(ClusterDeniedError, match=r"403 \(security_exception\)"):
            await source.state()
        assert cluster.requests.total() == 1


async def test_a_state_that_is_too_long_is_not_fetched_from_every_node() -> None:
    async with FakeCluster(servers=3) as cluster, source_of(cluster.urls, body_max=500) as source:
        with pytest.raises(ClusterDocumentError, match="more than 500 bytes; allow more by body_max="):
            await source.state()
        assert cluster.requests.total() == 1
        assert (await source.version()).version == cluster.version


@pytest.mark.parametrize("fault", [Fault.HUGE, Fault.BOMB])
async def test_a_version_of_megabytes_is_nonsense_of_one_node(fault: Fault) -> None:
    async with FakeCluster(servers=2) as cluster, source_of(cluster.urls) as source:
        cluster.faults.add(fault, server=0)
        assert (await source.version()).version == cluster.version


@pytest.mark.parametrize("fault", [Fault.HUGE, Fault.BOMB])
async def test_a_body_without_end_is_not_read_to_its_end(fault: Fault) -> None:
    async with FakeCluster() as cluster, source_of(cluster.urls, body_max=1 << 20) as source:
        cluster.faults.add(fault)
        with pytest.raises(ClusterDocumentError, match="more than 1048576 bytes"):
            await source.state()
        assert cluster.sent.total() < 1 << 24


async def test_what_all_nodes_said_is_told_together() -> None:
    async with FakeCluster(servers=2) as cluster, source_of(cluster.urls) as source:
        cluster.faults.add(Fault.UNAVAILABLE, server=0)
        cluster.faults.add(Fault.HTML, server=1)
        with pytest.raises(
            ClusterUnavailableError, match=r"503 \(cluster_manager_not_discovered_exception\).*web page"
        ):
            await source.version()
        cluster.faults.add(Fault.HTML)
        with pytest.raises(ClusterDocumentError):
            await source.version()


async def test_a_wish_to_be_left_alone_is_kept_and_handed_on() -> None:
    clock = VirtualClock()
    runtime = Runtime(clock=clock, random=Lowest())
    async with FakeCluster() as cluster, source_of(cluster.urls, runtime=runtime) as source:
        cluster.faults.add(Fault.BUSY, seconds=7, times=1)
        with pytest.raises(ClusterUnavailableError, match="429") as caught:
            await source.version()
        assert caught.value.retry_after == 7.0
        clock.jump(5)
        with pytest.raises(ClusterUnavailableError, match="left alone") as caught:
            await source.version()
        assert caught.value.retry_after == pytest.approx(2.0)
        assert cluster.requests.total() == 1
        clock.jump(2)
        assert (await source.version()).version == cluster.version


async def test_a_closed_source_asks_nothing() -> None:
    async with FakeCluster() as cluster:
        source = source_of(cluster.urls)
        await source.version()
        await source.aclose()
        await source.aclose()
        with pytest.raises(ClosedError):
            await source.version()
        assert cluster.requests.total() == 1


async def test_closing_ends_what_waits() -> None:
    async with FakeCluster(servers=2) as cluster:
        source = source_of(cluster.urls)
        cluster.faults.add(Fault.HANG)
        waiting = [asyncio.create_task(source.state()) for _ in range(8)]  # more than there are connections
        while cluster.requests.total() < 4:
            await asyncio.sleep(0)
        await source.aclose()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(one) for one in ended} == {ClosedError}


async def test_who_is_cancelled_leaves_nothing() -> None:
    async with FakeCluster() as cluster, source_of(cluster.urls) as source:
        with cluster.faults.on(Fault.HANG):
            waiting = asyncio.create_task(source.version())
            while not cluster.requests:
                await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await source.version()


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with FakeCluster() as cluster, source_of(cluster.urls) as source:
        await source.version()


async def test_a_node_may_stand_below_a_path() -> None:
    async with FakeCluster() as cluster, source_of(f"{cluster.urls[0]}/search/") as source:
        with pytest.raises(ClusterDocumentError, match="400"):
            await source.version()
        assert paths(cluster) == {f"/search{VERSION}"}


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([], "no node"),
        ("", "node 1"),
        ("https://os1:9200,", "node 2"),
        ("os1:9200", "node 1"),
        ("ftp://os1", "http or https"),
        ("https://os1:99999", "port"),
        ("https://os1:9200/?pretty", "'?' part"),
        ("https://user:geheim@os1:9200", "give auth="),
        (["https://os1", None], "node 2"),
        ("https://::1:9200", "brackets"),
    ],
)
def test_what_is_no_node_is_refused(nodes: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        source_of(nodes)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": "soon"}, {"state_timeout": -1}, {"body_max": 0}])
def test_what_is_no_limit_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        source_of("http://127.0.0.1:9200", **options)


def test_its_repr_names_its_nodes() -> None:
    source = source_of("https://os1:9200, https://[::1]/x", auth=("admin", "hunter2"))
    assert repr(source) == "<OpenSearchHttpSource os1:9200, [::1]:443>"


def ring(*names: str, clock: VirtualClock) -> Ring:
    return Ring(parse_nodes([f"http://{name}:9200" for name in names]), Runtime(clock=clock, random=Lowest()))


def turn(ring: Ring) -> list[str]:
    return [node.target.host for node in ring.in_turn()]


def test_a_node_that_failed_comes_last_until_its_pause_is_over() -> None:
    clock = VirtualClock()
    nodes = ring("a", "b", "c", clock=clock)
    assert turn(nodes) == ["a", "b", "c"]
    nodes.failed(nodes.nodes[0], None)
    assert turn(nodes) == ["b", "c", "a"]
    clock.jump(PAUSE_MIN)
    assert turn(nodes) == ["b", "c", "a"], "who answers is stayed with"
    nodes.failed(nodes.nodes[1], None)
    assert turn(nodes) == ["c", "a", "b"]


def test_pauses_grow_to_a_limit_and_end_with_an_answer() -> None:
    clock = VirtualClock()
    nodes = ring("a", "b", clock=clock)
    node = nodes.nodes[0]
    pauses = []
    for _ in range(20):
        nodes.failed(node, None)
        pauses.append(node.rests_until - clock.now())
    assert pauses[:3] == [0.5, 1.0, 2.0]
    assert pauses[-1] == PAUSE_MAX / 2
    nodes.did_well(node)
    assert turn(nodes) == ["a", "b"]


def test_a_wish_of_years_is_not_believed() -> None:
    clock = VirtualClock()
    nodes = ring("a", clock=clock)
    nodes.failed(nodes.nodes[0], 999_999.0)
    assert nodes.nodes[0].rests_until == clock.now() + TOLD_MAX
