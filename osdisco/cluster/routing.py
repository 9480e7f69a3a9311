"""The routing table: which node has which copy of which shard, and in which shard a document is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final

from attrs import field, frozen

from osdisco.cluster._fields import Fields, kind, numbered
from osdisco.cluster._hashing import ShardHashing
from osdisco.cluster._table import Table, grouped, read_only
from osdisco.errors import ClusterDocumentError, ClusterError, nearest


class ShardState(Enum):
    """What a copy of a shard is doing."""

    UNASSIGNED = "UNASSIGNED"
    INITIALIZING = "INITIALIZING"
    STARTED = "STARTED"
    RELOCATING = "RELOCATING"
    """Started, and on its way to `relocating_node`."""
    UNKNOWN = "UNKNOWN"
    """A state that this version of osdisco does not know."""


@frozen
class UnassignedInfo:
    """Why a copy has no node, or had none before it began to initialize. `at`: as the cluster writes the time."""

    reason: str
    at: str = ""
    delayed: bool = False
    allocation_status: str = ""


@frozen(weakref_slot=False)  # there are many
class ShardRouting:
    """One copy of a shard.

    Args:
        node: the id of the node that has it; None while it is unassigned.
        relocating_node: where it is on its way to, or from.
        allocation_id: another one each time that a copy begins anew. `relocation_id` will be that of where it goes to.
        expected_size: bytes, while it is built up; None when the cluster does not say.
        recovery_source: what it is built up from, such as `PEER`.
    """

    index: str
    number: int
    primary: bool
    state: ShardState
    node: str | None = None
    relocating_node: str | None = None
    allocation_id: str | None = None
    relocation_id: str | None = None
    expected_size: int | None = None
    recovery_source: str | None = None
    unassigned: UnassignedInfo | None = None

    @property
    def active(self) -> bool:
        """Whether it answers requests: it is started, even if it is about to move."""
        return self.state in (ShardState.STARTED, ShardState.RELOCATING)


@frozen(weakref_slot=False)
class ShardGroup:
    """All copies of one shard; the primary comes first."""

    index: str
    number: int
    copies: tuple[ShardRouting, ...]

    @property
    def primary(self) -> ShardRouting:
        """The copy that takes writes; it may have no node at the moment.

        Raises:
            ClusterError: the index was scaled down to searches only, and so has none (`_scale`, 3.0 and later).
        """
        if self.copies and self.copies[0].primary:
            return self.copies[0]
        raise ClusterError(f"shard {self.number} of {self.index!a} has no primary: the index can only be searched")

    @property
    def replicas(self) -> tuple[ShardRouting, ...]:
        """The other copies."""
        return tuple(copy for copy in self.copies if not copy.primary)


@frozen
class IndexRouting:
    """The shards of one index, by their numbers.

    Args:
        aliases: other names of the index.
        hashing: what decides in which shard a document is; None when the metadata did not say.
    """

    index: str
    shards: Mapping[int, ShardGroup] = field(hash=False)
    aliases: tuple[str, ...] = ()
    hashing: ShardHashing | None = None

    def copies(self) -> Iterator[ShardRouting]:
        """Yield all copies of all shards."""
        for group in self.shards.values():
            yield from group.copies


class RoutingTable(Table[IndexRouting]):
    """The shards of all indices, by the indices' names."""

    __slots__ = ()

    def primaries(self) -> tuple[ShardRouting, ...]:
        """Return the primaries of all shards."""
        return self._once("primaries", lambda: tuple(copy for copy in self._copies() if copy.primary))

    def unassigned(self) -> tuple[ShardRouting, ...]:
        """Return the copies that have no node."""
        return self._once(
            "unassigned", lambda: tuple(copy for copy in self._copies() if copy.state is ShardState.UNASSIGNED)
        )

    def shards_on(self, node: str) -> tuple[ShardRouting, ...]:
        """Return the copies that a node has, by its id; not those that are still on their way to it."""
        return self._once("node", lambda: grouped(self._copies(), lambda copy: [copy.node])).get(node, ())

    def index(self, name: str) -> IndexRouting:
        """Return an index by its name or by an alias that only it has.

        Raises:
            ClusterError: there is none, or the alias stands for several.
        """
        if (found := self.get(name)) is not None:
            return found
        meant = self._grouped("alias", lambda index: index.aliases).get(name, ())
        if len(meant) == 1:
            return meant[0]
        if meant:
            names = ", ".join(sorted(index.index for index in meant)[:5])
            raise ClusterError(f"{name!a} stands for {len(meant)} indices, such as {names}: name one of them")
        raise ClusterError(f"the cluster has no index {name!a}{nearest(name, self)}")

    def shard_number(self, index: str, id: str | None = None, *, routing: str | None = None) -> int | None:
        """Return the number of the shard that has a document, or gets it; None when only the cluster itself knows it.

        Args:
            index: its name, or an alias that only it has.
            id: of the document.
            routing: the routing value that it was, or will be, written with. Without one the id decides.

        Raises:
            ClusterError: no such index; neither id nor routing; or one alone, on a partitioned index.
        """
        found = self.index(index)
        if found.hashing is None:
            return None
        number = found.hashing.shard(found.index, id, routing)
        return number if number in found.shards else None

    def shard_for(self, index: str, id: str | None = None, *, routing: str | None = None) -> ShardGroup:
        """Return the shard that has a document, or gets it; arguments as for `shard_number`.

        Raises:
            ClusterError: as there, and when only the cluster itself knows it: one with virtual or split shards.
        """
        number = self.shard_number(index, id, routing=routing)
        if number is None:
            raise ClusterError(f"only the cluster knows in which shard of {index!a} a document is: ask _search_shards")
        return self.index(index).shards[number]

    def _copies(self) -> Iterator[ShardRouting]:
        for index in self.values():
            yield from index.copies()


_STATES: Final = {state.value: state for state in ShardState}


def index_routing_of(index: str, given: Any, place: str) -> IndexRouting:
    """Read an index's routing from its part. Raises ClusterDocumentError."""
    part = Fields(given, place)
    shards = part.inside("shards")
    groups = (_group(index, number, copies, shards.at(number)) for number, copies in shards.items())
    found = {group.number: group for group in sorted(groups, key=lambda group: group.number)}
    hashing = ShardHashing.of_part(part.inside("hashing")) if part.has("hashing") else None
    return IndexRouting(index, read_only(found), part.texts("aliases"), hashing)


def sharing(old: IndexRouting, new: IndexRouting) -> IndexRouting:
    """Return `new` made of all of `old` that did not change; `old` itself when nothing did."""
    if old == new:
        return old
    shards = {number: _shared(old.shards.get(number), group) for number, group in new.shards.items()}
    return IndexRouting(new.index, read_only(shards), new.aliases, new.hashing)


def _shared(old: ShardGroup | None, new: ShardGroup) -> ShardGroup:
    if old is None or old == new:
        return old or new
    known = {copy: copy for copy in old.copies}
    return ShardGroup(new.index, new.number, tuple(known.get(copy, copy) for copy in new.copies))


def _group(index: str, number: str, given: Any, place: str) -> ShardGroup:
    if not isinstance(given, list):
        raise ClusterDocumentError(f"{place} must be a list, not {kind(given)}")
    shard = numbered(number, place)
    copies = [_copy(index, shard, Fields(one, f"{place}[{at}]")) for at, one in enumerate(given)]
    return ShardGroup(index, shard, tuple(sorted(copies, key=lambda copy: not copy.primary)))


def _copy(index: str, number: int, fields: Fields) -> ShardRouting:
    state = _STATES.get(fields.text("state"), ShardState.UNKNOWN)
    primary, node, relocating = fields.flag("primary"), fields.name("node"), fields.name("relocating_node")
    id_ = fields.inside("allocation_id")
    source = fields.inside("recovery_source").name("type") if fields.has("recovery_source") else None
    return ShardRouting(
        index,
        number,
        primary,
        state,
        node,
        relocating,
        id_.optional("id"),
        id_.optional("relocation_id"),
        fields.whole("expected_shard_size_in_bytes") if fields.has("expected_shard_size_in_bytes") else None,
        source,
        _unassigned(fields.inside("unassigned_info")) if fields.has("unassigned_info") else None,
    )


def _unassigned(fields: Fields) -> UnassignedInfo:
    return UnassignedInfo(
        fields.name("reason") or "",
        fields.text("at"),
        fields.flag("delayed"),
        fields.name("allocation_status") or "",
    )
