"""Reading a whole namespace: keys to locks, elections and so on, by the modules that write them.

Nothing that stands there makes it fail: others may write what they like.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Final

from osdisco._entries import in_order
from osdisco._feed import Change
from osdisco._keys import Keyspace
from osdisco._records import decode
from osdisco.backend import Item
from osdisco.coordination._board import Board
from osdisco.coordination._contend import Contender
from osdisco.coordination._revoke import REVOKE, RevocationRecord
from osdisco.coordination.barrier import BarrierRecord
from osdisco.coordination.double_barrier import RoundState, read_member
from osdisco.coordination.group import MemberTable
from osdisco.coordination.lock import shown_queue
from osdisco.coordination.partition import read_owner
from osdisco.coordination.rwlock import is_reader
from osdisco.coordination.semaphore import SemaphoreState
from osdisco.coordination.status import (
    BarrierStatus,
    CandidateStatus,
    DoubleBarrierStatus,
    ElectionStatus,
    GroupStatus,
    NamespaceStatus,
    QueueStatus,
    RevocationRequest,
    SessionStatus,
)
from osdisco.errors import InvalidNameError, RecordError
from osdisco.names import unescape

Items = dict[str, Item]
Read = Callable[["_Survey", str, str, Items], None]


def survey(keys: Keyspace, items: Mapping[str, Item], revision: int) -> NamespaceStatus:
    """Return what the items of a namespace are; of leases only what the items tell."""
    found = _Survey(keys, items)
    for kind, read in _KINDS.items():
        for name, folder in sorted(found.folders[kind].items()):
            try:
                read(found, name, found.prefix(kind, name), folder)
            except InvalidNameError:  # longer than what osdisco would write
                found.strange.update(folder)
    return NamespaceStatus(
        revision,
        tuple(found.locks),
        tuple(found.rwlocks),
        tuple(found.semaphores),
        tuple(found.elections),
        tuple(found.groups),
        tuple(found.barriers),
        tuple(found.double_barriers),
        tuple(sorted(found.sessions, key=lambda session: (session.owner, session.id))),
        tuple(sorted(key[len(keys.root) :] for key in found.strange)),
    )


class _Survey:
    """What was found so far. Keys are the store's own; those under one kind and name are a folder."""

    def __init__(self, keys: Keyspace, items: Mapping[str, Item]) -> None:
        self.keys: Final = keys
        self.folders: Final[dict[str, dict[str, Items]]] = defaultdict(lambda: defaultdict(dict))
        self.strange: Final[set[str]] = set()
        self.leases: Final = Counter(item.lease for item in items.values() if item.lease is not None)
        self.partitions: Final[dict[str, Counter[str]]] = {}
        self.locks: Final[list[QueueStatus]] = []
        self.rwlocks: Final[list[QueueStatus]] = []
        self.semaphores: Final[list[QueueStatus]] = []
        self.elections: Final[list[ElectionStatus]] = []
        self.groups: Final[list[GroupStatus]] = []
        self.barriers: Final[list[BarrierStatus]] = []
        self.double_barriers: Final[list[DoubleBarrierStatus]] = []
        self.sessions: Final[list[SessionStatus]] = []
        self._requests: Final[dict[str, list[Item]]] = defaultdict(list)
        for item in items.values():
            self._sort(item)

    def _sort(self, item: Item) -> None:
        path = item.key[len(self.keys.root) :]
        kind, _, rest = path.partition("/")
        if kind == REVOKE:
            self._requests[self.keys.root + rest.rpartition("/")[0]].append(item)
        elif kind in _KINDS:
            try:
                self.folders[kind][unescape(rest.partition("/")[0])][item.key] = item
            except InvalidNameError:
                self.strange.add(item.key)

    def prefix(self, kind: str, name: str) -> str:
        """Return the prefix of a folder."""
        return self.keys.join(kind, name) + "/"

    def queue(self, name: str, shown: list[tuple[Item, Contender]], limit: int | None = None) -> QueueStatus:
        """Return a queue with what is asked of those in it."""
        contenders = tuple(contender for _, contender in shown)
        return QueueStatus(name, contenders, tuple(self._asked(shown)), limit)

    def _asked(self, shown: list[tuple[Item, Contender]]) -> list[RevocationRequest]:
        return [
            _request(request, contender.token)
            for item, contender in shown
            for request in sorted(self._requests.get(item.key, ()), key=lambda request: request.created)
        ]


def _request(item: Item, token: int) -> RevocationRequest:
    try:
        record = decode(item.value, RevocationRecord)
    except RecordError:
        return RevocationRequest(item.key.rpartition("/")[2], token)
    return RevocationRequest(record.owner, token, record.grace, record.since)


def _inside(found: _Survey, prefix: str, folder: Items) -> Items:
    """Return the items below a prefix; the key that is its name itself is nothing of ours."""
    found.strange.update(folder.keys() & {prefix[:-1]})
    return {key: item for key, item in folder.items() if key != prefix[:-1]}


def _lock(found: _Survey, name: str, prefix: str, folder: Items) -> None:
    if queue := in_order(_inside(found, prefix, folder)):
        found.locks.append(found.queue(name, shown_queue(queue, lambda _: False)))


def _rwlock(found: _Survey, name: str, prefix: str, folder: Items) -> None:
    if queue := in_order(_inside(found, prefix, folder)):
        found.rwlocks.append(found.queue(name, shown_queue(queue, is_reader)))


def _semaphore(found: _Survey, name: str, prefix: str, folder: Items) -> None:
    state = SemaphoreState(folder, prefix)
    limit = state.stored_limit
    known = {item.key for item in (*state.queue, *state.holders)}
    known |= {f"{prefix}limit"} if limit is not None else set()
    found.strange.update(folder.keys() - known)
    if state.queue or state.holders:
        found.semaphores.append(found.queue(name, state.shown, limit))


def _election(found: _Survey, name: str, prefix: str, folder: Items) -> None:
    board = Board(found.keys, name)
    queue = board.in_order(folder)
    leader = board.shown(folder)
    known = {item.key for item in queue} | {board.leader, board.heir}
    found.strange.update(key for key in folder.keys() - known if not key.startswith(board.said("")))
    if leader is not None and not leader.candidate_id:
        found.strange.add(board.leader)
    records = [record for item in queue if (record := board.candidacy(item)) is not None]
    candidates = tuple(CandidateStatus(record.id, record.priority, record.owner) for record in records)
    if leader is not None or candidates:
        found.elections.append(ElectionStatus(name, leader, candidates))


def _partitions(found: _Survey, name: str, prefix: str, folder: Items) -> None:
    owners = {key: read_owner(item) for key, item in folder.items()}
    found.strange.update(key for key, owner in owners.items() if owner is None)
    found.partitions[name] = Counter(owner.member for owner in owners.values() if owner is not None)


def _group(found: _Survey, name: str, prefix: str, folder: Items) -> None:
    table = MemberTable(found.keys, name)
    table.apply(Change(folder, {}, 0))
    skipped = table.skipped
    found.strange.update(key for key in folder if (found.keys.name(key) or key) in skipped)
    if table.members:
        members = tuple(member for _, member in sorted(table.members.items()))
        found.groups.append(GroupStatus(name, members, dict(found.partitions.get(name, {}))))


def _barrier(found: _Survey, name: str, prefix: str, folder: Items) -> None:
    item = folder.pop(prefix[:-1], None)
    found.strange.update(folder)
    if item is None:
        return
    try:
        record = decode(item.value, BarrierRecord)
        found.barriers.append(BarrierStatus(name, record.owner, record.since))
    except RecordError:  # it keeps everybody waiting all the same
        found.barriers.append(BarrierStatus(name, None, None))


def _double_barrier(found: _Survey, name: str, prefix: str, folder: Items) -> None:
    state = RoundState(folder, prefix)
    found.strange.update(key for key, item in folder.items() if not _is_of_a_round(key[len(prefix) :], item))
    inside = tuple(state.roster.owners.get(number, number) for number in state.survivors)
    waiting = state.waiting
    parties = len(state.roster.members) or (waiting[0][2].parties if waiting else None)
    if inside or waiting:
        owners = tuple(member.owner for _, _, member in waiting)
        found.double_barriers.append(DoubleBarrierStatus(name, parties, inside, owners))


def _is_of_a_round(name: str, item: Item) -> bool:
    if name.startswith("m/"):
        return read_member(item) is not None
    return name == "ready" or name.startswith("done/")


def _session(found: _Survey, name: str, prefix: str, folder: Items) -> None:
    item = folder.pop(f"{prefix}live", None)
    found.strange.update(folder)
    if item is None:
        return
    if item.lease is None:
        found.strange.add(item.key)
        return
    owner = item.value.decode(errors="replace")
    found.sessions.append(SessionStatus(name, owner, item.lease, found.leases[item.lease]))


_KINDS: Final[Mapping[str, Read]] = {
    "lock": _lock,
    "rw": _rwlock,
    "sem": _semaphore,
    "election": _election,
    "part": _partitions,
    "grp": _group,
    "barrier": _barrier,
    "db": _double_barrier,
    "sess": _session,
}
