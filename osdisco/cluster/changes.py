"""What happened between two states of a cluster, as events.

States share all that did not change, so comparing them costs what changed, not what there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from attrs import frozen

from osdisco.cluster.blocks import Block, ClusterBlocks
from osdisco.cluster.components import StateComponent
from osdisco.cluster.metadata import IndexMetadata
from osdisco.cluster.nodes import NodeInfo
from osdisco.cluster.routing import IndexRouting, ShardGroup, ShardRouting
from osdisco.cluster.state import ClusterState

V = TypeVar("V")


class ClusterChange:
    """Something that happened in the cluster."""

    __slots__ = ()


@frozen
class NodeJoined(ClusterChange):
    """A node is in the cluster; after a restart, again."""

    node: NodeInfo


@frozen
class NodeLeft(ClusterChange):
    """A node is no longer in the cluster; its status is LEFT."""

    node: NodeInfo


@frozen
class NodeChanged(ClusterChange):
    """A node is seen otherwise: its status, its roles, or what it says of itself."""

    old: NodeInfo
    new: NodeInfo


@frozen
class IndexCreated(ClusterChange):
    """There is a new index."""

    index: IndexMetadata


@frozen
class IndexDeleted(ClusterChange):
    """An index is gone; one that was made anew under its name is told of separately."""

    index: IndexMetadata


@frozen
class IndexChanged(ClusterChange):
    """An index was opened or closed, or its settings, aliases or copies are others."""

    old: IndexMetadata
    new: IndexMetadata


@frozen
class ShardChanged(ClusterChange):
    """A copy of a shard is in another state. `old` is None for one that was added, `new` for one that was taken away.

    Copies of indices that come or go as a whole are not told of one by one.
    """

    old: ShardRouting | None
    new: ShardRouting | None


@frozen
class ShardMoved(ClusterChange):
    """A copy of a shard is on another node, or on one again."""

    old: ShardRouting
    new: ShardRouting


@frozen
class BlocksChanged(ClusterChange):
    """An index (None: the whole cluster) is under other blocks than before."""

    index: str | None
    old: tuple[Block, ...]
    new: tuple[Block, ...]


@frozen
class ClusterManagerChanged(ClusterChange):
    """Another node is the cluster manager; ids, or None while there is none."""

    old: str | None
    new: str | None


@frozen
class ClusterReplaced(ClusterChange):
    """It is another cluster: nothing that was known holds any longer, and nothing else is told between the two."""

    old: ClusterState
    new: ClusterState


def changes_between(old: ClusterState, new: ClusterState) -> tuple[ClusterChange, ...]:
    """Return what happened, of the components that both states have: manager, nodes, indices, shards, blocks."""
    return tuple(each_change(old, new))


def each_change(old: ClusterState, new: ClusterState) -> Iterator[ClusterChange]:
    """Yield the same, each worked out when it is asked for."""
    if old.cluster_uuid != new.cluster_uuid:
        yield ClusterReplaced(old, new)
        return
    if old.cluster_manager_node != new.cluster_manager_node:
        yield ClusterManagerChanged(old.cluster_manager_node, new.cluster_manager_node)
    both = old.components & new.components
    if StateComponent.NODES in both:
        yield from _of_nodes(old.nodes, new.nodes)
    if StateComponent.METADATA in both:
        yield from _of_indices(old.metadata.indices, new.metadata.indices)
    if StateComponent.ROUTING_TABLE in both:
        yield from _of_routing(old.routing_table, new.routing_table)
    if StateComponent.BLOCKS in both:
        yield from _of_blocks(old.blocks, new.blocks)


def _of_nodes(old: Mapping[str, NodeInfo], new: Mapping[str, NodeInfo]) -> Iterator[ClusterChange]:
    for before, after in _pairs(old, new):
        if before is not None and after is not None and before.ephemeral_id == after.ephemeral_id:
            yield NodeChanged(before, after)
            continue
        if before is not None:
            yield NodeLeft(before.left())
        if after is not None:
            yield NodeJoined(after)


def _of_indices(old: Mapping[str, IndexMetadata], new: Mapping[str, IndexMetadata]) -> Iterator[ClusterChange]:
    for before, after in _pairs(old, new):
        if before is not None and after is not None and before.uuid == after.uuid:
            yield IndexChanged(before, after)
            continue
        if before is not None:
            yield IndexDeleted(before)
        if after is not None:
            yield IndexCreated(after)


def _of_routing(old: Mapping[str, IndexRouting], new: Mapping[str, IndexRouting]) -> Iterator[ClusterChange]:
    for before, after in _pairs(old, new):
        if before is None or after is None:
            continue
        for number in sorted(before.shards.keys() | after.shards.keys()):
            was, now = before.shards.get(number), after.shards.get(number)
            if was is not now:
                yield from _of_copies(_copies(was), _copies(now))


def _of_blocks(old: ClusterBlocks, new: ClusterBlocks) -> Iterator[ClusterChange]:
    if old.everywhere != new.everywhere:
        yield BlocksChanged(None, old.everywhere, new.everywhere)
    for index in _changed(old, new):
        yield BlocksChanged(index, old.get(index, ()), new.get(index, ()))


def _of_copies(old: list[ShardRouting], new: list[ShardRouting]) -> Iterator[ClusterChange]:
    """Tell of copies of one shard: first of those that can be followed by their allocation, last of what is left."""
    for copy in [copy for copy in old if copy in new]:
        old.remove(copy)
        new.remove(copy)
    for follows in (_by_allocation, _by_node, _by_kind, _by_rest):
        for before in list(old):
            after = next((copy for copy in new if follows(before, copy)), None)
            if after is not None:
                old.remove(before)
                new.remove(after)
                moved = after.node is not None and before.node != after.node
                yield ShardMoved(before, after) if moved else ShardChanged(before, after)
    for copy in old:
        yield ShardChanged(copy, None)
    for copy in new:
        yield ShardChanged(None, copy)


def _by_allocation(old: ShardRouting, new: ShardRouting) -> bool:
    """Return whether it is the same copy, perhaps at the end of its way to another node."""
    return new.allocation_id is not None and new.allocation_id in (old.allocation_id, old.relocation_id)


def _by_node(old: ShardRouting, new: ShardRouting) -> bool:
    return old.node is not None and old.node == new.node


def _by_kind(old: ShardRouting, new: ShardRouting) -> bool:
    return old.primary == new.primary


def _by_rest(old: ShardRouting, new: ShardRouting) -> bool:
    """Return that it is the same copy: a primary that was lost is a replica without a node when another took over."""
    return True


def _copies(group: ShardGroup | None) -> list[ShardRouting]:
    return [] if group is None else list(group.copies)


def _pairs(old: Mapping[str, V], new: Mapping[str, V]) -> Iterator[tuple[V | None, V | None]]:
    """Yield what was and what is under each name of which that is not the same."""
    for name in _changed(old, new):
        yield old.get(name), new.get(name)


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the names under which something else is than was, in order."""
    if old is new:
        return []
    gone = [name for name in old if name not in new]
    return sorted(gone + [name for name, value in new.items() if old.get(name) is not value])
