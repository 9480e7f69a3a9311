"""Where a document is: the shard that the cluster itself would choose, or the word that only it can tell."""

from __future__ import annotations

from typing import Any

import pytest
from cluster_bodies import BODY, Reader, body, changed, document, put
from hypothesis import given, settings, strategies as st

from osdisco.cluster import _hashing
from osdisco.cluster._hashing import ShardHashing
from osdisco.cluster._murmur3 import routing_hash, signed
from osdisco.cluster.routing import RoutingTable, ShardState
from osdisco.errors import ClusterError

VECTORS = [
    (0x5A0CB7C3, "hell"),
    (0xD7C31989, "hello"),
    (0x22AB2984, "hello w"),
    (0xDF0CA123, "hello wo"),
    (0xE7744D61, "hello wor"),
    (0xE07DB09C, "The quick brown fox jumps over the lazy dog"),
    (0x4E63D2AD, "The quick brown fox jumps over the lazy cog"),
]
"""What the cluster's own `Murmur3HashFunction` gives."""


@pytest.mark.parametrize(("expected", "text"), VECTORS)
def test_the_hash_is_the_clusters_own(expected: int, text: str) -> None:
    assert routing_hash(text) == signed(expected)


@settings(deadline=None)
@given(st.text(st.characters(categories=["L", "So", "Cs"]), max_size=50))
def test_any_text_has_a_hash_of_32_bits(text: str) -> None:
    """Lone surrogates too: to Java they are characters like others."""
    assert -(2**31) <= routing_hash(text) < 2**31


def test_the_hash_of_nothing_is_zero() -> None:
    assert routing_hash("") == 0


@pytest.mark.parametrize(
    ("number", "left"), [(0, 0), (2**31 - 1, 2**31 - 1), (2**31, -(2**31)), (2**32 - 1, -1), (-(2**31) - 1, 2**31 - 1)]
)
def test_numbers_overflow_as_in_java(number: int, left: int) -> None:
    assert signed(number) == left


TEXT = st.text(max_size=20)
SHARDS = st.integers(1, 64)


@settings(deadline=None)
@given(TEXT, SHARDS, st.integers(1, 16))
def test_a_split_leaves_a_document_among_the_children_of_its_shard(id_: str, shards: int, by: int) -> None:
    """An index that is split by n keeps its space; shard s becomes s*n to s*n+n-1."""
    space = shards * by * 4
    before = ShardHashing(shards, space).shard("i", id_, None)
    after = ShardHashing(shards * by, space).shard("i", id_, None)
    assert before is not None
    assert after is not None
    assert after // by == before


@settings(deadline=None)
@given(TEXT, TEXT, SHARDS, st.integers(2, 8))
def test_a_partitioned_index_keeps_one_routing_value_in_few_slots(
    id_: str, routing: str, shards: int, size: int
) -> None:
    space = shards * 8
    found = ShardHashing(shards, space, size).shard("i", id_, routing)
    first = routing_hash(routing) % space
    allowed = {(first + offset) % space // 8 for offset in range(size)}
    wrapped = {signed(routing_hash(routing) + offset) % space // 8 for offset in range(size)}
    assert found in allowed | wrapped


def test_a_partition_whose_sum_overflows_wraps_as_in_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """To Java's `int`, 2^31 - 1 and one more is -2^31: it matters where the space is no power of two."""
    hashes = {"last": 2**31 - 1, "one": 1}
    monkeypatch.setattr(_hashing, "routing_hash", hashes.__getitem__)
    assert ShardHashing(3, 21, 5).shard("i", "one", "last") == -(2**31) % 21 // 7 == 2
    assert 2**31 % 21 // 7 == 0


def table(**settings_: str) -> RoutingTable:
    given = document()
    given["metadata"]["indices"]["orders"]["settings"]["index"] |= settings_
    return Reader().read(body(given)).routing_table


@pytest.mark.parametrize(("id_", "routing", "number"), [("hell", None, 1), ("hell", "hello", 0), (None, "hello", 0)])
def test_a_document_is_where_its_routing_or_else_its_id_says(id_: str | None, routing: str | None, number: int) -> None:
    """0x5a0cb7c3 mod 1024 is 963, 0xd7c31989 is 393, and a shard of two has 512 slots."""
    group = table().shard_for("orders", id_, routing=routing)
    assert (group.index, group.number) == ("orders", number)


def test_an_alias_of_one_index_stands_for_it() -> None:
    assert table().shard_for("logs", routing="user-7").primary.node == "d3"


def test_an_alias_of_several_is_refused_with_their_names() -> None:
    given = changed("metadata/indices/orders/aliases", ["logs"])
    with pytest.raises(ClusterError, match="'logs' stands for 2 indices, such as logs-000001, orders: name one"):
        Reader().read(given).routing_table.shard_for("logs", "1")


def test_an_index_that_is_not_there_is_refused_with_what_may_be_meant() -> None:
    with pytest.raises(ClusterError, match="no index 'order'; did you mean 'orders'"):
        table().shard_for("order", "1")


def test_neither_id_nor_routing_is_no_question() -> None:
    with pytest.raises(ClusterError, match=r"Give id=, or routing="):
        table().shard_for("orders")


@pytest.mark.parametrize("given", [{"id": "1"}, {"routing": "1"}])
def test_a_partitioned_index_needs_both(given: dict[str, str]) -> None:
    with pytest.raises(ClusterError, match="'orders' is a partitioned index"):
        table(routing_partition_size="2").shard_for("orders", **given)


CHILDREN = {
    "num_of_root_shards": 2,
    "root_shards_to_all_children": {"0": [{"shard_id": 2}]},
    "parent_to_child_shards": {},
}

UNKNOWABLE: list[tuple[str, object]] = [
    ("metadata/indices/orders/settings/index/number_of_virtual_shards", "20"),
    ("metadata/indices/orders/split_shards_metadata", CHILDREN),
    ("metadata/indices/orders/split_shards_metadata", {"parent_to_child_shards": {"0": []}}),
    ("metadata/indices/orders/routing_num_shards", None),
    ("metadata/indices/orders/routing_num_shards", 1023),
    ("metadata/indices/orders/settings/index/number_of_shards", None),
    ("metadata/indices/orders/settings/index/routing_partition_size", "0"),
    ("metadata/indices/orders", {}),
    ("routing_table/indices/orders/shards", {}),
]


@pytest.mark.parametrize(("path", "value"), UNKNOWABLE)
def test_what_only_the_cluster_knows_is_not_guessed(path: str, value: object) -> None:
    found = Reader().read(changed(path, value)).routing_table
    assert found.shard_number("orders", "1") is None
    with pytest.raises(ClusterError, match="ask _search_shards"):
        found.shard_for("orders", "1")


def test_an_index_of_3_6_that_was_never_split_in_place_is_known() -> None:
    unsplit = {
        "num_of_root_shards": 2,
        "max_shard_id": 1,
        "root_shards_to_all_children": {},
        "parent_to_child_shards": {},
    }
    found = Reader().read(changed("metadata/indices/orders/split_shards_metadata", unsplit)).routing_table
    assert found.shard_number("orders", "1") is not None


def test_copies_are_told_by_what_they_do_and_where() -> None:
    found = table()
    assert {(copy.index, copy.number) for copy in found.primaries()} == {
        ("orders", 0),
        ("orders", 1),
        ("logs-000001", 0),
        ("new", 0),
    }
    (lost,) = found.unassigned()
    assert (lost.index, lost.node, lost.unassigned and lost.unassigned.reason) == ("logs-000001", None, "NODE_LEFT")
    assert [(copy.index, copy.number) for copy in found.shards_on("d2")] == [("new", 0), ("orders", 0), ("orders", 1)]
    assert found.shards_on("nowhere") == ()


def test_a_copy_that_moves_is_active_where_it_still_is() -> None:
    copy = table()["orders"].shards[1].primary
    assert (copy.state, copy.node, copy.relocating_node) == (ShardState.RELOCATING, "d2", "d3")
    assert (copy.active, copy.expected_size, copy.allocation_id, copy.relocation_id) == (True, 1048576, "a2", "a2-r")
    assert not table()["new"].shards[0].primary.active


def test_a_state_of_a_shard_that_is_not_known_is_no_error() -> None:
    given = changed("routing_table/indices/orders/shards/0/0/state", "HIBERNATING")
    assert Reader().read(given).routing_table["orders"].shards[0].primary.state is ShardState.UNKNOWN


def test_the_primary_is_found_wherever_it_stands() -> None:
    given: Any = document()
    given["routing_table"]["indices"]["orders"]["shards"]["0"].reverse()
    group = Reader().read(body(given)).routing_table["orders"].shards[0]
    assert (group.primary.node, [copy.node for copy in group.replicas]) == ("d1", ["d2"])


def test_an_index_that_is_only_searched_has_no_primary() -> None:
    given = document()
    for copy in given["routing_table"]["indices"]["orders"]["shards"]["0"]:
        copy["primary"] = False
    group = Reader().read(body(given)).routing_table["orders"].shards[0]
    assert len(group.replicas) == 2
    with pytest.raises(ClusterError, match="shard 0 of 'orders' has no primary"):
        _ = group.primary


def test_shards_are_in_the_order_of_their_numbers() -> None:
    given = put(document(), "routing_table/indices/orders/shards", {str(n): [] for n in (10, 9, 0, 2)})
    assert list(Reader().read(body(given)).routing_table["orders"].shards) == [0, 2, 9, 10]


def test_answers_are_worked_out_once() -> None:
    found = Reader().read(BODY).routing_table
    assert found.primaries() is found.primaries()
    assert found.shards_on("d1") is found.shards_on("d1")
