"""Which fields a document has, and of which types: what a fake must have in common with what it stands for."""

from __future__ import annotations

import re
from typing import Any

NAMED = re.compile(
    r"^(nodes|metadata\.indices|routing_table\.indices|blocks\.indices|blocks\.global|indices)$"
    r"|\.(shards|primary_terms|in_sync_allocations)$|^blocks\.indices\.\*$"
)
"""Where the keys are names of somebody's own, or numbers: what stands under each is the same."""

FREE = re.compile(r"\.(attributes|mappings|settings|rollover_info|templates)$|^metadata\.templates$")
"""Where everybody has other fields."""


def shape(document: Any, at: str = "") -> set[tuple[str, str]]:
    """Return the paths of a document with the type of what stands there."""
    if FREE.search(at):
        return {(at, "free")}
    if isinstance(document, dict):
        below = ((f"{at}.{'*' if NAMED.search(at) else key}".lstrip("."), value) for key, value in document.items())
        return {(at, "object")}.union(*(shape(value, key) for key, value in below))
    if isinstance(document, list):
        return {(at, "list")}.union(*(shape(one, f"{at}[]") for one in document))
    return {(at, type(document).__name__)}
