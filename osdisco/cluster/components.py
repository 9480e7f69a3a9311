"""The components of a cluster's state: what a reader asks for, one by one."""

from __future__ import annotations

from enum import StrEnum


class StateComponent(StrEnum):
    """A part of the cluster's state that is mirrored, and can be subscribed to, by itself."""

    NODES = "nodes"
    METADATA = "metadata"
    ROUTING_TABLE = "routing_table"
    BLOCKS = "blocks"
