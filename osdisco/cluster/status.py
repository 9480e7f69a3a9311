"""How a mirror is, for people: who it is, since when, how old what it shows is, and how large."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from osdisco.cluster._head import Head
from osdisco.cluster._lead import Lead
from osdisco.cluster._mirror import Mirror, MirrorState
from osdisco.cluster._reader import Reader
from osdisco.cluster.state import StateHeader


@frozen
class ComponentSize:
    """How large a component is: blobs, bytes as they are in the store, and bytes of text."""

    blobs: int
    size: int
    raw: int


@frozen
class MirrorStatus:
    """What a process knows of the mirror.

    Args:
        name: of the client that mirrors; None while nobody does.
        since: when it began to, in seconds since the epoch by its own clock.
        token: rises with every mirror.
        away: why the mirror cannot reach the cluster; None while it can.
        nodes: why it cannot ask the nodes for their roles; None while it can.
        header: which state is shown here; None before any is.
        seq: rises with everything that is published.
        sizes: of what is published, by component.
        age: seconds since what is shown was last known to be the present state.
        stale_reason: why that is so long ago; None when it is not.
        fetched: bytes that this process has fetched from the store so far.
        candidate: what this process does for the mirror itself; None without a source.
        error: what went wrong with that last; None when nothing did since.
    """

    name: str | None
    since: float | None
    token: int | None
    away: str | None
    nodes: str | None
    header: StateHeader | None
    seq: int | None
    sizes: Mapping[str, ComponentSize]
    age: float
    stale_reason: str | None
    fetched: int
    candidate: MirrorState | None
    error: str | None


def status_of(lead: Lead, reader: Reader, mirror: Mirror | None, age: float, stale_reason: str | None) -> MirrorStatus:
    """Return what is known."""
    leader, head = lead.leader, reader.head
    said = leader.info if leader is not None else {}
    return MirrorStatus(
        name=str(said.get("name") or leader.candidate_id) if leader is not None else None,
        since=None if leader is None else leader.since,
        token=None if leader is None else leader.token,
        away=lead.away,
        nodes=str(said["nodes"]) if "nodes" in said else None,
        header=None if head is None else head.header,
        seq=None if head is None else head.seq,
        sizes=_sizes(head),
        age=age,
        stale_reason=stale_reason,
        fetched=reader.bytes_fetched,
        candidate=None if mirror is None else mirror.state,
        error=None if mirror is None or mirror.error is None else str(mirror.error),
    )


def _sizes(head: Head | None) -> dict[str, ComponentSize]:
    if head is None:
        return {}
    return {
        component: ComponentSize(
            len(blobs), sum(size for _, size, _ in blobs.values()), sum(raw for _, _, raw in blobs.values())
        )
        for component, blobs in head.components.items()
    }
