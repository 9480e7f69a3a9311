"""What a cluster is made of, as documents for programs. Values are the field's own: ids, states and levels as text."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from osdisco.cluster import (
    Block,
    BlocksChanged,
    ClusterChange,
    ClusterManagerChanged,
    ClusterReplaced,
    ClusterState,
    IndexChanged,
    IndexCreated,
    IndexDeleted,
    IndexMetadata,
    MirrorStatus,
    NodeChanged,
    NodeInfo,
    NodeJoined,
    NodeLeft,
    ShardChanged,
    ShardMoved,
    ShardRouting,
    StateComponent,
)

Document = dict[str, Any]


def header_document(state: ClusterState) -> Document:
    """Return which state it is."""
    header = state.header
    return {
        "cluster_name": header.cluster_name,
        "cluster_uuid": header.cluster_uuid,
        "version": header.version,
        "state_uuid": header.state_uuid,
        "term": header.term,
        "cluster_manager_node": header.cluster_manager_node,
        "observed_at": header.observed_at,
    }


def counts(state: ClusterState) -> Document:
    """Return how much there is of what, of the components that are there."""
    found: Document = {}
    if StateComponent.NODES in state.components:
        found["nodes"] = Counter(node.status.value for node in state.nodes.values())
    if StateComponent.METADATA in state.components:
        found["indices"] = Counter(index.state or "unknown" for index in state.metadata.indices.values())
    if StateComponent.ROUTING_TABLE in state.components:
        copies = (copy for index in state.routing_table.values() for copy in index.copies())
        found["shards"] = Counter(copy.state.value for copy in copies)
    if StateComponent.BLOCKS in state.components:
        found["blocks"] = len(state.blocks.everywhere) + sum(map(len, state.blocks.values()))
    return found


def node_document(node: NodeInfo) -> Document:
    """Return a node."""
    return {
        "id": node.id,
        "name": node.name,
        "ephemeral_id": node.ephemeral_id,
        "address": None if node.address is None else str(node.address),
        "http_address": None if node.http_address is None else str(node.http_address),
        "version": node.version or None,
        "attributes": dict(node.attributes),
        "roles": list(node.role_names) if node.heard else None,
        "zone": node.zone,
        "status": node.status.value,
    }


def shard_document(copy: ShardRouting) -> Document:
    """Return a copy of a shard."""
    unassigned = copy.unassigned
    return {
        "index": copy.index,
        "shard": copy.number,
        "primary": copy.primary,
        "state": copy.state.value,
        "node": copy.node,
        "relocating_node": copy.relocating_node,
        "allocation_id": copy.allocation_id,
        "unassigned": None if unassigned is None else {"reason": unassigned.reason, "at": unassigned.at},
    }


def block_document(index: str | None, block: Block) -> Document:
    """Return a block of an index, or of the whole cluster."""
    return {
        "index": index,
        "id": block.id,
        "description": block.description,
        "levels": sorted(block.levels),
        "retryable": block.retryable,
    }


def index_document(index: IndexMetadata) -> Document:
    """Return an index, without its settings."""
    return {
        "index": index.index,
        "uuid": index.uuid,
        "state": index.state,
        "version": index.version,
        "aliases": list(index.aliases),
        "number_of_shards": index.number_of_shards,
        "number_of_replicas": index.number_of_replicas,
    }


def mirror_document(status: MirrorStatus) -> Document:
    """Return who mirrors what, how large it is, and how it is with that."""
    header = status.header
    return {
        "mirror": status.name,
        "since": status.since,
        "token": status.token,
        "away": status.away,
        "nodes_away": status.nodes,
        "cluster_name": None if header is None else header.cluster_name,
        "cluster_uuid": None if header is None else header.cluster_uuid,
        "version": None if header is None else header.version,
        "term": None if header is None else header.term,
        "observed_at": None if header is None else header.observed_at,
        "seq": status.seq,
        "sizes": {
            name: {"blobs": size.blobs, "size": size.size, "raw": size.raw} for name, size in status.sizes.items()
        },
    }


KINDS: Final[dict[type[ClusterChange], str]] = {
    NodeJoined: "node_joined",
    NodeLeft: "node_left",
    NodeChanged: "node_changed",
    IndexCreated: "index_created",
    IndexDeleted: "index_deleted",
    IndexChanged: "index_changed",
    ShardChanged: "shard_changed",
    ShardMoved: "shard_moved",
    BlocksChanged: "blocks_changed",
    ClusterManagerChanged: "cluster_manager_changed",
    ClusterReplaced: "cluster_replaced",
}
"""How a change is called in documents."""


def change_document(change: ClusterChange) -> Document:
    """Return a change, with what was and what is."""
    return {"event": KINDS[type(change)]} | _told(change)


def _told(change: ClusterChange) -> Document:
    match change:
        case NodeJoined() | NodeLeft():
            return {"node": node_document(change.node)}
        case NodeChanged():
            return {"node": node_document(change.new), "before": node_document(change.old)}
        case IndexCreated() | IndexDeleted():
            return {"index": index_document(change.index)}
        case IndexChanged():
            return {"index": index_document(change.new), "before": index_document(change.old)}
        case ShardChanged() | ShardMoved():
            return {
                "shard": change.new and shard_document(change.new),
                "before": change.old and shard_document(change.old),
            }
        case BlocksChanged():
            return {
                "index": change.index,
                "blocks": [block_document(change.index, one) for one in change.new],
                "before": [block_document(change.index, one) for one in change.old],
            }
        case ClusterManagerChanged():
            return {"node": change.new, "before": change.old}
        case ClusterReplaced():
            return {"cluster": header_document(change.new), "before": header_document(change.old)}
    raise AssertionError(f"nobody says how {type(change).__name__} is told")
