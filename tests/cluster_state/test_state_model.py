"""The questions that people ask a state, and that nobody can change what others read."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from attrs.exceptions import FrozenInstanceError
from cluster_bodies import BODY, Reader, body, changed, document

from osdisco.cluster.components import StateComponent
from osdisco.cluster.state import ClusterState, StateHeader
from osdisco.errors import ClusterError

HEADER = StateHeader("c", "uuid", 10, "state", term=3)


@pytest.fixture
def state() -> ClusterState:
    return Reader().read(BODY)


def test_a_state_says_which_it_is(state: ClusterState) -> None:
    assert (state.cluster_name, state.cluster_uuid) == ("osdisco-test", "clusterUUID-0000000000")
    assert (state.version, state.term, state.state_uuid) == (172, 7, "stateUUID-172")
    assert (state.cluster_manager_node, state.observed_at) == ("cm1", 0.0)
    assert state.components == set(StateComponent)


@pytest.mark.parametrize(
    ("changes", "later"),
    [
        ({"version": 11}, True),
        ({"version": 10}, False),
        ({"version": 9}, False),
        ({"version": 1, "term": 4}, True),
        ({"version": 99, "term": 2}, False),
        ({"version": 1, "term": 1, "cluster_uuid": "another"}, True),
    ],
)
def test_a_state_supersedes_what_is_earlier_or_of_another_cluster(changes: dict[str, Any], later: bool) -> None:
    assert evolve(HEADER, **changes).supersedes(HEADER) is later


def test_indices_are_found_by_name_and_alias(state: ClusterState) -> None:
    metadata = state.metadata
    assert metadata.index("orders") is metadata.index("sales") is metadata.indices["orders"]
    assert {alias: [one.index for one in some] for alias, some in metadata.aliases.items()} == {
        "sales": ["orders"],
        "logs": ["logs-000001"],
    }
    with pytest.raises(ClusterError, match="no index 'order'; did you mean 'orders'"):
        metadata.index("order")


def test_an_alias_of_several_indices_resolves_to_all_and_is_no_single_one() -> None:
    metadata = Reader().read(changed("metadata/indices/orders/aliases", ["logs"])).metadata
    assert [one.index for one in metadata.resolve("logs")] == ["logs-000001", "orders"]
    with pytest.raises(ClusterError, match="'logs' stands for 2 indices"):
        metadata.index("logs")


def test_an_index_says_what_it_is(state: ClusterState) -> None:
    index = state.metadata.index("orders")
    assert (index.uuid, index.state, index.closed, index.system) == ("uuid-orders", "open", False, False)
    assert (index.number_of_shards, index.number_of_replicas) == (2, 1)
    assert (index.version, index.mapping_version, index.settings_version, index.aliases_version) == (4, 2, 1, 1)
    assert index.settings["index.version.created"] == "136408027"
    assert index.primary_terms == {0: 1, 1: 1}


def test_a_closed_index_is_closed() -> None:
    assert Reader().read(changed("metadata/indices/orders/state", "close")).metadata.index("orders").closed


def test_flat_settings_are_the_same_as_nested_ones(state: ClusterState) -> None:
    given = document()
    index = given["metadata"]["indices"]["orders"]
    index["settings"] = dict(state.metadata.index("orders").settings)
    assert Reader().read(body(given)).metadata == state.metadata


def test_what_plugins_keep_is_there_as_it_came(state: ClusterState) -> None:
    assert state.metadata.customs == {"index-graveyard": {"tombstones": []}}
    assert state.metadata.voting_config == ("cm1",)
    assert state.metadata.cluster_uuid_committed


def test_blocks_say_what_is_refused(state: ClusterState) -> None:
    blocks = state.blocks
    assert [block.id for block in blocks.everywhere] == [10]
    assert [block.id for block in blocks.of("logs-000001")] == [10, 12]
    assert blocks.write_blocked("logs-000001")
    assert not blocks.write_blocked("orders")
    assert not blocks.read_blocked("logs-000001")
    assert blocks.blocked("orders", "create_index")


def test_a_block_of_the_whole_cluster_blocks_every_index() -> None:
    given = changed("blocks/global", {"2": {"description": "no manager", "retryable": True, "levels": ["write"]}})
    blocks = Reader().read(given).blocks
    assert blocks.write_blocked("orders")
    assert blocks.everywhere[0].retryable


def test_nobody_can_change_what_others_read(state: ClusterState) -> None:
    with pytest.raises(TypeError):
        state.nodes["d1"] = state.nodes["d2"]
    for mapping in (
        state.nodes["d1"].attributes,
        state.metadata.index("orders").settings,
        state.metadata.index("orders").primary_terms,
        state.metadata.customs,
        state.metadata.aliases,
        state.routing_table["orders"].shards,
    ):
        with pytest.raises(TypeError):
            mapping["x"] = None
    with pytest.raises(FrozenInstanceError):
        state.nodes["d1"].name = "x"


def test_nodes_indices_and_copies_can_be_in_sets(state: ClusterState) -> None:
    assert len({*state.nodes.values()}) == 5
    assert len({*state.metadata.indices.values()}) == 3
    assert len({*state.routing_table.values()}) == 3
    assert len({*state.routing_table.primaries()}) == 4


def test_states_are_shown_short(state: ClusterState) -> None:
    assert len(repr(state)) < 300
    assert repr(state.nodes) == "<ClusterNodes of 5>"
