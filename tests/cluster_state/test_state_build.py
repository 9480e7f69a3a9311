"""States share all that did not change, hold nothing of two versions, and a bad pack leaves the builder as it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from cluster_bodies import ALL, BODY, STATE, Reader, body, changed, document, joined, large, put
from hypothesis import given, settings, strategies as st

from osdisco.cluster import _build
from osdisco.cluster._build import StateBuilder
from osdisco.cluster._pack import Pack, pack
from osdisco.cluster.components import StateComponent
from osdisco.cluster.state import StateHeader
from osdisco.errors import ClusterDocumentError, ClusterError

HEADER = StateHeader("c", "uuid", 1, "state")


def test_the_same_state_again_is_the_same_objects_and_nothing_is_fetched() -> None:
    reader = Reader()
    old = reader.read(BODY)
    new = reader.read(changed("version", 173))
    assert reader.fetched == []
    assert (old.version, new.version) == (172, 173)
    for component in StateComponent:
        assert new.component(component) is old.component(component)


def test_a_moved_shard_leaves_all_but_its_own_copy_as_it_was() -> None:
    reader = Reader()
    old = reader.read(BODY)
    new = reader.read(changed("routing_table/indices/orders/shards/0/1/node", "d3"))
    assert new.nodes is old.nodes
    assert new.metadata is old.metadata
    assert new.blocks is old.blocks
    assert new.routing_table is not old.routing_table
    assert new.routing_table["new"] is old.routing_table["new"]
    assert new.routing_table["orders"].shards[1] is old.routing_table["orders"].shards[1]
    before, after = old.routing_table["orders"].shards[0], new.routing_table["orders"].shards[0]
    assert after.primary is before.primary
    assert after.replicas[0].node == "d3"


@pytest.mark.parametrize(
    ("path", "value", "component"),
    [
        ("nodes/d1/ephemeral_id", "another", StateComponent.NODES),
        ("metadata/indices/orders/version", 5, StateComponent.METADATA),
        ("metadata/repositories", {"backup": {}}, StateComponent.METADATA),
        ("blocks/global", {}, StateComponent.BLOCKS),
        ("blocks/indices", {}, StateComponent.BLOCKS),
        ("routing_table/indices/new/shards/0/0/state", "STARTED", StateComponent.ROUTING_TABLE),
    ],
)
def test_only_the_component_that_changed_is_another_object(path: str, value: object, component: StateComponent) -> None:
    reader = Reader()
    old = reader.read(BODY)
    new = reader.read(changed(path, value))
    assert [one for one in StateComponent if new.component(one) is not old.component(one)] == [component]


def test_metadata_whose_rest_changed_keeps_its_indices() -> None:
    reader = Reader()
    old = reader.read(BODY)
    new = reader.read(changed("metadata/repositories", {"backup": {}}))
    assert new.metadata.indices is old.metadata.indices
    assert new.metadata.customs["repositories"] == {"backup": {}}


def test_what_no_field_shows_makes_no_other_object() -> None:
    reader = Reader()
    old = reader.read(BODY)
    new = reader.read(changed("metadata/indices/orders/rollover_info", {"sales": {"met_conditions": {}}}))
    assert reader.fetched
    assert new.metadata is old.metadata


def test_of_a_thousand_indices_of_which_one_changed_one_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    parse = _build.parse

    def counted(data: bytes, place: str) -> Any:
        decoded.append(place)
        return parse(data, place)

    given, reader = large(1000, 1), Reader()
    monkeypatch.setattr(_build, "parse", counted)
    old = reader.read(body(given))
    assert len(decoded) > 2000
    decoded.clear()
    new = reader.read(body(put(given, "routing_table/indices/logs-000500/shards/0/0/node", "d3")))
    assert decoded == ["routing_table.indices[logs-000500]"]
    assert len(reader.fetched) == 1
    same = [name for name, index in new.routing_table.items() if index is old.routing_table[name]]
    assert len(same) == 999


def test_parts_that_are_dealt_anew_are_still_the_same_objects() -> None:
    cut, builder = joined(body(large(200, 1))), StateBuilder()
    parts = cut.parts[StateComponent.ROUTING_TABLE]

    def tables(k: int) -> Any:
        packs = pack(parts, k).packs
        given = [(one.sha, one.text) for one in packs]
        return len(packs), builder.build(HEADER, {StateComponent.ROUTING_TABLE: given}).routing_table

    (few, old), (more, new) = tables(0), tables(2)
    assert few < more
    assert new is old


def test_a_component_that_was_not_asked_for_is_no_empty_one() -> None:
    state = Reader().read(BODY, frozenset({StateComponent.NODES}))
    assert state.components == {StateComponent.NODES}
    assert len(state.nodes) == 5
    with pytest.raises(ClusterError, match=r"routing_table is not followed, only nodes: subscribe.*ROUTING_TABLE"):
        _ = state.routing_table


def test_a_component_that_is_no_longer_asked_for_is_let_go_of() -> None:
    reader = Reader()
    reader.read(BODY)
    reader.read(BODY, frozenset({StateComponent.NODES}))
    assert reader.fetched == []
    reader.read(BODY)
    assert len(reader.fetched) == 3


def test_what_the_cluster_said_is_kept_only_on_request() -> None:
    assert Reader().read(BODY).raw is None
    raw = Reader(raw=True).read(BODY).raw
    assert raw is not None
    assert raw[StateComponent.METADATA]["index/orders"]["rollover_info"] == {}
    assert raw[StateComponent.NODES]["d1"]["state"] == STATE["nodes"]["d1"]


def pack_of(*parts: tuple[bytes, bytes]) -> tuple[str, bytes]:
    """Return a pack with these lines, for a builder, which does not look at addresses."""
    text = b"".join(b"%b\t%b\n" % part for part in parts)
    return Pack(f"sha of {text!r}", text).sha, text


NODE = b'{"info":null,"state":{"name":"n"},"status":"online"}'

HOSTILE: list[tuple[StateComponent, list[tuple[str, bytes | None]], str]] = [
    (StateComponent.NODES, [("aa", None)], "pack aa is missing"),
    (
        StateComponent.NODES,
        [pack_of((b'"a"', NODE)), pack_of((b'"a"', NODE), (b'"b"', NODE))],
        "a part is in two packs",
    ),
    (StateComponent.NODES, [pack_of((b'"a"', NODE)), pack_of((b'"a"', NODE))], "a part is in two packs"),
    (StateComponent.NODES, [pack_of((b'"a"', b"null"))], r"nodes\[a\] must be an object, not null"),
    (StateComponent.NODES, [pack_of((b'"a"', b'{"state":'))], r"nodes\[a\] ends too early"),
    (StateComponent.NODES, [pack_of((b'"a"', b"{}{}"))], "something follows"),
    (StateComponent.NODES, [pack_of((b'"a"', b'{"info":5}'))], r"nodes\[a\].info must be an object"),
    (StateComponent.NODES, [pack_of((b'"a"', b'{"info":{"roles":"data"}}'))], r"nodes\[a\].info.roles must be a list"),
    (StateComponent.BLOCKS, [pack_of((b'"rest"', b"{}"))], "blocks has a part that does not belong there"),
    (StateComponent.ROUTING_TABLE, [pack_of((b'"global"', b"{}"))], "a part that does not belong there"),
    (StateComponent.ROUTING_TABLE, [pack_of((b'"index/a"', b'{"hashing":{"known":true}}'))], "must be a multiple"),
    (
        StateComponent.ROUTING_TABLE,
        [pack_of((b'"index/a"', b'{"hashing":{"known":true,"shards":3,"space":1024,"partition":1}}'))],
        "must be a multiple",
    ),
    (StateComponent.METADATA, [pack_of((b'"rest"', b"[]"))], "metadata must be an object"),
]


@pytest.mark.parametrize(("component", "packs", "says"), HOSTILE)
def test_a_hostile_pack_is_refused_and_the_builder_is_as_it_was(
    component: StateComponent, packs: Sequence[tuple[str, bytes | None]], says: str
) -> None:
    reader = Reader()
    old = reader.read(BODY)
    good = {StateComponent.NODES: [pack_of((b'"z"', NODE))]}
    with pytest.raises(ClusterDocumentError, match=says):
        reader.builder.build(HEADER, {**good, component: packs})
    new = reader.read(BODY)
    assert reader.fetched == []
    assert new.nodes is old.nodes


def test_a_status_of_a_newer_writer_is_online() -> None:
    state = StateBuilder().build(
        HEADER, {StateComponent.NODES: [pack_of((b'"a"', NODE.replace(b"online", b"dozing")))]}
    )
    assert state.nodes["a"].status.value == "online"


def test_needs_names_each_pack_once() -> None:
    assert StateBuilder().needs(StateComponent.NODES, ["a", "b", "a"]) == ["a", "b"]


EDITS = st.lists(
    st.sampled_from(
        [
            ("version", 173),
            ("nodes/d1/attributes/zone", "b"),
            ("nodes/d9", {"name": "data-9", "ephemeral_id": "e", "transport_address": "10.0.9.1:9300"}),
            ("nodes", {"d1": STATE["nodes"]["d1"]}),
            ("metadata/indices/orders/state", "close"),
            ("metadata/indices/orders/aliases", ["sales", "other"]),
            ("metadata/indices", {}),
            ("routing_table/indices", {}),
            ("routing_table/indices/new/shards/0/0/state", "STARTED"),
            ("routing_table/indices/orders/shards/1", []),
            ("blocks", {}),
            ("blocks/global", {}),
        ]
    ),
    max_size=4,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(EDITS, min_size=2, max_size=6))
def test_a_state_built_from_another_equals_one_built_from_nothing(edits: list[list[tuple[str, object]]]) -> None:
    """And what equals what was there before is that very object."""
    reader, last = Reader(), None
    for some in edits:
        given = document()
        for path, value in some:
            try:
                put(given, path, value)
            except (KeyError, IndexError):  # another edit took away where it leads
                continue
        if given["metadata"]["indices"] and not given["routing_table"]["indices"]:
            given["metadata"]["indices"] = {}
        state, fresh = reader.read(body(given)), Reader().read(body(given))
        assert state == fresh
        for component in ALL if last is not None else ():
            assert last is not None
            one, before = state.component(component), last.component(component)
            assert (one is before) == (one == before)
        last = state
