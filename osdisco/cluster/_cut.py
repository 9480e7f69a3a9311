"""Takes the cluster's answers apart: into parts, the smallest things that are shared, stored and decoded by themselves.

    cut = cut_state(await source.state())
    infos = cut_nodes(await source.nodes())               # for `join_nodes`, in `_join.py`
    cut.parts[StateComponent.ROUTING_TABLE]["index/logs"] # canonical JSON

This is what the mirror runs, in a thread when a body is large. It looks at places, not at what the parts mean: whoever
publishes them builds a state of them first (`StateBuilder`), so that what readers would refuse is never published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import field, frozen

from osdisco.cluster._fields import Fields, flat, shown, within
from osdisco.cluster._hashing import ShardHashing
from osdisco.cluster._json import Walker, encoded, parse
from osdisco.cluster.components import StateComponent
from osdisco.cluster.state import NUMBER_MAX, StateHeader
from osdisco.errors import ClusterDocumentError, ClusterUnavailableError

REST: Final = "rest"
"""The part that holds what is left of the metadata without indices and templates."""
GLOBAL: Final = "global"
"""The part with the blocks of the whole cluster."""
INDEX: Final = "index/"
"""What the names of an index's parts begin with."""

_UNKNOWN: Final = "_na_"
_SCALARS: Final = ("cluster_name", "cluster_uuid", "version", "state_uuid", "cluster_manager_node", "master_node")
_UNREAD: Final = ("mappings",)
"""Of an index: most of the bytes of a state, and nothing here reads them. A source may leave them out, too."""
_INFO: Final = ("name", "transport_address", "host", "ip", "version", "roles", "attributes")
"""Of `/_nodes`: all that changes only when a node does."""


@frozen
class CutState:
    """An answer to `/_cluster/state` in parts.

    Args:
        header: without the time of the observation, which whoever asked knows.
        parts: canonical JSON by name, of all four components: nodes `<id>`; metadata and routing table `index/<name>`,
            and of metadata `rest`; blocks `global` and `index/<name>`.
        voting_exclusions: ids and names of nodes that are on their way out of the voting configuration.
    """

    header: StateHeader
    parts: Mapping[StateComponent, dict[str, bytes]]
    voting_exclusions: frozenset[str] = frozenset()


def cut_state(body: bytes) -> CutState:
    """Take an answer to `/_cluster/state` apart, one index at a time.

    An index's part of the routing table also gets from the metadata what decides in which shard a document is, and the
    aliases, so that a reader of the routing table alone can tell it.

    Raises:
        ClusterDocumentError: not JSON, cut short, or a field at a place that it says is missing or of another type.
        ClusterUnavailableError: the node that answered has not learned of any state yet.
    """
    cutter = _Cutter(Walker(body, "the cluster state"))
    cutter.run()
    return cutter.result()


def cut_nodes(body: bytes) -> dict[str, bytes]:
    """Return what `/_nodes` says of each node that answered, by id: canonical JSON of what changes only with the node.

    Raises:
        ClusterDocumentError: not JSON, cut short, or without nodes.
    """
    walker = Walker(body, "the answer of /_nodes")
    found: dict[str, bytes] = {}
    for name in walker.members("the answer of /_nodes"):
        if name != "nodes":
            walker.value(shown(name))
            continue
        for id_ in walker.members("nodes"):
            place = within("nodes", id_)
            found[id_] = _info(walker.value(place), place)
    walker.end()
    if not found:
        raise ClusterDocumentError("the answer of /_nodes has no nodes")
    return found


def cut_settings(body: bytes) -> dict[str, str]:
    """Return the cluster's settings by their full names; a transient one goes before a persistent one.

    Raises:
        ClusterDocumentError: not JSON, cut short, or a field of another type.
    """
    given = Fields(parse(body, "the answer of /_cluster/settings"), "settings")
    found: dict[str, str] = {}
    for name in ("defaults", "persistent", "transient"):
        for key, value in flat(given.inside(name).raw()):
            found[key] = value if isinstance(value, str) else ",".join(value)
    return found


def _info(given: Any, place: str) -> bytes:
    fields = Fields(given, place)
    kept = {name: value for name, value in fields.items() if name in _INFO}
    http = fields.inside("http").optional("publish_address")
    return encoded(kept if http is None else {**kept, "http": {"publish_address": http}}, place)


@frozen
class _Cutter:
    """Walks through an answer once, and keeps what it passes."""

    walker: Walker
    scalars: dict[str, Any] = field(factory=dict)
    parts: dict[StateComponent, dict[str, bytes]] = field(factory=lambda: {one: {} for one in StateComponent})
    rest: dict[str, Any] = field(factory=dict)
    choices: dict[str, bytes] = field(factory=dict)
    """For each index what its part of the routing table gets from the metadata, which may come before it or behind."""

    def run(self) -> None:
        """Go through the whole text."""
        sections: dict[str, Callable[[], None]] = {
            "nodes": self._nodes,
            "metadata": self._metadata,
            "routing_table": self._routing_table,
            "blocks": self._blocks,
        }
        for name in self.walker.members("the cluster state"):
            if (section := sections.get(name)) is not None:
                section()
            elif name in _SCALARS:
                self.scalars[name] = self.walker.value(name)
            else:
                self.walker.value(shown(name))
        self.walker.end()

    def result(self) -> CutState:
        """Put together what was found. Raises as `cut_state` does."""
        rest = Fields(self.rest, "metadata")
        coordination = rest.inside("cluster_coordination")
        header = _header(Fields(self.scalars, "the cluster state"), coordination.whole("term"))
        self._check_whole()
        self._join()
        self.parts[StateComponent.METADATA][REST] = encoded(self.rest, "metadata")
        excluded = {
            one.text(name)
            for one in coordination.entries("voting_config_exclusions")
            for name in ("node_id", "node_name")
        }
        return CutState(header, self.parts, frozenset(excluded - {"", "_absent_"}))

    def _nodes(self) -> None:
        for id_ in self.walker.members("nodes"):
            self.parts[StateComponent.NODES][id_] = self.walker.piece(within("nodes", id_))

    def _metadata(self) -> None:
        for name in self.walker.members("metadata"):
            if name == "indices":
                for index in self.walker.members("metadata.indices"):
                    self._index(index, within("metadata.indices", index))
            else:
                value = self.walker.value(f"metadata.{shown(name)}")
                if name != "templates":
                    self.rest[name] = value

    def _index(self, index: str, place: str) -> None:
        given = self.walker.value(place)
        fields = Fields(given, place)
        hashing = ShardHashing.of_metadata(fields, dict(flat(fields.inside("settings").raw())))
        choice = {"aliases": sorted(fields.texts("aliases")), "hashing": hashing and hashing.part()}
        self.choices[index] = encoded(choice, place)
        kept = {name: value for name, value in given.items() if name not in _UNREAD}
        self.parts[StateComponent.METADATA][INDEX + index] = encoded(kept, place)

    def _routing_table(self) -> None:
        for name in self.walker.members("routing_table"):
            if name != "indices":
                self.walker.value(f"routing_table.{shown(name)}")
                continue
            for index in self.walker.members("routing_table.indices"):
                place = within("routing_table.indices", index)
                shards = Fields(self.walker.value(place), place).inside("shards").raw()
                self.parts[StateComponent.ROUTING_TABLE][INDEX + index] = encoded(shards, place)

    def _blocks(self) -> None:
        blocks = self.parts[StateComponent.BLOCKS]
        for name in self.walker.members("blocks"):
            if name == "indices":
                for index in self.walker.members("blocks.indices"):
                    blocks[INDEX + index] = self.walker.piece(within("blocks.indices", index))
            elif name == "global":
                blocks[GLOBAL] = self.walker.piece("blocks.global")
            else:
                self.walker.value(f"blocks.{shown(name)}")

    def _check_whole(self) -> None:
        """Refuse what would look as if all nodes or indices were gone: only empty blocks may be left out."""
        indices = self.parts[StateComponent.METADATA]
        there = {
            StateComponent.NODES: bool(self.parts[StateComponent.NODES]),
            StateComponent.METADATA: bool(indices or self.rest),
            StateComponent.ROUTING_TABLE: bool(self.parts[StateComponent.ROUTING_TABLE] or not indices),
        }
        for component, whole in there.items():
            if not whole:
                raise ClusterDocumentError(f"the cluster state has no {component}")

    def _join(self) -> None:
        tables = self.parts[StateComponent.ROUTING_TABLE]
        for name, shards in tables.items():
            choice = self.choices.get(name.removeprefix(INDEX), b'{"aliases":[],"hashing":null}')
            tables[name] = choice[:-1] + b',"shards":' + shards + b"}"


def _header(given: Fields, term: int) -> StateHeader:
    uuid, state_uuid = given.text("cluster_uuid"), given.text("state_uuid")
    if _UNKNOWN in (uuid, state_uuid):
        raise ClusterUnavailableError("the node that answered has not learned of any state yet")
    for name in ("cluster_name", "cluster_uuid", "version", "state_uuid"):
        if not given.has(name):
            raise ClusterDocumentError(f"the cluster state has no {name}")
    version = given.whole("version")
    if not (0 <= version <= NUMBER_MAX and 0 <= term <= NUMBER_MAX and uuid and state_uuid):
        raise ClusterDocumentError("the cluster state: no cluster has this version or term, or a uuid is empty")
    manager = given.optional("cluster_manager_node") or given.optional("master_node")
    return StateHeader(given.text("cluster_name"), uuid, version, state_uuid, term, manager)
