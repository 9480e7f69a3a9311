"""The state of a search cluster at one version, or those components of it that were asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import field, frozen

from osdisco.cluster.blocks import ClusterBlocks
from osdisco.cluster.components import StateComponent
from osdisco.cluster.metadata import ClusterMetadata
from osdisco.cluster.nodes import ClusterNodes
from osdisco.cluster.routing import RoutingTable
from osdisco.errors import ClusterError

NUMBER_MAX: Final = 2**63 - 1
"""What the version and the term of a cluster can be at most. Of a head beyond it no cluster could ever be ahead."""


@frozen
class StateHeader:
    """Which state it is.

    Args:
        version: rises with every state that a cluster publishes; `state_uuid` is another one each time.
        term: rises with every election of a cluster manager; 0 when the cluster does not say.
        cluster_manager_node: the id of the node that published it, or None.
        observed_at: when it was read from the cluster, in seconds since the epoch by the clock of who read it.
    """

    cluster_name: str
    cluster_uuid: str
    version: int
    state_uuid: str
    term: int = 0
    cluster_manager_node: str | None = None
    observed_at: float = 0.0

    def supersedes(self, other: StateHeader) -> bool:
        """Return whether this is a later state of the same cluster, or one of another cluster."""
        if self.cluster_uuid != other.cluster_uuid:
            return True
        return (self.term, self.version) > (other.term, other.version)


@frozen
class ClusterState:
    """A state that never changes, of one version in all its components.

    What did not change since the state before it is the same object there: `new.nodes is old.nodes`. A component that
    was not asked for is not empty: reading it is an error.

    Args:
        header: which state it is; its fields are attributes of the state, too.
        raw: of each component the parts as the mirror keeps them, JSON by name (`index/logs`, the id of a node,
            `rest`), when `raw=True` was asked for; otherwise None.
    """

    header: StateHeader
    _tables: Mapping[StateComponent, Any] = field(factory=dict, repr=False, hash=False)
    raw: Mapping[StateComponent, Mapping[str, Any]] | None = field(default=None, repr=False, eq=False)

    @property
    def cluster_name(self) -> str:
        """The name that its operator gave the cluster."""
        return self.header.cluster_name

    @property
    def cluster_uuid(self) -> str:
        """Who the cluster is: another one means that nothing known of the old one holds."""
        return self.header.cluster_uuid

    @property
    def version(self) -> int:
        """Rises with every state that the cluster publishes."""
        return self.header.version

    @property
    def state_uuid(self) -> str:
        """Another one for each state."""
        return self.header.state_uuid

    @property
    def term(self) -> int:
        """Rises with every election of a cluster manager; 0 when the cluster does not say."""
        return self.header.term

    @property
    def cluster_manager_node(self) -> str | None:
        """The id of the cluster manager, or None."""
        return self.header.cluster_manager_node

    @property
    def observed_at(self) -> float:
        """When it was read from the cluster, in seconds since the epoch by the clock of who read it."""
        return self.header.observed_at

    @property
    def components(self) -> frozenset[StateComponent]:
        """Which components are there."""
        return frozenset(self._tables)

    @property
    def nodes(self) -> ClusterNodes:
        """The nodes by id. Raises ClusterError when they were not subscribed to."""
        nodes: ClusterNodes = self.component(StateComponent.NODES)
        return nodes

    @property
    def metadata(self) -> ClusterMetadata:
        """Indices, aliases, settings. Raises ClusterError when it was not subscribed to."""
        metadata: ClusterMetadata = self.component(StateComponent.METADATA)
        return metadata

    @property
    def routing_table(self) -> RoutingTable:
        """Which node has which shard. Raises ClusterError when it was not subscribed to."""
        table: RoutingTable = self.component(StateComponent.ROUTING_TABLE)
        return table

    @property
    def blocks(self) -> ClusterBlocks:
        """What the cluster refuses. Raises ClusterError when they were not subscribed to."""
        blocks: ClusterBlocks = self.component(StateComponent.BLOCKS)
        return blocks

    def component(self, component: StateComponent) -> Any:
        """Return a component. Raises ClusterError when it was not subscribed to."""
        if component not in self._tables:
            there = ", ".join(sorted(self._tables)) or "none"
            raise ClusterError(
                f"{component} is not followed, only {there}: subscribe({{StateComponent.{component.name}}})"
            )
        return self._tables[component]
