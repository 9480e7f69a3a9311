"""What the REST interface of a cluster on paper answers: the shapes are those of OpenSearch's own `toXContent`.

https://github.com/opensearch-project/OpenSearch: ClusterState, ShardRouting, UnassignedInfo, NodesInfoResponse,
ClusterHealthResponse, ClusterSearchShardsResponse, ClusterGetSettingsResponse.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, lru_cache
from typing import Any, Final
from urllib.parse import unquote

from attrs import frozen

from osdisco.cluster._murmur3 import routing_hash
from osdisco.testing._search_model import BLOCKS, ClusterModel, FakeNode, Shard

_METRICS: Final = ("version", "blocks", "nodes", "metadata", "routing_table", "routing_nodes")
_STATE_PARAMS: Final = frozenset(
    (
        *("local", "master_timeout", "flat_settings", "expand_wildcards", "ignore_unavailable", "allow_no_indices"),
        *("wait_for_metadata_version", "wait_for_timeout"),
        *("filter_path", "pretty", "human", "error_trace", "format"),
    )
)
_ACTIVE: Final = ("STARTED", "RELOCATING")


@frozen
class Answer:
    """A status and a document."""

    status: int
    document: Any

    @cached_property
    def body(self) -> bytes:
        """The document as JSON."""
        return json.dumps(self.document, separators=(",", ":")).encode()


def answer(model: ClusterModel, path: str, params: Mapping[str, str]) -> Answer:
    """Answer a GET, as the cluster does that the model is of."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if problem := _unknown_parameter(model, parts, params):
        return problem
    found = _route(model, parts, params)
    if isinstance(found, Answer):
        return found
    return Answer(200, filtered(found, params.get("filter_path", "")))


def _route(model: ClusterModel, parts: list[str], params: Mapping[str, str]) -> Any:
    if parts == [""]:
        return _root(model)
    if parts[:2] == ["_cluster", "state"] and len(parts) <= 4:
        return _state(model, *parts[2:])
    if parts[0] == "_nodes" and len(parts) <= 3:
        return _nodes(model)
    if len(parts) == 2 and parts[1] == "_search_shards":
        return _search_shards(model, parts[0], params.get("routing"))
    single = _SINGLE.get("/".join(parts))
    return single(model, params) if single else _no_handler(parts)


def _unknown_parameter(model: ClusterModel, parts: list[str], params: Mapping[str, str]) -> Answer | None:
    """Refuse a parameter that there is not, as the cluster does; of the state, where versions differ in them."""
    if parts[:2] != ["_cluster", "state"]:
        return None
    known = _STATE_PARAMS if _is_old(model) else _STATE_PARAMS | {"cluster_manager_timeout"}
    unknown = sorted(set(params) - known)
    if not unknown:
        return None
    said = f"request [/{'/'.join(parts)}] contains unrecognized parameter: [{unknown[0]}]"
    return _error(400, "illegal_argument_exception", said)


def _is_old(model: ClusterModel) -> bool:
    """Whether it is of the time before `master` was called `cluster_manager`."""
    return model.release.startswith("1.")


def _root(model: ClusterModel) -> dict[str, Any]:
    return {
        "name": next((node.name for node in model.nodes.values()), "none"),
        "cluster_name": model.name,
        "cluster_uuid": model.cluster_uuid,
        "version": {"distribution": "opensearch", "number": model.release, "build_type": "tar"},
        "tagline": "The OpenSearch Project: https://opensearch.org/",
    }


def _state(model: ClusterModel, metrics: str = "_all", indices: str = "_all") -> dict[str, Any]:
    asked = set(metrics.split(","))
    if "_all" in asked:
        asked = {*_METRICS, "master_node", "cluster_manager_node"}
    shown = _chosen(model, indices)
    state: dict[str, Any] = {"cluster_name": model.name, "cluster_uuid": model.cluster_uuid}
    if "version" in asked:
        state |= {"version": model.version, "state_uuid": model.state_uuid}
    if "master_node" in asked:
        state["master_node"] = model.manager
    if "cluster_manager_node" in asked and not _is_old(model):
        state["cluster_manager_node"] = model.manager
    makers: dict[str, Callable[[], Any]] = {
        "blocks": lambda: _blocks(model),
        "nodes": lambda: {id_: _in_state(node) for id_, node in model.nodes.items()},
        "metadata": lambda: _metadata(model, shown),
        "routing_table": lambda: {"indices": {name: {"shards": model.routing[name]} for name in shown}},
        "routing_nodes": lambda: _routing_nodes(model),
    }
    return state | {metric: make() for metric, make in makers.items() if metric in asked}


def _chosen(model: ClusterModel, indices: str) -> list[str]:
    """Return the indices that are meant by names, aliases and patterns; those that there are not are left out."""
    if indices in ("_all", "*", ""):
        return list(model.indices)
    patterns = [_pattern(one) for one in indices.split(",")]
    return [
        name
        for name, index in model.indices.items()
        if any(pattern.match(one) for pattern in patterns for one in (name, *index["aliases"]))
    ]


def _in_state(node: FakeNode) -> dict[str, Any]:
    return {
        "name": node.name,
        "ephemeral_id": node.ephemeral_id,
        "transport_address": f"{node.address}:9300",
        "attributes": node.attributes,
    }


def _blocks(model: ClusterModel) -> dict[str, Any]:
    """Nothing stands where there are none: the cluster leaves both parts out."""
    by_index = {name: _block_list(blocks) for name, blocks in model.blocks.items() if blocks}
    shown = {"global": _block_list(model.global_blocks), "indices": by_index}
    return {part: blocks for part, blocks in shown.items() if blocks}


def _block_list(names: Iterable[str]) -> dict[str, Any]:
    shown = {}
    for number, description, retryable, levels in sorted(BLOCKS[name] for name in names):
        shown[str(number)] = {"description": description, "retryable": retryable, "levels": list(levels)}
    return shown


def _metadata(model: ClusterModel, shown: Iterable[str]) -> dict[str, Any]:
    managers = [id_ for id_ in model.nodes if model.may_manage(id_)]
    excluded = [{"node_id": id_, "node_name": name} for id_, name in sorted(model.voting_exclusions.items())]
    return {
        "cluster_uuid": model.cluster_uuid,
        "cluster_uuid_committed": True,
        "cluster_coordination": {
            "term": model.term,
            "last_committed_config": managers,
            "last_accepted_config": managers,
            "voting_config_exclusions": excluded,
        },
        "templates": {"logs": {"order": 0, "index_patterns": ["logs-*"], "settings": {}, "mappings": {}}},
        "indices": {name: model.indices[name] for name in shown},
        "index-graveyard": {"tombstones": model.tombstones},
    }


def _routing_nodes(model: ClusterModel) -> dict[str, Any]:
    by_node: dict[str, list[Shard]] = {id_: [] for id_ in model.nodes}
    unassigned = []
    for shard in _all_shards(model):
        by_node[shard["node"]].append(shard) if shard["node"] else unassigned.append(shard)
    return {"unassigned": unassigned, "nodes": by_node}


def _all_shards(model: ClusterModel) -> Iterable[Shard]:
    return (shard for groups in model.routing.values() for group in groups.values() for shard in group)


def _nodes(model: ClusterModel) -> dict[str, Any]:
    silent = [node for node in model.nodes.values() if not node.answers]
    head: dict[str, Any] = {
        "total": len(model.nodes),
        "successful": len(model.nodes) - len(silent),
        "failed": len(silent),
    }
    if silent:
        head["failures"] = [
            {"type": "failed_node_exception", "reason": f"Failed node [{node.id}]", "node_id": node.id}
            for node in silent
        ]
    answering = {id_: _info(node) for id_, node in model.nodes.items() if node.answers}
    return {"_nodes": head, "cluster_name": model.name, "nodes": answering}


def _info(node: FakeNode) -> dict[str, Any]:
    address = f"{node.address}:9200"
    return {
        "name": node.name,
        "transport_address": f"{node.address}:9300",
        "host": node.host,
        "ip": node.host,
        "version": node.version,
        "build_type": "tar",
        "build_hash": "unknown",
        "roles": list(node.roles),
        **({"attributes": node.attributes} if node.attributes else {}),
        "http": {"bound_address": [address], "publish_address": address, "max_content_length_in_bytes": 104857600},
    }


def _settings(model: ClusterModel, params: Mapping[str, str]) -> dict[str, Any]:
    flat = params.get("flat_settings") in ("true", "")
    return {"persistent": model.settings if flat else _nested(model.settings), "transient": {}}


def _nested(settings: Mapping[str, str]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for key, value in settings.items():
        *path, last = key.split(".")
        inner = shown
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return shown


def _health(model: ClusterModel, params: Mapping[str, str]) -> dict[str, Any]:
    shards = list(_all_shards(model))
    states = Counter(shard["state"] for shard in shards)
    active = states["STARTED"] + states["RELOCATING"]
    primaries = [shard for shard in shards if shard["primary"]]
    missing = any(shard["state"] not in _ACTIVE for shard in primaries)
    return {
        "cluster_name": model.name,
        "status": "red" if missing else "yellow" if active < len(shards) else "green",
        "timed_out": False,
        "number_of_nodes": len(model.nodes),
        "number_of_data_nodes": sum("data" in node.roles for node in model.nodes.values()),
        "discovered_master": model.manager is not None,
        **({} if _is_old(model) else {"discovered_cluster_manager": model.manager is not None}),
        "active_primary_shards": sum(shard["state"] in _ACTIVE for shard in primaries),
        "active_shards": active,
        "relocating_shards": states["RELOCATING"],
        "initializing_shards": states["INITIALIZING"],
        "unassigned_shards": states["UNASSIGNED"],
        "delayed_unassigned_shards": 0,
        "number_of_pending_tasks": 0,
        "number_of_in_flight_fetch": 0,
        "task_max_waiting_in_queue_millis": 0,
        "active_shards_percent_as_number": 100.0 * active / len(shards) if shards else 100.0,
    }


_SINGLE: Final[Mapping[str, Callable[[ClusterModel, Mapping[str, str]], dict[str, Any]]]] = {
    "_cluster/settings": _settings,
    "_cluster/health": _health,
}


def _search_shards(model: ClusterModel, names: str, routing: str | None) -> Any:
    for name in names.split(","):
        if not _chosen(model, name) and "*" not in name:
            return _no_such_index(name)
    groups: list[list[Shard]] = []
    homes: set[str] = set()
    shown = _chosen(model, names)
    for index in shown:
        for number in _numbers(model, index, routing):
            placed = [shard for shard in model.routing[index][str(number)] if shard["node"] is not None]
            homes.update(shard["node"] for shard in placed)
            groups.append(placed)
    return {
        "nodes": {id_: _in_state(model.nodes[id_]) for id_ in sorted(homes)},
        "indices": {index: _aliases(model, index, names) for index in shown},
        "shards": groups,
    }


def _aliases(model: ClusterModel, index: str, names: str) -> dict[str, Any]:
    aliases = sorted({*names.split(",")} & {*model.indices[index]["aliases"]})
    return {"aliases": aliases} if aliases else {}


def _numbers(model: ClusterModel, index: str, routing: str | None) -> list[int]:
    """Return the shards that a search goes to, as `OperationRouting.computeTargetedShards` does."""
    metadata = model.indices[index]
    shards, spread = len(model.routing[index]), metadata["routing_num_shards"]
    if routing is None:
        return list(range(shards))
    partition = int(metadata["settings"]["index"].get("routing_partition_size", "1"))
    found = {
        (routing_hash(value) + offset) % spread // (spread // shards)
        for value in routing.split(",")
        for offset in range(partition)
    }
    return sorted(found)


def _no_handler(parts: list[str]) -> Answer:
    path = "/".join(parts)
    return Answer(400, {"error": f"no handler found for uri [/{path}] and method [GET]"})


def _no_such_index(name: str) -> Answer:
    resource = {"resource.type": "index_or_alias", "resource.id": name, "index_uuid": "_na_", "index": name}
    return _error(404, "index_not_found_exception", f"no such index [{name}]", resource)


def _error(status: int, kind: str, reason: str, details: Mapping[str, str] | None = None) -> Answer:
    cause = {"type": kind, "reason": reason, **(details or {})}
    return Answer(status, {"error": {"root_cause": [cause], **cause}, "status": status})


def refusal(status: int, kind: str) -> Answer:
    """Return the answer of a node that cannot or must not."""
    return _error(status, kind, f"{kind.removesuffix('_exception')} on purpose")


def filtered(document: Any, filter_path: str) -> Any:
    """Leave of a document what `filter_path` lets through: names joined by dots, `*`, `**`, and `-` for all but."""
    patterns = [one for one in filter_path.split(",") if one]
    without = [tuple(one[1:].split(".")) for one in patterns if one.startswith("-")]
    only = [tuple(one.split(".")) for one in patterns if not one.startswith("-")]
    if without:
        document = _without(document, without)
    return _only(document, only) if only else document


_Path = tuple[str, ...]


def _without(value: Any, paths: list[_Path]) -> Any:
    if isinstance(value, list):
        return [_without(one, paths) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for key, inner in value.items():
        below = _below(paths, key)
        if () not in below:
            kept[key] = _without(inner, below) if below else inner
    return kept


def _only(value: Any, paths: list[_Path]) -> Any:
    """Return what is let through; what is left empty is left out."""
    if isinstance(value, list):
        return [shown for one in value if (shown := _only(one, paths)) not in ({}, None)]
    if not isinstance(value, dict):
        return None
    kept = {}
    for key, inner in value.items():
        below = _below(paths, key)
        shown = inner if () in below else _only(inner, below) if below else None
        if () in below or shown not in ({}, [], None):
            kept[key] = shown
    return kept


def _below(paths: list[_Path], key: str) -> list[_Path]:
    """Return what is left of the paths below a key; an empty one ends there."""
    left = []
    for path in paths:
        if path and path[0] == "**":
            left += [path, *(_below([path[1:]], key) if path[1:] else [()])]
        elif path and _pattern(path[0]).match(key):
            left.append(path[1:])
    return left


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text).replace(r"\*", ".*") + r"\Z")
