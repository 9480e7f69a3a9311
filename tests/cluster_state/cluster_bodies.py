"""Answers of a search cluster as tests need them, and a reader of what the mirror makes of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from osdisco.cluster._build import StateBuilder
from osdisco.cluster._cut import CutState, cut_nodes, cut_state
from osdisco.cluster._join import NodeAnswers, join_nodes, membership
from osdisco.cluster._pack import compress, expand, pack
from osdisco.cluster.components import StateComponent
from osdisco.cluster.state import ClusterState

FIXTURES = Path(__file__).parent / "fixtures"
STATE: dict[str, Any] = json.loads((FIXTURES / "cluster_state.json").read_text())
NODES: dict[str, Any] = json.loads((FIXTURES / "nodes_info.json").read_text())

ALL = frozenset(StateComponent)


def body(document: object) -> bytes:
    """Return a document as the cluster sends it."""
    return json.dumps(document, separators=(",", ":")).encode()


BODY = body(STATE)


def document() -> dict[str, Any]:
    """Return a state that the test may change."""
    return copy.deepcopy(STATE)


def put(document: Any, path: str, value: object) -> Any:
    """Put a copy of a value where a path with slashes leads; returns the document."""
    *way, last = path.split("/")
    inner = document
    for name in way:
        inner = inner[int(name)] if isinstance(inner, list) else inner[name]
    inner[int(last) if isinstance(inner, list) else last] = copy.deepcopy(value)
    return document


def changed(path: str, value: object) -> bytes:
    """Return the state of the fixture with another value where a path leads."""
    return body(put(document(), path, value))


def joined(given: bytes, nodes: bytes | None = None, settings: Mapping[str, str] | None = None) -> CutState:
    """Return a state in parts, nodes as the mirror joins them: asked right now unless `nodes` is given."""
    cut = cut_state(given)
    answers = NodeAnswers(cut_nodes(body(NODES) if nodes is None else nodes), membership(cut))
    cut.parts[StateComponent.NODES].update(join_nodes(cut, answers, settings or {}))
    return cut


class Reader:
    """What a reader has: it fetches only what it lacks, and `fetched` tells what that was."""

    def __init__(self, raw: bool = False) -> None:
        self.builder = StateBuilder(raw)
        self.fetched: list[str] = []
        self._ks: dict[StateComponent, int] = {}

    def read(self, given: bytes | CutState, components: frozenset[StateComponent] = ALL) -> ClusterState:
        """Build the next state."""
        cut = given if isinstance(given, CutState) else joined(given)
        self.fetched = []
        packs = {component: self._texts(component, cut) for component in StateComponent if component in components}
        return self.builder.build(cut.header, packs)

    def _texts(self, component: StateComponent, cut: CutState) -> list[tuple[str, bytes | None]]:
        packed = pack(cut.parts[component], self._ks.get(component))
        self._ks[component] = packed.k
        needed = self.builder.needs(component, [one.sha for one in packed.packs])
        self.fetched += needed
        return [
            (one.sha, expand(compress(one.text), len(one.text), one.sha) if one.sha in needed else None)
            for one in packed.packs
        ]


def large(indices: int, shards: int = 5) -> dict[str, Any]:
    """Return a state of so many indices, each with so many shards of two copies."""
    made = document()
    index, copy_of = made["metadata"]["indices"]["orders"], made["routing_table"]["indices"]["orders"]["shards"]["0"][0]
    made["metadata"]["indices"] = {f"logs-{number:06}": copy.deepcopy(index) for number in range(indices)}
    made["routing_table"]["indices"] = {
        name: {"shards": {str(shard): _copies(copy_of, name, shard) for shard in range(shards)}}
        for name in made["metadata"]["indices"]
    }
    made["blocks"] = {}
    for name, one in made["metadata"]["indices"].items():
        one["settings"]["index"] |= {"number_of_shards": str(shards), "uuid": f"uuid-{name}"}
        one["routing_num_shards"] = shards * 128
        one["aliases"] = [f"alias-of-{name}"]
    return made


def _copies(pattern: Mapping[str, Any], index: str, shard: int) -> list[dict[str, Any]]:
    return [
        {
            **pattern,
            "index": index,
            "shard": shard,
            "primary": node == "d1",
            "node": node,
            "allocation_id": {"id": f"{index}-{shard}-{node}"},
        }
        for node in ("d1", "d2")
    ]
