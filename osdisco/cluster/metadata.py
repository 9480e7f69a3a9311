"""The metadata: indices with their settings and aliases, and what else the cluster keeps."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

from attrs import field, frozen

from osdisco.cluster._fields import Fields, flat, numbered
from osdisco.cluster._hashing import ShardHashing, whole_setting
from osdisco.cluster._table import Table, read_only
from osdisco.errors import ClusterError, nearest

Setting = str | tuple[str, ...]

_OWN: Final = ("cluster_uuid", "cluster_uuid_committed", "cluster_coordination", "settings", "version")
"""Fields of the metadata itself; all others are customs."""


@frozen(weakref_slot=False)
class IndexMetadata:
    """What an index is.

    Args:
        uuid: another one when an index was deleted and made anew under the same name.
        state: `open` or `close`.
        version: rises with each change of this index's metadata.
        settings: by their full names, such as `index.number_of_shards`; as the cluster, all as text.
        hashing: what decides in which shard a document is; None when the metadata does not say.
        primary_terms: of each shard; rises when another copy becomes the primary.
    """

    index: str
    uuid: str = ""
    state: str = ""
    version: int = 0
    mapping_version: int = 0
    settings_version: int = 0
    aliases_version: int = 0
    aliases: tuple[str, ...] = ()
    system: bool = False
    number_of_shards: int = 0
    number_of_replicas: int = 0
    hashing: ShardHashing | None = None
    settings: Mapping[str, Setting] = field(factory=dict, hash=False, repr=False)
    primary_terms: Mapping[int, int] = field(factory=dict, hash=False, repr=False)

    @property
    def closed(self) -> bool:
        """Whether the index is closed: neither read nor written until somebody opens it."""
        return self.state == "close"


@frozen
class ClusterMetadata:
    """What the cluster keeps.

    Args:
        indices: by their names.
        customs: what plugins and other parts of the cluster keep, such as `repositories` or `ingest`: as it came.
        settings: of the cluster, where its version shows them here (most do not).
        voting_config: ids of the nodes whose majority decides, as last committed.
        cluster_uuid_committed: whether the cluster's uuid can no longer change.
    """

    indices: Indices
    customs: Mapping[str, Any] = field(factory=dict, repr=False)
    settings: Mapping[str, Setting] = field(factory=dict, repr=False)
    voting_config: tuple[str, ...] = ()
    cluster_uuid_committed: bool = False

    @property
    def aliases(self) -> Mapping[str, tuple[IndexMetadata, ...]]:
        """The indices that each alias stands for."""
        return self.indices.by_alias()

    def index(self, name: str) -> IndexMetadata:
        """Return an index by its name or by an alias that only it has.

        Raises:
            ClusterError: there is none, or the alias stands for several.
        """
        found = self.resolve(name)
        if len(found) != 1:
            raise ClusterError(f"{name!a} stands for {len(found)} indices: name one of them")
        return found[0]

    def resolve(self, name: str) -> tuple[IndexMetadata, ...]:
        """Return the indices that a name, or an alias, stands for. Raises ClusterError when there are none."""
        if (one := self.indices.get(name)) is not None:
            return (one,)
        if not (found := self.aliases.get(name, ())):
            raise ClusterError(f"the cluster has no index {name!a}{nearest(name, self.indices)}")
        return found


class Indices(Table[IndexMetadata]):
    """The indices by their names."""

    __slots__ = ()

    def by_alias(self) -> Mapping[str, tuple[IndexMetadata, ...]]:
        """Return the indices that each alias stands for."""
        return self._grouped("alias", lambda index: index.aliases)


def index_metadata_of(index: str, given: Any, place: str) -> IndexMetadata:
    """Read an index's metadata from its part. Raises ClusterDocumentError."""
    fields = Fields(given, place)
    settings = _settings(fields)
    terms = fields.inside("primary_terms")
    return IndexMetadata(
        index=index,
        uuid=str(settings.get("index.uuid", "")),
        state=fields.name("state") or "",
        version=fields.whole("version"),
        mapping_version=fields.whole("mapping_version"),
        settings_version=fields.whole("settings_version"),
        aliases_version=fields.whole("aliases_version"),
        aliases=tuple(sorted(fields.texts("aliases"))),
        system=fields.flag("system"),
        number_of_shards=whole_setting(fields, settings, "index.number_of_shards", 0),
        number_of_replicas=whole_setting(fields, settings, "index.number_of_replicas", 0),
        hashing=ShardHashing.of_metadata(fields, settings),
        settings=settings,
        primary_terms=read_only({numbered(name, terms.at(name)): terms.whole(name) for name, _ in terms.items()}),
    )


def metadata_of(indices: Indices, given: Any, place: str) -> ClusterMetadata:
    """Read what is not of one index from the part `rest`. Raises ClusterDocumentError."""
    fields = Fields(given, place)
    return ClusterMetadata(
        indices,
        read_only({name: value for name, value in fields.items() if name not in _OWN}),
        _settings(fields),
        fields.inside("cluster_coordination").texts("last_committed_config"),
        fields.flag("cluster_uuid_committed"),
    )


def _settings(fields: Fields) -> Mapping[str, Setting]:
    return read_only({sys.intern(name): value for name, value in flat(fields.inside("settings").raw())})
