"""The state of a search cluster: read by one elected mirror, and known to every extension."""

from osdisco.cluster._hashing import ShardHashing
from osdisco.cluster._mirror import MirrorState
from osdisco.cluster.blocks import Block, ClusterBlocks
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
from osdisco.cluster.http_source import OpenSearchHttpSource
from osdisco.cluster.listeners import ClusterStateEvent, ClusterStateListener
from osdisco.cluster.metadata import ClusterMetadata, IndexMetadata, Indices
from osdisco.cluster.nodes import ClusterNodes, NodeAddress, NodeInfo, NodeRole, NodeStatus
from osdisco.cluster.opensearch_py import OpenSearchClientSource
from osdisco.cluster.routing import IndexRouting, RoutingTable, ShardGroup, ShardRouting, ShardState, UnassignedInfo
from osdisco.cluster.service import ClusterStateService
from osdisco.cluster.source import ClusterStateSource, StateVersion
from osdisco.cluster.state import ClusterState, StateHeader
from osdisco.cluster.status import ComponentSize, MirrorStatus

__all__ = [
    "Block",
    "BlocksChanged",
    "ClusterBlocks",
    "ClusterChange",
    "ClusterManagerChanged",
    "ClusterMetadata",
    "ClusterNodes",
    "ClusterReplaced",
    "ClusterState",
    "ClusterStateEvent",
    "ClusterStateListener",
    "ClusterStateService",
    "ClusterStateSource",
    "ComponentSize",
    "IndexChanged",
    "IndexCreated",
    "IndexDeleted",
    "IndexMetadata",
    "IndexRouting",
    "Indices",
    "MirrorState",
    "MirrorStatus",
    "NodeAddress",
    "NodeChanged",
    "NodeInfo",
    "NodeJoined",
    "NodeLeft",
    "NodeRole",
    "NodeStatus",
    "OpenSearchClientSource",
    "OpenSearchHttpSource",
    "RoutingTable",
    "ShardChanged",
    "ShardGroup",
    "ShardHashing",
    "ShardMoved",
    "ShardRouting",
    "ShardState",
    "StateComponent",
    "StateHeader",
    "StateVersion",
    "UnassignedInfo",
    "changes_between",
]
