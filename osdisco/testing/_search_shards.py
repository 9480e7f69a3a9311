"""The copies of one shard of a cluster on paper: where they stand, are lost and come back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

Shard = dict[str, Any]

_AT: Final = "2026-01-01T00:00:00.000Z"


def copies(
    index: str, number: int, replicas: int, homes: Sequence[str], offset: int, allocations: Iterator[int]
) -> list[Shard]:
    """Return a primary and its replicas, each on a node of its own; without one it is unassigned."""
    made = []
    for copy in range(replicas + 1):
        shard = {
            "state": "UNASSIGNED",
            "primary": copy == 0,
            "node": None,
            "relocating_node": None,
            "shard": number,
            "index": index,
        }
        if copy < len(homes):
            start(shard, homes[(offset + copy) % len(homes)], allocations)
        else:
            unassign(shard, "INDEX_CREATED", new=copy == 0)
        made.append(shard)
    return made


def start(shard: Shard, node: str, allocations: Iterator[int]) -> None:
    """Let a copy be started on a node."""
    for gone in ("recovery_source", "unassigned_info", "expected_shard_size_in_bytes"):
        shard.pop(gone, None)
    shard |= {"state": "STARTED", "node": node, "relocating_node": None}
    shard["allocation_id"] = {"id": f"allocation-{next(allocations)}"}


def begin(shard: Shard, node: str, allocations: Iterator[int]) -> None:
    """Let an unassigned copy begin on a node."""
    shard |= {"state": "INITIALIZING", "node": node}
    shard["allocation_id"] = {"id": f"allocation-{next(allocations)}"}


def relocate(shard: Shard, node: str, allocations: Iterator[int]) -> None:
    """Let a copy be on its way to a node. The table of routing has no entry of its own for where it goes."""
    shard |= {"state": "RELOCATING", "relocating_node": node, "expected_shard_size_in_bytes": 1 << 20}
    shard["allocation_id"] = {"id": shard["allocation_id"]["id"], "relocation_id": f"allocation-{next(allocations)}"}


def unassign(shard: Shard, reason: str, *, new: bool = False) -> None:
    """Take a copy from its node."""
    for gone in ("allocation_id", "expected_shard_size_in_bytes"):
        shard.pop(gone, None)
    shard |= {"state": "UNASSIGNED", "node": None, "relocating_node": None}
    shard["recovery_source"] = _source(shard["primary"], new)
    shard["unassigned_info"] = {
        "reason": reason,
        "at": _AT,
        **({"failed_attempts": 1} if reason == "ALLOCATION_FAILED" else {}),
        "delayed": False,
        "allocation_status": "no_attempt",
    }


def _source(primary: bool, new: bool) -> dict[str, Any]:
    if not primary:
        return {"type": "PEER"}
    return {"type": "EMPTY_STORE"} if new else {"type": "EXISTING_STORE", "bootstrap_new_history_uuid": False}


def lose_node(group: list[Shard], node: str) -> bool:
    """Take the copies of a shard from a node that is gone. Returns whether another copy became the primary."""
    promoted = False
    for shard in list(group):
        if shard["relocating_node"] == node:
            _stay(shard)
        if shard["node"] == node:
            promoted |= lose(group, shard, "NODE_LEFT")
    return promoted


def _stay(shard: Shard) -> None:
    shard |= {"state": "STARTED", "relocating_node": None}
    shard["allocation_id"] = {"id": shard["allocation_id"]["id"]}
    shard.pop("expected_shard_size_in_bytes", None)


def lose(group: list[Shard], shard: Shard, reason: str) -> bool:
    """Take one copy from its node; a replica that is started becomes the primary in its stead, and stands first."""
    heir = next((one for one in group if not one["primary"] and one["state"] in ("STARTED", "RELOCATING")), None)
    promoted = bool(shard["primary"] and heir is not None)
    if promoted and heir is not None:
        shard["primary"], heir["primary"] = False, True
        group.sort(key=lambda one: not one["primary"])
    unassign(shard, reason)
    return promoted


def settle(group: list[Shard], homes: Sequence[str], allocations: Iterator[int]) -> None:
    """End what is under way, and give a node to what has none, as far as there are nodes without a copy."""
    for shard in group:
        if shard["state"] == "RELOCATING":
            start(shard, shard["relocating_node"], allocations)
        elif shard["state"] == "INITIALIZING":
            start(shard, shard["node"], allocations)
    for shard in group:
        free = [home for home in homes if all(one["node"] != home for one in group)]
        if shard["state"] == "UNASSIGNED" and free:
            start(shard, free[0], allocations)


def in_sync(routing: Mapping[str, list[Shard]], before: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return which copies are in sync, by the number of their shard, as the metadata says it.

    The last of them stay in it when all are lost: only they may become the primary again.
    """
    return {number: _active(group) or list(before.get(number, ())) for number, group in routing.items()}


def _active(group: Sequence[Shard]) -> list[str]:
    return [shard["allocation_id"]["id"] for shard in group if shard["state"] in ("STARTED", "RELOCATING")]
