"""What `osdisco status` shows, thing by thing: each as a document for programs and as rows for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import field, frozen

from osdisco.cli._text import info_text, rough
from osdisco.coordination import (
    BarrierStatus,
    Contender,
    DoubleBarrierStatus,
    ElectionStatus,
    GroupStatus,
    Leader,
    NamespaceStatus,
    QueueStatus,
    RevocationRequest,
    SessionStatus,
)

COLUMNS: Final = ("kind", "name", "state", "who", "since", "token", "")


@frozen
class Row:
    """One line: somebody and what it has to do with the thing. `since` is seconds since the epoch."""

    state: str
    who: str
    since: float | None = None
    token: int | None = None
    more: str = ""

    def fields(self, wall: float) -> tuple[str, ...]:
        """Return the text of the columns, but kind and name; `wall` is now."""
        since = "-" if self.since is None else rough(wall - self.since)
        return (self.state, self.who, since, "-" if self.token is None else str(self.token), self.more)


@frozen
class Thing:
    """A lock, an election and so on. `left` is of a session's lease: it changes all the time, and is no change."""

    kind: str
    name: str
    content: Mapping[str, Any]
    rows: tuple[Row, ...] = field(eq=False)
    left: float | None = field(default=None, eq=False)

    @property
    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        left = {"left": self.left} if self.kind == "session" else {}
        return {"kind": self.kind, "name": self.name, **self.content, **left}


def things(status: NamespaceStatus) -> Iterator[Thing]:
    """Yield all of a namespace."""
    for one in status.locks:
        yield _queue("lock", one)
    for one in status.rwlocks:
        yield _queue("rwlock", one)
    for one in status.semaphores:
        yield _queue("semaphore", one)
    yield from map(_election, status.elections)
    yield from map(_group, status.groups)
    yield from map(_barrier, status.barriers)
    yield from map(_double_barrier, status.double_barriers)
    yield from map(_session, status.sessions)
    for key in status.strange:
        yield Thing("strange", key, {}, (Row("-", "-", more="nothing that osdisco writes"),))


def _queue(kind: str, queue: QueueStatus) -> Thing:
    content: dict[str, Any] = {"limit": queue.limit} if kind == "semaphore" else {}
    content["holders"] = [_contender(one, kind) for one in queue.holders]
    content["waiting"] = [_contender(one, kind) for one in queue.waiting]
    content["revocations"] = [
        {"owner": one.owner, "token": one.token, "grace": one.grace, "since": one.since} for one in queue.revocations
    ]
    return Thing(kind, queue.name, content, tuple(_place(one, kind, queue) for one in queue.contenders))


def _contender(one: Contender, kind: str) -> dict[str, Any]:
    mode = {"mode": "read" if one.shared else "write"} if kind == "rwlock" else {}
    shown = {"owner": one.owner, "token": one.token, "since": one.since, "info": dict(one.info)}
    return shown | mode | {"foreign": one.since is None}


def _place(one: Contender, kind: str, queue: QueueStatus) -> Row:
    state = "holds" if one.holds else "waits"
    if kind == "rwlock":
        doing = "read" if one.shared else "write"
        state = f"{doing}s" if one.holds else f"waits to {doing}"
    about = [_asked(request) for request in queue.revocations if request.token == one.token]
    if kind == "semaphore" and one is queue.contenders[0]:
        about.append(f"{len(queue.holders)} of {'an unknown limit' if queue.limit is None else queue.limit} held")
    if one.since is None:
        about.append("not osdisco's")
    command = one.info.get("command") if one.info.keys() == {"command"} else None
    about += [command if isinstance(command, str) else info_text(one.info)] if one.info else []
    return Row(state, one.owner, one.since, one.token, "; ".join(about))


def _asked(request: RevocationRequest) -> str:
    grace = "" if request.grace is None else f", with {rough(request.grace)} of grace"
    return f"asked back by {request.owner}{grace}"


def _election(election: ElectionStatus) -> Thing:
    leader = election.leader
    candidates = [{"id": one.candidate_id, "priority": one.priority, "owner": one.owner} for one in election.candidates]
    rows = [] if leader is None else [_leads(leader)]
    for one in election.candidates:
        about = [f"priority {one.priority}"] if one.priority else []
        about += [f"in {one.owner}"] if one.owner not in ("", one.candidate_id) else []
        rows.append(Row("stands", one.candidate_id, more="; ".join(about)))
    content = {"leader": leader and leader_document(leader), "candidates": candidates}
    return Thing("election", election.name, content, tuple(rows))


def leader_document(leader: Leader) -> dict[str, Any]:
    """Return a leader for JSON."""
    return {"id": leader.candidate_id, "token": leader.token, "since": leader.since, "info": dict(leader.info)}


def _leads(leader: Leader) -> Row:
    more = info_text(leader.info) if leader.info else ""
    return Row("leads", named(leader), leader.since, leader.token, more if leader.candidate_id else "not osdisco's")


def named(leader: Leader) -> str:
    """Return who leads."""
    return leader.candidate_id or "somebody"


def _group(group: GroupStatus) -> Thing:
    members, rows = [], []
    for one in group.members:
        owned = group.partitions.get(one.id, 0)
        members.append({"id": one.id, "weight": one.weight, "partitions": owned, "info": dict(one.info)})
        about = [f"weight {one.weight}"] if one.weight != 1 else []
        about += [f"{owned} partitions"] if group.partitions else []
        about += [info_text(one.info)] if one.info else []
        rows.append(Row("member", one.id, more="; ".join(about)))
    return Thing("group", group.name, {"members": members}, tuple(rows))


def _barrier(barrier: BarrierStatus) -> Thing:
    foreign = barrier.owner is None
    row = Row("held", barrier.owner or "somebody", barrier.since, more="not osdisco's" if foreign else "")
    return Thing("barrier", barrier.name, {"owner": barrier.owner, "since": barrier.since}, (row,))


def _double_barrier(barrier: DoubleBarrierStatus) -> Thing:
    content = {"parties": barrier.parties, "inside": list(barrier.inside), "waiting": list(barrier.waiting)}
    rows = [Row("inside", owner, more=f"a round of {barrier.parties}") for owner in barrier.inside]
    rows += [Row("waits", owner, more=f"for {barrier.parties} to be there") for owner in barrier.waiting]
    return Thing("double_barrier", barrier.name, content, tuple(rows))


def _session(session: SessionStatus) -> Thing:
    content = {"owner": session.owner, "lease": session.lease, "keys": session.keys, "ttl": session.ttl}
    row = Row("alive", session.owner, more=f"{left(session)}; {session.keys} keys; lease {session.lease}")
    return Thing("session", session.id, content, (row,), session.left)


def left(session: SessionStatus) -> str:
    """Return how long its lease lasts, as far as the store tells."""
    if session.ttl is None:
        return "-"
    return f"{session.ttl:g} s at a time" if session.left is None else f"{session.left:.0f} s of {session.ttl:g} s left"
