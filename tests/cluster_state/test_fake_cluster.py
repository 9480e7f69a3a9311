"""The cluster on paper answers in the shapes of the real one, and changes as that one does."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from shapes import shape
from sources import source_of

from osdisco.errors import (
    ClosedError,
    ClusterDeniedError,
    ClusterDocumentError,
    ClusterError,
    ClusterUnavailableError,
    ConfigError,
)
from osdisco.testing import FakeCluster, Fault, VirtualClock
from osdisco.testing._search_answers import filtered
from osdisco.testing._search_model import routing_num_shards

FIXTURES = Path(__file__).parent / "fixtures"


def asked(cluster: FakeCluster, path: str, **params: str) -> Any:
    answer = cluster.answer(path, params)
    assert answer.status == 200, answer.document
    return json.loads(answer.body)


def state(cluster: FakeCluster) -> Any:
    return asked(cluster, "/_cluster/state")


def copies(cluster: FakeCluster, index: str = "logs", shard: int = 0) -> list[tuple[str, bool, str | None]]:
    group = state(cluster)["routing_table"]["indices"][index]["shards"][str(shard)]
    return [(one["state"], one["primary"], one["node"]) for one in group]


def with_one() -> FakeCluster:
    cluster = FakeCluster()
    cluster.create_index("logs", shards=2, replicas=1, aliases=["all"])
    return cluster


def lively() -> FakeCluster:
    """Return one in which all that the fixtures have is to be seen."""
    cluster = FakeCluster(nodes=5)
    cluster.join("co", roles=(), attributes={"zone": "a"})
    cluster.create_index("orders", shards=2, replicas=1, aliases=["sales"])
    cluster.create_index("logs", shards=1, replicas=1)
    cluster.create_index("new", shards=1, replicas=0)
    cluster.relocate_shard("orders", 1, "n5")
    cluster.fail_shard("logs", 0, primary=False)
    cluster.fail_shard("new", 0)
    cluster.begin_shard("new", 0, "n2", primary=True)
    cluster.block("create_index")
    cluster.block("read_only_allow_delete", "logs")
    return cluster


@pytest.mark.parametrize(
    ("path", "fixture"),
    [
        ("/_cluster/state/version", "cluster_state_version.json"),
        ("/_cluster/state/_all", "cluster_state.json"),
        ("/_nodes/http", "nodes_info.json"),
    ],
)
def test_it_has_the_fields_of_the_fixtures(path: str, fixture: str) -> None:
    cluster = lively()
    document = asked(cluster, path, filter_path="-routing_nodes")
    missing = shape(json.loads((FIXTURES / fixture).read_text())) - shape(document)
    assert not missing


def test_a_version_and_a_uuid_for_every_state() -> None:
    cluster = FakeCluster()
    seen = {(cluster.version, cluster.state_uuid)}
    for step in [
        lambda: cluster.create_index("logs"),
        lambda: cluster.block("write", "logs"),
        lambda: cluster.join("n4"),
        lambda: cluster.move_shard("logs", 0, "n4"),
        lambda: cluster.exclude("node-n4"),
        lambda: cluster.leave("n4"),
        lambda: cluster.close_index("logs"),
        lambda: cluster.delete_index("logs"),
        lambda: cluster.elect("n2"),
        cluster.publish,
    ]:
        before = cluster.version
        step()
        assert cluster.version == before + 1
        seen.add((cluster.version, cluster.state_uuid))
    assert len({uuid for _, uuid in seen}) == len(seen) == 11


def test_what_changes_together_is_one_state() -> None:
    cluster = FakeCluster()
    before = cluster.version
    with cluster.together():
        cluster.create_index("a")
        with cluster.together():
            cluster.create_index("b")
        cluster.leave("n1")
    assert cluster.version == before + 1


def test_another_cluster_begins_anew() -> None:
    cluster = FakeCluster()
    cluster.elect("n2")
    before = cluster.cluster_uuid
    cluster.replace()
    assert (cluster.version, cluster.term) == (1, 1)
    assert cluster.cluster_uuid != before
    assert state(cluster)["metadata"]["cluster_uuid"] == cluster.cluster_uuid


def test_a_version_may_fall() -> None:
    cluster = FakeCluster()
    for _ in range(9):
        cluster.publish()
    uuid = cluster.state_uuid
    cluster.rewind(3)
    assert cluster.version == 3
    assert cluster.state_uuid != uuid


def test_no_two_copies_of_a_shard_stand_on_one_node() -> None:
    cluster = FakeCluster(nodes=2)
    cluster.create_index("logs", shards=3, replicas=2)
    for shard in range(3):
        placed = [node for _, _, node in copies(cluster, "logs", shard) if node]
        assert sorted(placed) == ["n1", "n2"]
        assert copies(cluster, "logs", shard)[2] == ("UNASSIGNED", False, None)


def test_a_move_begins_and_ends() -> None:
    cluster = with_one()
    home = copies(cluster)[0][2]
    free = next(node for node in cluster.nodes if all(node != one[2] for one in copies(cluster)))
    cluster.relocate_shard("logs", 0, free)
    moving = state(cluster)["routing_table"]["indices"]["logs"]["shards"]["0"][0]
    assert (moving["state"], moving["node"], moving["relocating_node"]) == ("RELOCATING", home, free)
    assert {"id", "relocation_id"} == set(moving["allocation_id"])
    cluster.settle()
    assert copies(cluster)[0] == ("STARTED", True, free)


def test_a_replica_becomes_the_primary_when_that_fails() -> None:
    cluster = with_one()
    (_, _, first), (_, _, second) = copies(cluster)
    cluster.fail_shard("logs", 0)
    assert copies(cluster) == [("STARTED", True, second), ("UNASSIGNED", False, None)]
    metadata = state(cluster)["metadata"]["indices"]["logs"]
    assert metadata["primary_terms"] == {"0": 2, "1": 1}
    assert len(metadata["in_sync_allocations"]["0"]) == 1
    cluster.settle()
    assert copies(cluster)[1][0] == "STARTED"
    assert first in [node for _, _, node in copies(cluster)]


def test_the_last_copy_that_is_lost_stays_in_sync() -> None:
    cluster = FakeCluster()
    cluster.create_index("logs", replicas=0)
    before = state(cluster)["metadata"]["indices"]["logs"]["in_sync_allocations"]
    cluster.fail_shard("logs", 0)
    assert copies(cluster) == [("UNASSIGNED", True, None)]
    assert state(cluster)["metadata"]["indices"]["logs"]["in_sync_allocations"] == before


def test_who_leaves_takes_its_copies_along_and_another_manages() -> None:
    cluster = with_one()
    manager, term = cluster.manager, cluster.term
    assert manager == "n1"
    cluster.leave("n1")
    assert all(node != "n1" for shard in (0, 1) for _, _, node in copies(cluster, "logs", shard))
    assert [copies(cluster, "logs", shard)[0][0] for shard in (0, 1)] == ["STARTED", "STARTED"]
    assert (cluster.manager, cluster.term) == ("n2", term + 1)
    assert state(cluster)["metadata"]["cluster_coordination"]["term"] == term + 1


def test_without_anybody_to_manage_there_is_a_block() -> None:
    cluster = FakeCluster(nodes=1)
    cluster.join("d", roles=["data"])
    cluster.leave("n1")
    shown = state(cluster)
    assert shown["cluster_manager_node"] is None
    assert shown["blocks"]["global"]["2"]["retryable"] is True
    cluster.join("n2", roles=["cluster_manager"])
    assert state(cluster)["cluster_manager_node"] == "n2"
    assert state(cluster)["blocks"] == {}


def test_who_comes_back_is_another_process_at_the_same_address() -> None:
    cluster = FakeCluster()
    before = state(cluster)["nodes"]["n2"]
    cluster.join("n2", zone="b")
    after = state(cluster)["nodes"]["n2"]
    assert before["ephemeral_id"] != after["ephemeral_id"]
    assert before["transport_address"] == after["transport_address"]


def test_who_is_silent_is_in_the_state_and_not_among_the_nodes() -> None:
    cluster = FakeCluster()
    version = cluster.version
    cluster.silence("n2")
    assert "n2" in state(cluster)["nodes"]
    assert set(asked(cluster, "/_nodes")["nodes"]) == {"n1", "n3"}
    cluster.silence("n2", answers=True)
    assert "n2" in asked(cluster, "/_nodes")["nodes"]
    assert cluster.version == version


def test_exclusions_are_where_the_cluster_has_them() -> None:
    cluster = FakeCluster()
    cluster.exclude("10.0.0.1", by="_ip")
    nested = asked(cluster, "/_cluster/settings")["persistent"]
    assert nested == {"cluster": {"routing": {"allocation": {"exclude": {"_ip": "10.0.0.1"}}}}}
    cluster.exclude(by="_ip")
    assert asked(cluster, "/_cluster/settings", flat_settings="true") == {"persistent": {}, "transient": {}}
    cluster.exclude_from_voting("n1")
    cluster.leave("n1")
    excluded = state(cluster)["metadata"]["cluster_coordination"]["voting_config_exclusions"]
    assert excluded == [{"node_id": "n1", "node_name": "node-n1"}]


def test_an_index_is_closed_opened_and_deleted() -> None:
    cluster = with_one()
    cluster.close_index("logs")
    closed = state(cluster)
    assert closed["metadata"]["indices"]["logs"]["state"] == "close"
    assert closed["blocks"]["indices"]["logs"]["4"]["levels"] == ["read", "write"]
    assert "logs" in closed["routing_table"]["indices"]
    cluster.open_index("logs")
    assert state(cluster)["blocks"] == {}
    uuid = state(cluster)["metadata"]["indices"]["logs"]["settings"]["index"]["uuid"]
    cluster.delete_index("logs")
    gone = state(cluster)
    assert gone["metadata"]["indices"] == gone["routing_table"]["indices"] == {}
    assert gone["metadata"]["index-graveyard"]["tombstones"][0]["index"]["index_uuid"] == uuid
    cluster.create_index("logs")
    assert state(cluster)["metadata"]["indices"]["logs"]["settings"]["index"]["uuid"] != uuid


def test_ipv6_stands_in_brackets() -> None:
    cluster = FakeCluster(nodes=0)
    cluster.join("v6", host="fd00::1", roles=["cluster_manager"])
    assert state(cluster)["nodes"]["v6"]["transport_address"] == "[fd00::1]:9300"
    assert asked(cluster, "/_nodes")["nodes"]["v6"]["http"]["publish_address"] == "[fd00::1]:9200"
    assert "attributes" not in asked(cluster, "/_nodes")["nodes"]["v6"], "the cluster leaves out what is empty there"
    assert state(cluster)["nodes"]["v6"]["attributes"] == {}


@pytest.mark.parametrize(("shards", "expected"), [(1, 1024), (2, 1024), (3, 768), (5, 640), (1024, 2048), (1500, 3000)])
def test_an_index_can_be_split_as_the_cluster_has_it(shards: int, expected: int) -> None:
    """`MetadataCreateIndexService.calculateNumRoutingShards`."""
    assert routing_num_shards(shards) == expected


@pytest.mark.parametrize(
    ("metrics", "fields"),
    [
        ("version", {"version", "state_uuid"}),
        ("nodes,blocks", {"nodes", "blocks"}),
        ("cluster_manager_node,nonsense", {"cluster_manager_node"}),
        ("routing_nodes", {"routing_nodes"}),
    ],
)
def test_only_what_is_asked_for_is_answered(metrics: str, fields: set[str]) -> None:
    assert set(asked(with_one(), f"/_cluster/state/{metrics}")) == {"cluster_name", "cluster_uuid", *fields}


def test_indices_are_chosen_by_name_alias_and_pattern() -> None:
    cluster = with_one()
    cluster.create_index("orders")
    for chosen, shown in {
        "logs": {"logs"},
        "all,o*": {"logs", "orders"},
        "missing": set(),
        "_all": {"logs", "orders"},
    }.items():
        document = asked(cluster, f"/_cluster/state/metadata,routing_table/{chosen}")
        assert set(document["metadata"]["indices"]) == set(document["routing_table"]["indices"]) == shown


def test_what_there_is_not_is_refused_as_the_cluster_does() -> None:
    cluster = with_one()
    unknown = cluster.answer("/_cluster/state", {"wait": "1"})
    assert (unknown.status, unknown.document["error"]["type"]) == (400, "illegal_argument_exception")
    missing = cluster.answer("/missing/_search_shards", {})
    assert (missing.status, missing.document["error"]["type"]) == (404, "index_not_found_exception")
    assert cluster.answer("/_cat/nodes", {}).status == 400


def test_a_search_goes_to_one_shard_or_to_those_of_a_partition() -> None:
    cluster = FakeCluster()
    cluster.create_index("logs", shards=8, replicas=1, settings={"routing_partition_size": "3"})
    cluster.create_index("plain", shards=8, replicas=0)
    assert len(asked(cluster, "/plain/_search_shards", routing="user-7")["shards"]) == 1
    assert len(asked(cluster, "/plain/_search_shards")["shards"]) == 8
    numbers = [group[0]["shard"] for group in asked(cluster, "/logs/_search_shards", routing="user-7")["shards"]]
    assert 1 <= len(numbers) <= 3
    found = asked(cluster, "/plain/_search_shards", routing="a,b")
    assert {shard["node"] for group in found["shards"] for shard in group} == set(found["nodes"])


def test_health_is_that_of_the_shards() -> None:
    cluster = with_one()
    assert asked(cluster, "/_cluster/health")["status"] == "green"
    cluster.fail_shard("logs", 0, primary=False)
    assert asked(cluster, "/_cluster/health")["status"] == "yellow"
    cluster.fail_shard("logs", 0)
    health = asked(cluster, "/_cluster/health")
    assert (health["status"], health["unassigned_shards"], health["active_shards"]) == ("red", 2, 2)


DOCUMENT = {"a": {"b": {"x": 1, "y": 2}, "c": {"x": 3}}, "d": [{"x": 4}, {"y": 5}], "e": {}}


@pytest.mark.parametrize(
    ("filter_path", "left"),
    [
        ("", DOCUMENT),
        ("-a.*.x", {"a": {"b": {"y": 2}, "c": {}}, "d": [{"x": 4}, {"y": 5}], "e": {}}),
        ("-a,-e", {"d": [{"x": 4}, {"y": 5}]}),
        ("a.*.x", {"a": {"b": {"x": 1}, "c": {"x": 3}}}),
        ("**.x", {"a": {"b": {"x": 1}, "c": {"x": 3}}, "d": [{"x": 4}]}),
        ("-**.x", {"a": {"b": {"y": 2}, "c": {}}, "d": [{}, {"y": 5}], "e": {}}),
        ("a.**", {"a": DOCUMENT["a"]}),
        ("a,-a.b", {"a": {"c": {"x": 3}}}),
        ("a.b", {"a": {"b": {"x": 1, "y": 2}}}),
        ("nothing", {}),
    ],
)
def test_filter_path_lets_through_what_it_says(filter_path: str, left: Any) -> None:
    assert filtered(DOCUMENT, filter_path) == left


@pytest.mark.parametrize(
    "mistake",
    [
        lambda cluster: cluster.create_index("logs"),
        lambda cluster: cluster.delete_index("missing"),
        lambda cluster: cluster.leave("n9"),
        lambda cluster: cluster.elect("data"),
        lambda cluster: cluster.block("wriet", "logs"),
        lambda cluster: cluster.block("write", "missing"),
        lambda cluster: cluster.move_shard("logs", 7, "n1"),
        lambda cluster: cluster.move_shard("logs", 0, "n9"),
        lambda cluster: cluster.begin_shard("logs", 0, "n1"),
        lambda cluster: cluster.fail_shard("bare", 0, primary=False),
        lambda cluster: cluster.urls,
        lambda cluster: cluster.faults.add("slwo"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(mistake: Any) -> None:
    cluster = with_one()
    cluster.join("data", roles=["data"])
    cluster.create_index("bare", replicas=0)
    before = state(cluster)
    with pytest.raises(ValueError):  # noqa: PT011 - ConfigError is one, and that of an enum
        mistake(cluster)
    assert state(cluster) == before


def test_ten_thousand_shards() -> None:
    cluster = FakeCluster.large(indices=1000, shards=10)
    shown = asked(cluster, "/_cluster/state/routing_table,metadata")
    assert sum(len(index["shards"]) for index in shown["routing_table"]["indices"].values()) == 10_000
    before = cluster.version
    cluster.move_shard("logs-000007", 3, "n1")
    assert cluster.version == before + 1


async def test_a_source_without_sockets_gives_what_one_with_sockets_does(osdisco_clock: VirtualClock) -> None:
    cluster = lively()
    source = cluster.source()
    version = await source.version()
    assert (version.version, version.cluster_uuid) == (cluster.version, cluster.cluster_uuid)
    shown = json.loads(await source.state())
    assert "mappings" not in shown["metadata"]["indices"]["logs"]
    assert json.loads(await source.nodes())["nodes"].keys() == cluster.nodes.keys()
    assert json.loads(await source.settings()) == {"persistent": {}, "transient": {}}
    assert len(json.loads(await source.search_shards("orders", "x"))["shards"]) == 1
    with pytest.raises(ClusterError, match="no index or alias 'missing'"):
        await source.search_shards("missing")
    assert cluster.requests["/_cluster/state/version"] == 1


KINDS: dict[Fault, type[Exception] | None] = {
    Fault.SLOW: None,
    Fault.UNAVAILABLE: ClusterUnavailableError,
    Fault.BUSY: ClusterUnavailableError,
    Fault.CUT: ClusterUnavailableError,
    Fault.HANG: ClusterUnavailableError,
    Fault.DENIED: ClusterDeniedError,
    Fault.FORBIDDEN: ClusterDeniedError,
}


@pytest.mark.parametrize("fault", Fault)
async def test_its_faults_are_those_of_the_wire(osdisco_clock: VirtualClock, fault: Fault) -> None:
    cluster = FakeCluster()
    kind = KINDS.get(fault, ClusterDocumentError)
    source = cluster.source()
    cluster.faults.add(fault, seconds=3)
    before = osdisco_clock.now()
    if kind is None:
        await source.version()
        assert osdisco_clock.now() - before == 3
        return
    with pytest.raises(kind):
        await source.version()
    assert osdisco_clock.now() - before == (5 if fault is Fault.HANG else 0)


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.HANG])
async def test_both_sources_call_a_fault_the_same(fault: Fault) -> None:
    async with FakeCluster() as cluster, source_of(cluster.urls, timeout=2, body_max=1 << 20) as source:
        outcomes: list[tuple[type | None, float | None]] = []
        for one in (source, cluster.source()):
            cluster.faults.clear()
            cluster.faults.add(fault, seconds=0)
            try:
                await one.state()
            except ClusterError as exc:
                outcomes.append((type(exc).__mro__[-6], getattr(exc, "retry_after", None)))
            else:
                outcomes.append((None, None))
        assert outcomes[0] == outcomes[1]


async def test_one_source_alone_may_be_cut_off(osdisco_clock: VirtualClock) -> None:
    cluster = FakeCluster()
    here, there = cluster.source(), cluster.source()
    here.faults.add(Fault.CUT, "/_cluster/state", times=1)
    with pytest.raises(ClusterUnavailableError):
        await here.version()
    await there.version()
    await here.version()
    await here.aclose()
    with pytest.raises(ClosedError):
        await here.version()


def test_a_fault_ends_with_its_block_or_its_count() -> None:
    faults = FakeCluster().faults
    with faults.on(Fault.HANG, "/_nodes", server=1):
        assert faults.take("/_nodes/http", 1) is not None
        assert faults.take("/_nodes/http", 0) is faults.take("/_cluster/state", 1) is None
    assert faults.take("/_nodes/http", 1) is None
    faults.add(Fault.BUSY, times=2)
    assert [faults.take("/x") is not None for _ in range(3)] == [True, True, False]


async def test_what_any_client_asks_is_answered() -> None:
    async with FakeCluster(release="2.19.0") as cluster, aiohttp.ClientSession(cluster.urls[0]) as session:
        async with session.get("/") as response:
            root = await response.json()
        assert root["version"]["number"] == "2.19.0"
        assert root["version"]["distribution"] == "opensearch"
        async with session.get("/_cluster/state?filter_path=nodes.*.name&pretty=true") as response:
            assert response.headers["Content-Encoding"] == "gzip"
            assert (await response.json())["nodes"]["n1"] == {"name": "node-n1"}
        assert cluster.requests == {"/": 1, "/_cluster/state": 1}


async def test_it_stops_while_somebody_waits() -> None:
    async with FakeCluster() as cluster, source_of(cluster.urls) as source:
        cluster.faults.add(Fault.HANG)
        waiting = asyncio.create_task(source.version())
        while not cluster.requests:
            await asyncio.sleep(0)
        await cluster.stop_server(0)
        with pytest.raises(ClusterUnavailableError):
            await waiting
        await cluster.start_server(0)
        cluster.faults.clear()
        await source.version()


def test_what_it_cannot_be_is_said() -> None:
    with pytest.raises(ConfigError, match="not served"):
        _ = FakeCluster().urls
