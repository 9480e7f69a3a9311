"""Builds states from packs, of which most are known from the state before.

    builder = StateBuilder()
    missing = builder.needs(StateComponent.NODES, shas)     # only these need to be fetched
    texts = {sha: expand(…) for sha in missing}
    state = builder.build(header, {StateComponent.NODES: [(sha, texts.get(sha)) for sha in shas], …})

One builder belongs to one reader, and does one thing at a time; it may do it in a thread. It works through small
pieces, so another thread, such as that of the event loop, runs between any two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, TypeVar

from attrs import evolve, field, frozen

from osdisco.cluster._cut import GLOBAL, INDEX, REST
from osdisco.cluster._fields import within
from osdisco.cluster._json import parse
from osdisco.cluster._pack import lines
from osdisco.cluster._table import Table, read_only
from osdisco.cluster.blocks import ClusterBlocks, blocks_of
from osdisco.cluster.components import StateComponent
from osdisco.cluster.metadata import ClusterMetadata, Indices, index_metadata_of, metadata_of
from osdisco.cluster.nodes import ClusterNodes, node_of
from osdisco.cluster.routing import RoutingTable, index_routing_of, sharing
from osdisco.cluster.state import ClusterState, StateHeader
from osdisco.errors import ClusterDocumentError

Given = Mapping[StateComponent, Sequence[tuple[str, bytes | None]]]
"""For each component its packs in order: the address, and the text unless the builder has it."""


class StateBuilder:
    """Builds one state after the other, each of the objects of the last one as far as they did not change.

    Args:
        raw: also keep what the cluster said; see `ClusterState.raw`.
    """

    def __init__(self, raw: bool = False) -> None:
        self._raw: Final = raw
        self._kept: dict[StateComponent, _Kept] = {}

    def needs(self, component: StateComponent, shas: Iterable[str]) -> list[str]:
        """Return which packs `build` needs the text of, in order: it has the others."""
        kept = self._kept.get(component)
        return [sha for sha in dict.fromkeys(shas) if kept is None or sha not in kept.packs]

    def build(self, header: StateHeader, packs: Given) -> ClusterState:
        """Build a state of exactly the components whose packs are given; what is kept of others is let go of.

        Args:
            packs: texts must be what `expand` gave for their addresses, which is not looked at again.

        Raises:
            ClusterDocumentError: a pack is missing or malformed, a part is in two of them, or a field of a part is of
                another type, and where. The builder is then as it was before.
        """
        kept = {component: self._component(component, given) for component, given in packs.items()}
        self._kept = kept
        tables = read_only({component: one.table for component, one in kept.items()})
        return ClusterState(header, tables, self._raw_of(kept) if self._raw else None)

    def _component(self, component: StateComponent, given: Sequence[tuple[str, bytes | None]]) -> _Kept:
        before = self._kept.get(component, _NOTHING)
        shas = [sha for sha, _ in given]
        if before is not _NOTHING and shas == list(before.packs):
            return before
        packs = {sha: self._pack(component, before, sha, text) for sha, text in given}
        parts = {name: part for pack in packs.values() for name, part in pack.items()}
        if len(parts) != sum(map(len, packs.values())) or len(packs) != len(given):
            raise ClusterDocumentError(f"{component}: a part is in two packs")
        return _Kept(packs, parts, _table(component, before.table, parts))

    def _pack(self, component: StateComponent, before: _Kept, sha: str, text: bytes | None) -> dict[str, _Part]:
        if (known := before.packs.get(sha)) is not None:
            return known
        if text is None:
            raise ClusterDocumentError(f"{component}: pack {sha:.12} is missing")
        return {name: self._part(component, before.parts.get(name), name, data) for name, data in lines(text)}

    def _part(self, component: StateComponent, before: _Part | None, name: str, data: bytes) -> _Part:
        digest = blake2b(data, digest_size=16).digest()
        if before is not None and before.digest == digest:
            return before
        read, place, key = _reading(component, name)
        given = parse(data, place)
        made = read(key, given, place)
        if before is not None:
            made = sharing(before.made, made) if component is StateComponent.ROUTING_TABLE else _same(before.made, made)
        return _Part(digest, made, given if self._raw else None)

    def _raw_of(self, kept: Mapping[StateComponent, _Kept]) -> Mapping[StateComponent, Mapping[str, Any]]:
        given = {
            component: read_only({name: part.given for name, part in one.parts.items()})
            for component, one in kept.items()
        }
        return read_only(given)


@frozen(weakref_slot=False)
class _Part:
    """A part as it was last built, and what it was built of if that is to be kept."""

    digest: bytes
    made: Any
    given: Any = None


@frozen
class _Kept:
    """A component as it was last built."""

    packs: dict[str, dict[str, _Part]] = field(factory=dict)
    parts: dict[str, _Part] = field(factory=dict)
    table: Any = None


_NOTHING: Final = _Kept()

V = TypeVar("V")
Reading = Callable[[str, Any, str], Any]


def _reading(component: StateComponent, name: str) -> tuple[Reading, str, str]:
    """Return how to read a part, where it is in the cluster's own answer, and its name there.

    Raises:
        ClusterDocumentError: it belongs to no component, or to another one.
    """
    if component is StateComponent.NODES:
        return node_of, within("nodes", name), name
    if name.startswith(INDEX):
        key = name.removeprefix(INDEX)
        return _OF_INDEX[component], within(f"{component}.indices", key), key
    if (component, name) in _OF_ALL:
        return _OF_ALL[component, name], component.value if name == REST else f"{component}.{name}", name
    raise ClusterDocumentError(f"{component} has a part that does not belong there")


def _metadata_of(_: str, given: Any, place: str) -> ClusterMetadata:
    return metadata_of(_NO_INDICES, given, place)


_NO_INDICES: Final = Indices({})
_NO_METADATA: Final = ClusterMetadata(_NO_INDICES)

_OF_INDEX: Final[Mapping[StateComponent, Reading]] = {
    StateComponent.METADATA: index_metadata_of,
    StateComponent.ROUTING_TABLE: index_routing_of,
    StateComponent.BLOCKS: blocks_of,
}
_OF_ALL: Final[Mapping[tuple[StateComponent, str], Reading]] = {
    (StateComponent.METADATA, REST): _metadata_of,
    (StateComponent.BLOCKS, GLOBAL): blocks_of,
}


def _table(component: StateComponent, before: Any, parts: Mapping[str, _Part]) -> Any:
    """Return what users see of a component: what they saw `before` when nothing in it changed."""
    if component is StateComponent.NODES:
        return _shared(ClusterNodes, before, {name: parts[name].made for name in sorted(parts)})
    indices = {name.removeprefix(INDEX): parts[name].made for name in sorted(parts) if name.startswith(INDEX)}
    if component is StateComponent.ROUTING_TABLE:
        return _shared(RoutingTable, before, indices)
    if component is StateComponent.BLOCKS:
        everywhere = parts[GLOBAL].made if GLOBAL in parts else ()
        return _same(before, ClusterBlocks({name: some for name, some in indices.items() if some}, everywhere))
    rest = parts[REST].made if REST in parts else _NO_METADATA
    return _same_metadata(before, evolve(rest, indices=_shared(Indices, before and before.indices, indices)))


def _shared(table: type[Table[Any]], before: Table[Any] | None, items: dict[str, Any]) -> Table[Any]:
    if before is not None and len(before) == len(items) and all(before.get(key) is one for key, one in items.items()):
        return before
    return table(items)


def _same_metadata(before: ClusterMetadata | None, now: ClusterMetadata) -> ClusterMetadata:
    """Return the metadata of before when all of it is the same: its indices by `is`, of which there may be many."""
    if before is None or before.indices is not now.indices:
        return now
    return _same(before, now)


def _same(before: V, now: V) -> V:
    return before if before == now else now
