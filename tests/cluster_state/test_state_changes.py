"""What happened between two states is told as events, each once, and nothing is told of what stayed."""

from __future__ import annotations

from typing import Any

import pytest
from cluster_bodies import BODY, STATE, Reader, body, changed, document, large, put

from osdisco.cluster.changes import (
    BlocksChanged,
    ClusterChange,
    ClusterManagerChanged,
    ClusterReplaced,
    IndexChanged,
    IndexCreated,
    IndexDeleted,
    NodeChanged,
    NodeJoined,
    NodeLeft,
    ShardChanged,
    ShardMoved,
    changes_between,
)
from osdisco.cluster.components import StateComponent
from osdisco.cluster.nodes import NodeStatus
from osdisco.cluster.routing import ShardRouting, ShardState

SHARDS = "routing_table/indices/orders/shards"


def told(new: bytes, old: bytes = BODY) -> tuple[ClusterChange, ...]:
    """Return what is told between two states of one reader."""
    reader = Reader()
    return changes_between(reader.read(old), reader.read(new))


def names(changes: tuple[ClusterChange, ...]) -> list[str]:
    return [type(one).__name__ for one in changes]


def test_nothing_is_told_when_only_the_version_rose() -> None:
    assert told(changed("version", 173)) == ()


def test_a_node_joins() -> None:
    node = {"name": "data-9", "ephemeral_id": "e", "transport_address": "10.0.9.1:9300"}
    (joined,) = told(changed("nodes/d9", node))
    assert isinstance(joined, NodeJoined)
    assert joined.node.name == "data-9"


def test_a_node_leaves_and_is_told_with_that_status() -> None:
    fewer = document()
    del fewer["nodes"]["d3"]
    (left,) = told(body(fewer))
    assert isinstance(left, NodeLeft)
    assert (left.node.id, left.node.name, left.node.status) == ("d3", "data-3", NodeStatus.LEFT)


def test_a_restart_is_a_node_that_left_and_joined() -> None:
    changes = told(changed("nodes/d1/ephemeral_id", "another"))
    assert names(changes) == ["NodeLeft", "NodeJoined"]


def test_a_node_that_says_something_else_changed() -> None:
    (change,) = told(changed("nodes/d1/attributes/zone", "b"))
    assert isinstance(change, NodeChanged)
    assert (change.old.zone, change.new.zone) == ("a", "b")


def test_another_manager_is_told() -> None:
    new = put(document(), "cluster_manager_node", "d1")
    assert told(body(new)) == (ClusterManagerChanged("cm1", "d1"),)


def test_another_cluster_is_one_event_and_no_other() -> None:
    new = put(put(document(), "cluster_uuid", "another"), "nodes/d1/name", "x")
    (change,) = told(body(new))
    assert isinstance(change, ClusterReplaced)
    assert change.new.cluster_uuid == "another"


def test_an_index_is_created_and_deleted() -> None:
    fewer = document()
    for section in ("metadata", "routing_table"):
        del fewer[section]["indices"]["new"]
    (deleted,), (created,) = told(body(fewer)), told(BODY, body(fewer))
    assert isinstance(deleted, IndexDeleted)
    assert isinstance(created, IndexCreated)
    assert deleted.index.index == created.index.index == "new"


def test_an_index_made_anew_under_its_name_is_deleted_and_created() -> None:
    changes = told(changed("metadata/indices/new/settings/index/uuid", "another"))
    assert names(changes) == ["IndexDeleted", "IndexCreated"]


def test_an_index_is_closed() -> None:
    (change,) = told(changed("metadata/indices/orders/state", "close"))
    assert isinstance(change, IndexChanged)
    assert (change.old.closed, change.new.closed) == (False, True)


def relocated() -> bytes:
    """Shard 1 of orders has arrived at d3: the copy has the allocation that was made for its move."""
    arrived = {
        "state": "STARTED",
        "primary": True,
        "node": "d3",
        "relocating_node": None,
        "shard": 1,
        "index": "orders",
    }
    return changed(f"{SHARDS}/1/0", {**arrived, "allocation_id": {"id": "a2-r"}})


def test_a_shard_moves() -> None:
    (change,) = told(relocated())
    assert isinstance(change, ShardMoved)
    assert (change.old.node, change.new.node, change.new.number, change.new.primary) == ("d2", "d3", 1, True)


def test_a_shard_that_sets_out_changes_and_has_not_moved() -> None:
    (change,) = told(changed(f"{SHARDS}/0/0", {**_shard(0, 0), "state": "RELOCATING", "relocating_node": "d3"}))
    assert isinstance(change, ShardChanged)
    assert change.new is not None
    assert change.new.state is ShardState.RELOCATING


def _shard(number: int, copy: int) -> dict[str, Any]:
    found: dict[str, Any] = STATE["routing_table"]["indices"]["orders"]["shards"][str(number)][copy]
    return found


def test_a_replica_that_is_promoted_is_followed_by_its_allocation() -> None:
    """d1 is lost: the copy on d2 becomes the primary, and the other has no node."""
    lost = {**_shard(0, 0), "primary": False, "state": "UNASSIGNED", "node": None}
    del lost["allocation_id"]
    changes = told(changed(f"{SHARDS}/0", [{**_shard(0, 1), "primary": True}, lost]))
    seen = [(_told_of(one.old), _told_of(one.new)) for one in changes if isinstance(one, ShardChanged)]
    assert sorted(seen) == [(("d1", True), (None, False)), (("d2", False), ("d2", True))]


def _told_of(copy: ShardRouting | None) -> tuple[str | None, bool]:
    assert copy is not None
    return copy.node, copy.primary


def test_a_copy_that_gets_a_node_again_has_moved() -> None:
    found = {
        **STATE["routing_table"]["indices"]["logs-000001"]["shards"]["0"][1],
        "state": "INITIALIZING",
        "node": "d1",
    }
    (change,) = told(changed("routing_table/indices/logs-000001/shards/0/1", found))
    assert isinstance(change, ShardMoved)
    assert (change.old.node, change.new.node) == (None, "d1")


def test_copies_that_are_added_and_taken_away_have_no_other_side() -> None:
    fewer = changed(f"{SHARDS}/0", [_shard(0, 0)])
    (gone,), (added,) = told(fewer), told(BODY, fewer)
    assert isinstance(gone, ShardChanged)
    assert isinstance(added, ShardChanged)
    assert gone.new is None
    assert added.old is None
    assert _told_of(gone.old) == _told_of(added.new) == ("d2", False)


def test_shards_of_an_index_that_comes_or_goes_are_not_told_of_one_by_one() -> None:
    fewer = document()
    del fewer["routing_table"]["indices"]["new"]
    assert told(body(fewer)) == ()


@pytest.mark.parametrize(("path", "index"), [("blocks/global", None), ("blocks/indices/logs-000001", "logs-000001")])
def test_blocks_are_set_and_lifted(path: str, index: str | None) -> None:
    lifted = changed(path, {})
    (down,), (up,) = told(lifted), told(BODY, lifted)
    assert isinstance(down, BlocksChanged)
    assert isinstance(up, BlocksChanged)
    assert (down.index, down.new, up.old) == (index, (), ())
    assert down.old == up.new


def test_a_component_that_only_one_of_them_has_is_not_compared() -> None:
    reader = Reader()
    old = reader.read(BODY, frozenset({StateComponent.NODES}))
    new = reader.read(relocated())
    assert changes_between(old, new) == ()


def test_all_that_happened_at_once_is_told() -> None:
    new = put(document(), "nodes/d9", {"name": "data-9"})
    del new["nodes"]["d3"]
    put(new, "metadata/indices/orders/state", "close")
    put(new, f"{SHARDS}/1/0/node", "d1")
    put(new, "blocks/indices", {})
    assert names(told(body(new))) == ["NodeLeft", "NodeJoined", "IndexChanged", "ShardMoved", "BlocksChanged"]


def test_of_many_shards_only_what_changed_is_looked_at() -> None:
    """Given 1,000 indices of which one changed, copies of no other are compared."""
    given = large(1000, 1)
    reader, compared = Reader(), 0
    old = reader.read(body(given))
    new = reader.read(body(put(given, "routing_table/indices/logs-000500/shards/0/0/node", "d3")))
    original = ShardRouting.__eq__

    def counted(self: ShardRouting, other: object) -> Any:
        nonlocal compared
        compared += 1
        return original(self, other)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ShardRouting, "__eq__", counted)
        assert names(changes_between(old, new)) == ["ShardMoved"]
    assert compared <= 8
