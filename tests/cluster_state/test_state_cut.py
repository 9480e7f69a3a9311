"""Answers of the cluster are taken apart, of whatever version; what is none is one error that shows no value."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from cluster_bodies import BODY, NODES, STATE, Reader, body, changed, document, joined, put
from hypothesis import given, settings, strategies as st

from osdisco.cluster._cut import cut_nodes, cut_settings, cut_state
from osdisco.cluster.components import StateComponent
from osdisco.errors import ClusterDocumentError, ClusterUnavailableError

SECRET = "hunter2"
DEEP = 200_000


def test_a_state_is_cut_into_parts_that_are_shared_by_themselves() -> None:
    cut = cut_state(BODY)
    assert {component: set(parts) for component, parts in cut.parts.items()} == {
        StateComponent.NODES: {"cm1", "d1", "d2", "d3", "co1"},
        StateComponent.METADATA: {"index/orders", "index/logs-000001", "index/new", "rest"},
        StateComponent.ROUTING_TABLE: {"index/orders", "index/logs-000001", "index/new"},
        StateComponent.BLOCKS: {"global", "index/logs-000001"},
    }
    header = cut.header
    assert (header.cluster_name, header.cluster_uuid) == ("osdisco-test", "clusterUUID-0000000000")
    assert (header.version, header.state_uuid, header.term) == (172, "stateUUID-172", 7)
    assert header.cluster_manager_node == "cm1"


def test_a_part_is_what_the_cluster_said_without_mappings() -> None:
    part = json.loads(cut_state(BODY).parts[StateComponent.METADATA]["index/orders"])
    said = dict(STATE["metadata"]["indices"]["orders"])
    assert said.pop("mappings")
    assert part == said


def test_routing_carries_what_chooses_a_shard_so_that_its_reader_needs_no_metadata() -> None:
    part = json.loads(cut_state(BODY).parts[StateComponent.ROUTING_TABLE]["index/logs-000001"])
    assert part["aliases"] == ["logs"]
    assert part["hashing"] == {"known": True, "partition": 1, "shards": 1, "space": 1024}
    assert part["shards"] == STATE["routing_table"]["indices"]["logs-000001"]["shards"]


def test_the_same_state_is_the_same_bytes_however_it_was_written() -> None:
    mixed = json.dumps(_reversed(STATE), indent=3, ensure_ascii=False).encode()
    assert cut_state(mixed).parts == cut_state(BODY).parts


def _reversed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _reversed(inner) for key, inner in reversed(value.items())}
    return [_reversed(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("gone", ["cluster_manager_node", "master_node"])
def test_the_manager_has_one_of_two_names(gone: str) -> None:
    old = document()
    del old[gone]
    assert cut_state(body(old)).header.cluster_manager_node == "cm1"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("blocks", {}),
        ("master_node", None),
        ("routing_nodes", {"unassigned": [], "nodes": {"d1": [{"state": "STARTED"}]}}),
        ("snapshots", {"snapshots": []}),
        ("metadata/cluster_coordination", {}),
        ("metadata/templates", {"t": {"order": 0}}),
        ("metadata/indices/orders/split_shards_metadata", {"num_of_root_shards": 2}),
        ("routing_table/version", 3),
        ("blocks/indices", {}),
    ],
)
def test_what_a_version_has_or_lacks_is_no_error(path: str, value: object) -> None:
    assert Reader().read(changed(path, value)).version == 172


def test_a_state_of_1_x_that_names_no_term_is_read() -> None:
    old = document()
    for name in ("cluster_coordination", "cluster_uuid_committed"):
        del old["metadata"][name]
    del old["cluster_manager_node"], old["blocks"]
    state = Reader().read(body(old))
    assert (state.term, state.cluster_manager_node, len(state.blocks)) == (0, "cm1", 0)


NO_STATE: list[tuple[str, bytes, str]] = [
    ("empty", b"", "is empty"),
    ("white space", b" \n\t ", "is empty"),
    ("HTML", b"<!DOCTYPE html><html>hunter2</html>", "is a page of HTML"),
    ("XML behind a blank", b"\n <a/>", "is a page of HTML or XML"),
    ("UTF-16", '{"cluster_name":"c"}'.encode("utf-16"), "is not UTF-8"),
    ("text", b"upstream connect error", "must be an object"),
    ("a list", b"[1]", "must be an object"),
    ("null", b"null", "must be an object"),
    ("an error", b'{"error":{"reason":"hunter2"},"status":503}', "has no cluster_name"),
    ("no object", b"{}", "has no cluster_name"),
    ("something behind", BODY + b"{}", "something follows"),
    ("a comma too many", b'{"version":1,}', "is not JSON"),
    ("no colon", b'{"version" 1}', "is not JSON"),
    ("single quotes", b"{'version':1}", "is not JSON"),
    ("NaN", b'{"version":NaN}', "NaN is not JSON"),
    ("infinity", b'{"version":-Infinity}', "Infinity is not JSON"),
    ("a large float", b'{"version":1e999}', "too large"),
    ("a large number", b'{"version":' + b"9" * 5000 + b"}", "too large"),
    ("a section twice", b'{"nodes":{},"nodes":{}}', "names a field twice"),
    ("a node twice", b'{"nodes":{"a":{},"a":{}}}', "nodes: an object names a field twice"),
    ("a field twice", b'{"nodes":{"a":{"name":"x","name":"y"}}}', "nodes[a]: an object names a field twice"),
    ("deep", b'{"nodes":{"a":' + b"[" * DEEP + b"]" * DEEP + b"}}", "nodes[a] is nested too deeply"),
    ("a control character", b'{"nodes":{"a":"\x01"}}', "nodes[a] is not JSON"),
    ("a surrogate", b'{"nodes":{"a":"\\ud800"}}', "nodes[a] holds a lone surrogate"),
]


@pytest.mark.parametrize(("given", "says"), [case[1:] for case in NO_STATE], ids=[case[0] for case in NO_STATE])
def test_what_is_no_state_is_one_error_that_shows_no_value(given: bytes, says: str) -> None:
    with pytest.raises(ClusterDocumentError, match=re.escape(says)) as caught:
        cut_state(given)
    assert SECRET not in str(caught.value)


WRONG_FIELDS: list[tuple[str, object, str]] = [
    ("version", "172", "the cluster state.version must be a whole number, not text"),
    ("version", True, "the cluster state.version must be a whole number, not true or false"),
    ("version", 1.5, "the cluster state.version must be a whole number, not a number"),
    ("version", -1, "no cluster has this version"),
    ("version", 2**63, "no cluster has this version"),
    ("version", None, "has no version"),
    ("state_uuid", "", "a uuid is empty"),
    ("cluster_name", 5, "the cluster state.cluster_name must be text, not a number"),
    ("nodes", {}, "the cluster state has no nodes"),
    ("nodes", [], "nodes must be an object"),
    ("nodes/d1", SECRET, "nodes[d1] must be an object, not text"),
    ("nodes/d1/name", [SECRET], "nodes[d1].name must be text, not a list"),
    ("nodes/d1/attributes", SECRET, "nodes[d1].state.attributes must be an object"),
    ("nodes/d1/attributes/zone", 5, "nodes[d1].state.attributes.zone must be text, not a number"),
    ("nodes/d1/transport_address", SECRET, "nodes[d1].state.transport_address must be an address"),
    ("nodes/d1/transport_address", "10.0.0.1:65536", "transport_address must be an address"),
    ("metadata", SECRET, "metadata must be an object"),
    ("metadata/indices", [], "metadata.indices must be an object"),
    ("metadata/indices/orders", None, "metadata.indices[orders] must be an object, not null"),
    ("metadata/indices/orders/settings", [SECRET], "metadata.indices[orders].settings must be an object"),
    ("metadata/indices/orders/settings/index/number_of_shards", SECRET, "number_of_shards must be a whole number"),
    ("metadata/indices/orders/settings/index/number_of_replicas", "1.5", "number_of_replicas must be a whole number"),
    ("metadata/indices/orders/aliases", "sales", "metadata.indices[orders].aliases must be a list, not text"),
    ("metadata/indices/orders/aliases", [5], "must be a list of texts, not one that holds a number"),
    ("metadata/indices/orders/primary_terms", {"x": 1}, "primary_terms[x]: the name must be a number"),
    ("metadata/indices/orders/version", SECRET, "metadata.indices[orders].version must be a whole number"),
    ("metadata/cluster_coordination/term", "7", "metadata.cluster_coordination.term must be a whole number"),
    ("metadata/cluster_coordination/voting_config_exclusions", [1], "exclusions[0] must be an object"),
    ("routing_table", {}, "the cluster state has no routing_table"),
    ("routing_table/indices/orders/shards", [], "routing_table.indices[orders].shards must be an object, not a list"),
    ("routing_table/indices/orders/shards/0", {}, "routing_table.indices[orders].shards[0] must be a list"),
    ("routing_table/indices/orders/shards/0/1", SECRET, "shards[0][1] must be an object, not text"),
    ("routing_table/indices/orders/shards/0/1/primary", "true", "shards[0][1].primary must be true or false, not text"),
    ("routing_table/indices/orders/shards/0/1/node", 5, "shards[0][1].node must be text, not a number"),
    ("blocks", [], "blocks must be an object"),
    ("blocks/global", SECRET, "blocks.global must be an object"),
    ("blocks/global/10/levels", "write", "blocks.global[10].levels must be a list"),
    ("blocks/indices/logs-000001", {"write": {}}, "blocks.indices[logs-000001][write]: the name must be a number"),
]


@pytest.mark.parametrize(("path", "value", "says"), WRONG_FIELDS)
def test_a_field_of_another_type_is_named_with_its_place_and_never_shown(path: str, value: object, says: str) -> None:
    with pytest.raises(ClusterDocumentError, match=re.escape(says)) as caught:
        Reader().read(changed(path, value))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("field", ["cluster_uuid", "state_uuid"])
def test_a_node_that_has_not_learned_of_a_state_is_no_bad_answer(field: str) -> None:
    with pytest.raises(ClusterUnavailableError, match="has not learned of any state yet"):
        cut_state(changed(field, "_na_"))


def test_a_body_that_ends_anywhere_is_refused() -> None:
    whole = BODY
    for length in range(len(whole)):
        with pytest.raises(ClusterDocumentError):
            cut_state(whole[:length])


def test_a_body_that_ends_within_a_text_says_where() -> None:
    whole = BODY
    half = whole[: whole.index(b"eph-d2") + 3]
    with pytest.raises(ClusterDocumentError, match=rf"ends too early, after {len(half)} characters, in nodes\[d2\]"):
        cut_state(half)


@pytest.mark.parametrize(
    "way",
    [
        "%s",
        "nodes/%s",
        "nodes/d1/attributes/%s",
        "metadata/%s",
        "metadata/indices/%s",
        "metadata/indices/orders/primary_terms/%s",
        "routing_table/%s",
        "routing_table/indices/%s",
        "routing_table/indices/orders/shards/%s",
        "blocks/%s",
        "blocks/indices/%s",
        "blocks/global/%s",
    ],
)
def test_a_name_cannot_forge_a_line_of_a_log(way: str) -> None:
    given = changed(way % "a\nERROR all is lost", "here").replace(b'"here"', b"[1e999]")
    with pytest.raises(ClusterDocumentError) as caught:
        Reader().read(given)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("given", ['{"a\\n":', '{"nodes":{"a\\n":'])
def test_nor_can_one_of_a_node_that_answers(given: str) -> None:
    with pytest.raises(ClusterDocumentError) as caught:
        cut_nodes(given.encode())
    assert str(caught.value).isprintable()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def paths(value: Any, way: tuple[str, ...] = ()) -> list[str]:
    """Return where all values of a document are."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [one for key, below in inner for one in ["/".join([*way, str(key)]), *paths(below, (*way, str(key)))]]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(paths(STATE)), JSON)
def test_any_value_anywhere_is_a_state_or_the_error_of_a_document(path: str, value: object) -> None:
    _is_read_or_refused(changed(path, value))


def _is_read_or_refused(given: bytes) -> None:
    said = ""
    try:
        Reader().read(given)
    except (ClusterDocumentError, ClusterUnavailableError) as exc:
        said = str(exc)
    assert said.isprintable()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_byte_changed_is_a_state_or_the_error_of_a_document(data: st.DataObject) -> None:
    whole = bytearray(BODY)
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=3)):
        whole[at] = data.draw(st.integers(0, 255))
    _is_read_or_refused(bytes(whole))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | JSON.map(body))
def test_any_bytes_are_no_state(given: bytes) -> None:
    with pytest.raises(ClusterDocumentError):
        cut_state(given)


def test_nodes_keep_what_changes_only_with_the_node() -> None:
    said = put(json.loads(body(NODES)), "nodes/d1/jvm", {"uptime_in_millis": 5})
    assert json.loads(cut_nodes(body(said))["d1"]) == {
        "name": "data-1",
        "transport_address": "10.0.1.21:9300",
        "host": "10.0.1.21",
        "ip": "10.0.1.21",
        "version": "3.3.0",
        "roles": ["data", "ingest", "remote_cluster_client"],
        "attributes": {"zone": "a", "shard_indexing_pressure_enabled": "true"},
        "http": {"publish_address": "10.0.1.21:9200"},
    }


@pytest.mark.parametrize(
    "given", [b"", b"{}", b'{"nodes":{}}', b'{"nodes":[]}', b'{"nodes":{"a":1}}', b'{"nodes":{"a":']
)
def test_an_answer_without_nodes_is_refused(given: bytes) -> None:
    with pytest.raises(ClusterDocumentError):
        cut_nodes(given)


def test_settings_are_read_nested_and_flat_and_transient_ones_win() -> None:
    given = {
        "persistent": {"cluster": {"routing.allocation": {"exclude": {"_ip": "10.0.0.1"}}}, "a.b": "1"},
        "transient": {"cluster.routing.allocation.exclude._ip": "10.0.0.2", "flag": True, "list": ["x", "y"]},
    }
    assert cut_settings(body(given)) == {
        "cluster.routing.allocation.exclude._ip": "10.0.0.2",
        "a.b": "1",
        "flag": "true",
        "list": "x,y",
    }


@pytest.mark.parametrize(
    "given", [b"", b"[]", b'{"persistent":[]}', b'{"transient":' + b'{"a":' * 100 + b"1" + b"}" * 101]
)
def test_settings_that_are_none_are_refused(given: bytes) -> None:
    with pytest.raises(ClusterDocumentError):
        cut_settings(given)


def test_voting_exclusions_are_told_by_id_and_name() -> None:
    given = changed(
        "metadata/cluster_coordination/voting_config_exclusions",
        [{"node_id": "d1", "node_name": "data-1"}, {"node_id": "_absent_", "node_name": "data-9"}],
    )
    assert joined(given).voting_exclusions == {"d1", "data-1", "data-9"}
