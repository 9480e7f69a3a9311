"""Asking the cluster in which shard a document is: for indices of which only the cluster itself knows it."""

from __future__ import annotations

from osdisco.cluster._fields import Fields
from osdisco.cluster._json import parse
from osdisco.cluster.routing import ShardGroup, index_routing_of
from osdisco.cluster.source import ClusterStateSource
from osdisco.errors import ClusterDocumentError, ClusterError


async def shard_searched(source: ClusterStateSource, index: str, id: str | None, routing: str | None) -> ShardGroup:
    """Return the one shard that a search with this routing value, or else with this id as one, goes to.

    Raises:
        ClusterError: neither is given, the source has no answer, or it is more than one shard.
    """
    value = id if routing is None else routing
    if value is None:
        raise ClusterError("the id of a document or its routing value decides in which shard it is: give one")
    answer = Fields(parse(await source.search_shards(index, value), "the answer of _search_shards"), "_search_shards")
    groups = answer.raw().get("shards")
    if not isinstance(groups, list) or not groups or not all(isinstance(group, list) and group for group in groups):
        raise ClusterDocumentError("the answer of _search_shards has no shards")
    if len(groups) > 1:
        raise ClusterError(f"documents of this routing value are in {len(groups)} shards of {index!a}: give an id, too")
    number = Fields(groups[0][0], "_search_shards.shards[0][0]").whole("shard")
    found = index_routing_of(index, {"shards": {str(number): groups[0]}}, "_search_shards")
    return found.shards[number]
