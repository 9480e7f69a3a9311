"""In which shard a document is: what of an index decides it, and how (`OperationRouting.generateShardId`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from attrs import asdict, frozen

from osdisco.cluster._fields import Fields
from osdisco.cluster._murmur3 import routing_hash, signed
from osdisco.errors import ClusterDocumentError, ClusterError

_SPLITS: Final = ("root_shards_to_all_children", "parent_to_child_shards")


@frozen
class ShardHashing:
    """What of an index's metadata decides in which shard a document is.

    Args:
        shards: how many primaries it has.
        space: `routing_num_shards`: into how many slots documents are dealt. It stays when an index is split or shrunk,
            as `_split` and `_shrink` do it; each shard then has fewer or more of them.
        partition: over how many slots documents of one routing value are spread; 1 is the rule.
        known: False for an index with virtual shards, or whose shards were split in place (3.6 and later): that is new
            and still changes, so only the cluster itself is asked.
    """

    shards: int
    space: int
    partition: int = 1
    known: bool = True

    @classmethod
    def of_metadata(cls, index: Fields, settings: Mapping[str, object]) -> ShardHashing | None:
        """Take it from an index's metadata, and its settings by full name; None when they do not say it."""
        shards = whole_setting(index, settings, "index.number_of_shards", 0)
        space = index.whole("routing_num_shards")
        partition = whole_setting(index, settings, "index.routing_partition_size", 1)
        if not shards or not space:
            return None
        split = index.inside("split_shards_metadata")
        virtual = whole_setting(index, settings, "index.number_of_virtual_shards", -1)
        known = virtual == -1 and not any(split.inside(name).raw() for name in _SPLITS)
        return _shared(shards, space, partition, known and shards > 0 and partition > 0 and space % shards == 0)

    @classmethod
    def of_part(cls, given: Fields) -> ShardHashing:
        """Take it from a part of the routing table."""
        found = _shared(given.whole("shards"), given.whole("space"), given.whole("partition", 1), given.flag("known"))
        if found.known and (found.shards < 1 or found.partition < 1 or found.space < 1 or found.space % found.shards):
            raise ClusterDocumentError(f"{given.place('space')} must be a multiple of the number of shards")
        return found

    def part(self) -> dict[str, Any]:
        """Return what `of_part` takes."""
        return asdict(self)

    def shard(self, index: str, id_: str | None, routing: str | None) -> int | None:
        """Return the number of the shard; None when only the cluster knows it.

        Raises:
            ClusterError: neither an id nor a routing value; or one alone, on a partitioned index.
        """
        value = id_ if routing is None else routing
        if value is None:
            raise ClusterError("the shard of which document? Give id=, or routing=")
        if self.partition > 1 and (id_ is None or routing is None):
            raise ClusterError(f"{index!a} is a partitioned index: its documents need both id= and routing=")
        if not self.known:
            return None
        offset = routing_hash(id_) % self.partition if self.partition > 1 and id_ is not None else 0
        return signed(routing_hash(value) + offset) % self.space // (self.space // self.shards)


@lru_cache(maxsize=256)
def _shared(shards: int, space: int, partition: int, known: bool) -> ShardHashing:
    """Return one object for all indices that are alike."""
    return ShardHashing(shards, space, partition, known)


def whole_setting(index: Fields, settings: Mapping[str, object], name: str, default: int) -> int:
    """Return a setting that is a number: they are all written as text."""
    given = settings.get(name)
    if given is None:
        return default
    text = given if isinstance(given, str) else ""
    if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) < 12):
        raise ClusterDocumentError(f"{index.place('settings')}: {name} must be a whole number")
    return int(text)
