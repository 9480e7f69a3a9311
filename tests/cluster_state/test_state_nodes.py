"""Nodes: where they are, what they are there for, and how the mirror takes them to be."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from cluster_bodies import BODY, NODES, Reader, body, changed, document, joined, put

from osdisco.cluster._cut import cut_nodes, cut_state
from osdisco.cluster._join import NodeAnswers, _like, join_nodes, membership
from osdisco.cluster.components import StateComponent
from osdisco.cluster.nodes import ClusterNodes, NodeAddress, NodeRole, NodeStatus
from osdisco.errors import ClusterDocumentError, ClusterError

EXCLUDE = "cluster.routing.allocation.exclude."


def nodes_of(
    state: bytes = BODY, nodes: dict[str, Any] | None = None, settings: dict[str, str] | None = None
) -> ClusterNodes:
    return Reader().read(joined(state, body(NODES if nodes is None else nodes), settings)).nodes


@pytest.mark.parametrize(
    ("text", "host", "port", "ip"),
    [
        ("10.0.1.21:9300", "10.0.1.21", 9300, "10.0.1.21"),
        ("[::1]:9300", "::1", 9300, "::1"),
        ("[2001:db8::7]:9200", "2001:db8::7", 9200, "2001:db8::7"),
        ("2001:db8::7:9200", "2001:db8::7", 9200, "2001:db8::7"),
        ("[fe80::1%eth0]:9300", "fe80::1%eth0", 9300, "fe80::1%eth0"),
        ("os1.example/10.0.0.7:9200", "os1.example", 9200, "10.0.0.7"),
        ("os1.example/[::1]:9200", "os1.example", 9200, "::1"),
        ("/10.0.0.7:9200", "10.0.0.7", 9200, "10.0.0.7"),
        ("localhost:1", "localhost", 1, "localhost"),
    ],
)
def test_an_address_is_read_in_all_the_forms_that_nodes_write(text: str, host: str, port: int, ip: str) -> None:
    assert NodeAddress.parse(text, "there") == NodeAddress(host, port, ip)


@pytest.mark.parametrize(("host", "shown"), [("10.0.0.7", "10.0.0.7:92"), ("::1", "[::1]:92"), ("os1", "os1:92")])
def test_an_address_is_shown_as_one_goes_there(host: str, shown: str) -> None:
    assert str(NodeAddress(host, 92)) == shown


@pytest.mark.parametrize(
    "text", ["10.0.0.7", "10.0.0.7:", ":9300", "a b:1", "h:99999", "h:1x", "a/b/c:1", "[::1]", "h:١"]
)
def test_what_is_no_address_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(ClusterDocumentError, match=r"^there must be an address such as"):
        NodeAddress.parse(text, "there")


def test_roles_come_from_the_node_itself() -> None:
    nodes = nodes_of()
    assert nodes["d1"].roles == {NodeRole.DATA, NodeRole.INGEST}
    assert nodes["d1"].role_names == ("data", "ingest", "remote_cluster_client")
    assert nodes["co1"].roles == {NodeRole.COORDINATOR}
    assert [node.id for node in nodes.nodes_with(NodeRole.DATA)] == ["d1", "d2", "d3"]
    assert nodes.nodes_with(NodeRole.MASTER) == nodes.nodes_with(NodeRole.CLUSTER_MANAGER) == (nodes["cm1"],)


def test_master_is_the_old_name_of_the_cluster_manager() -> None:
    old = put(copy.deepcopy(NODES), "nodes/cm1/roles", ["master", "search", "warm"])
    node = nodes_of(nodes=old)["cm1"]
    assert node.roles == {NodeRole.CLUSTER_MANAGER}
    assert node.role_names == ("cluster_manager", "search", "warm")


def test_a_node_with_only_unknown_roles_is_no_coordinator() -> None:
    node = nodes_of(nodes=put(copy.deepcopy(NODES), "nodes/d1/roles", ["warp"]))["d1"]
    assert (node.roles, node.role_names) == (frozenset(), ("warp",))


def test_a_node_without_attributes_has_no_zone() -> None:
    bare = document()
    del bare["nodes"]["d1"]["attributes"]
    node = nodes_of(body(bare))["d1"]
    assert (node.zone, dict(node.attributes)) == (None, {})


def test_nodes_are_found_by_zone_attribute_and_name() -> None:
    nodes = nodes_of()
    assert nodes.zones() == ("a", "b", "c")
    assert {node.id for node in nodes.in_zone("a")} == {"cm1", "d1", "co1"}
    assert nodes.in_zone("elsewhere") == ()
    assert len(nodes.with_attribute("shard_indexing_pressure_enabled", "true")) == 5
    assert nodes.named("data-2").id == "d2"
    with pytest.raises(ClusterError, match="no nodes have the name 'data-22'; did you mean 'data-2'"):
        nodes.named("data-22")


def test_a_name_that_two_nodes_have_is_refused() -> None:
    with pytest.raises(ClusterError, match="2 nodes have the name 'data-2'"):
        nodes_of(changed("nodes/d1/name", "data-2")).named("data-2")


def test_a_node_in_both_answers_is_online_and_one_that_did_not_answer_is_unresponsive() -> None:
    silent = copy.deepcopy(NODES)
    del silent["nodes"]["d2"]
    nodes = nodes_of(nodes=silent)
    assert (nodes["d1"].status, nodes["d1"].heard) == (NodeStatus.ONLINE, True)
    assert (nodes["d2"].status, nodes["d2"].heard) == (NodeStatus.UNRESPONSIVE, False)
    assert nodes["d2"].roles == frozenset()


def test_nodes_that_were_never_asked_are_online_and_known_to_be_unheard() -> None:
    cut = cut_state(BODY)
    cut.parts[StateComponent.NODES].update(join_nodes(cut, None, {}))
    nodes = Reader().read(cut).nodes.values()
    assert {(node.status, node.heard) for node in nodes} == {(NodeStatus.ONLINE, False)}


def test_a_node_that_joined_after_the_others_were_asked_is_not_unresponsive() -> None:
    cut = cut_state(BODY)
    answers = NodeAnswers(cut_nodes(body(NODES)), membership(cut))
    later = cut_state(changed("nodes/d9", {"name": "data-9", "ephemeral_id": "e"}))
    assert membership(later) != answers.asked
    later.parts[StateComponent.NODES].update(join_nodes(later, answers, {}))
    node = Reader().read(later).nodes["d9"]
    assert (node.status, node.heard) == (NodeStatus.ONLINE, False)


def test_what_a_node_said_before_its_restart_is_forgotten() -> None:
    cut = cut_state(BODY)
    answers = NodeAnswers(cut_nodes(body(NODES)), membership(cut))
    later = cut_state(changed("nodes/d1/ephemeral_id", "another"))
    later.parts[StateComponent.NODES].update(join_nodes(later, answers, {}))
    nodes = Reader().read(later).nodes
    assert (nodes["d1"].status, nodes["d1"].heard) == (NodeStatus.ONLINE, False)
    assert nodes["d2"].heard


@pytest.mark.parametrize(
    ("name", "value", "draining"),
    [
        ("_name", "data-1", {"d1"}),
        ("name", "data-*", {"d1", "d2", "d3"}),
        ("_id", "d1, d3", {"d1", "d3"}),
        ("_ip", "10.0.2.*", {"d2"}),
        ("_host_ip", "10.0.2.21", {"d2"}),
        ("_host", "10.0.1.21", {"d1"}),
        ("zone", "c", {"d3"}),
        ("rack", "r1", set()),
        ("_ip", "10.0.2.2", set()),
        ("_ip", "10*0*2*21", {"d2"}),
        ("_ip", "10.0.?.21", set()),
        ("_ip", "", set()),
        ("_name", ",", set()),
    ],
)
def test_a_node_that_shards_are_to_leave_is_draining(name: str, value: str, draining: set[str]) -> None:
    nodes = nodes_of(settings={EXCLUDE + name: value, "cluster.routing.allocation.enable": "all"})
    assert {node.id for node in nodes.values() if node.status is NodeStatus.DRAINING} == draining


@pytest.mark.parametrize(
    "exclusion", [{"node_id": "cm1", "node_name": "cm-1"}, {"node_id": "_absent_", "node_name": "cm-1"}]
)
def test_a_node_on_its_way_out_of_the_vote_is_draining(exclusion: dict[str, str]) -> None:
    nodes = nodes_of(changed("metadata/cluster_coordination/voting_config_exclusions", [exclusion]))
    assert {node.id for node in nodes.values() if node.status is NodeStatus.DRAINING} == {"cm1"}


def test_a_draining_node_that_does_not_answer_is_draining() -> None:
    silent = copy.deepcopy(NODES)
    del silent["nodes"]["d2"]
    assert nodes_of(nodes=silent, settings={EXCLUDE + "_id": "d2"})["d2"].status is NodeStatus.DRAINING


@pytest.mark.parametrize(
    ("pattern", "value", "like"),
    [
        ("data-*", "data-7", True),
        ("*", "", True),
        ("**", "any", True),
        ("a*b*a", "aba", True),
        ("a*a", "a", False),
        ("ab*ba", "aba", False),
        ("*7*", "data-7.", True),
        ("d.ta", "data", False),
        ("", "", False),
        ("*a" * 60 + "b", "a" * 255, False),
    ],
)
def test_a_star_stands_for_anything_however_many_there_are(pattern: str, value: str, like: bool) -> None:
    assert _like(pattern, value) is like
