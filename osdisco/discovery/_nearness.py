"""Extensions beside the nodes of the search cluster: which is nearest, on its host, in its zone, or anywhere."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from osdisco.discovery.extension import ExtensionInfo
from osdisco.errors import DiscoveryError

if TYPE_CHECKING:
    from osdisco.cluster import ClusterStateService, NodeInfo
    from osdisco.discovery.extensions import Extensions

_NODES: Final = ("nodes",)
"""What is followed of the search cluster: a `StateComponent`, without importing all that there is of clusters."""


class Nearness(enum.IntEnum):
    """How near an extension is to a node; less is nearer."""

    HOST = 0
    ZONE = 1
    ANYWHERE = 2

    @classmethod
    def between(cls, extension: ExtensionInfo, node: NodeInfo | None) -> Nearness:
        """Return how near they are; of a node that is not known, or none, nothing is near.

        A host is the same when it is written the same: an extension that gives a name is found by a node that does.
        """
        if node is None:
            return cls.ANYWHERE
        if extension.host.lower() in hosts_of(node):
            return cls.HOST
        zone = extension.metadata.get("zone")
        return cls.ZONE if zone is not None and zone == node.zone else cls.ANYWHERE


def hosts_of(node: NodeInfo) -> set[str]:
    """Return the names and addresses of a node, in small letters."""
    addresses = [address for address in (node.address, node.http_address) if address is not None]
    return {host.lower() for address in addresses for host in (address.host, address.ip) if host}


def by_nearness(extensions: Iterable[ExtensionInfo], node: NodeInfo | None) -> list[ExtensionInfo]:
    """Return extensions, those nearest a node first, and of those that are as near in the order of their ids."""
    return sorted(extensions, key=lambda extension: (Nearness.between(extension, node), extension.id))


class ClusterAware:
    """What knows extensions, and the search cluster that they serve."""

    _extensions: Extensions

    def __init__(self, cluster: ClusterStateService | None) -> None:
        self._cluster = cluster

    @property
    def nodes(self) -> Mapping[str, NodeInfo]:
        """The nodes of the search cluster by id, each with its status, as `cluster` shows them.

        Raises:
            DiscoveryError: no `cluster` was given.
            ClusterError: they are not known yet, and why.
        """
        return self._known_cluster.state.nodes

    @property
    def _known_cluster(self) -> ClusterStateService:
        if self._cluster is None:
            raise DiscoveryError("no search cluster is known here; give cluster=ClusterStateService(…)")
        return self._cluster

    def _attend_cluster(self) -> None:
        if self._cluster is not None:
            self._cluster.follow(_NODES)

    def _forgo_cluster(self) -> None:
        if self._cluster is not None:
            self._cluster.unsubscribe(_NODES)

    async def nearest(
        self, index: str, id: str | None = None, *, routing: str | None = None, **wanted: Any
    ) -> list[ExtensionInfo]:
        """Return the extensions that fit, the nearest to a document first.

        Those on the host of the node that has the primary of its shard come first, then those in that node's zone, then
        all others, each in the order of their ids; without such a node there are only others. Of an index that can only
        be searched, and so has no primary, it is the first copy that counts. The routing table of `cluster` must be
        subscribed to.

        Args:
            index: its name, or an alias that only it has.
            id: of the document.
            routing: the routing value that it was, or will be, written with. Without one the id decides.
            wanted: what `find` takes.

        Raises:
            DiscoveryError: no `cluster` was given, or as `find` does.
            ClusterError: the cluster is not known yet, or as `ClusterStateService.shard_for` does.
        """
        found = self._extensions.find(**wanted)
        shard = await self._known_cluster.shard_for(index, id, routing=routing)
        node = shard.copies[0].node if shard.copies else None
        return by_nearness(found, None if node is None else self.nodes.get(node))
