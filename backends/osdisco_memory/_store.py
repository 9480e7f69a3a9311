"""The engine: one store in this process. Synchronous, and locked, so that any thread and event loop may use it.

It needs no tasks: leases end when somebody looks, or when the alarm of a loop in which somebody waits rings.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from math import ceil
from threading import RLock
from typing import TYPE_CHECKING, ClassVar, Final, Self

from attrs import define, field

from osdisco.backend import (
    ABSENT,
    Absent,
    Batch,
    Condition,
    Delete,
    HeldBy,
    Item,
    Lease,
    LeaseStatus,
    Limits,
    Op,
    Put,
    Revision,
    Snapshot,
)
from osdisco.errors import ConflictError, LeaseExpiredError, LimitError
from osdisco.runtime import SystemClock
from osdisco_memory._faults import StoreFaults
from osdisco_memory._watching import Alarms, History, Subscription, Subscriptions, is_prefix

if TYPE_CHECKING:
    from osdisco.runtime import Clock

LIMITS: Final = Limits(ttl_min=1, ttl_max=86_400, expiry_factor=1.0)
CONSUL: Final = Limits(ttl_min=10, ttl_max=86_400, expiry_factor=2.0, watches_max=150, conflates=True)
"""Limits as Consul has them; with `faults.imitate_consul()` a store behaves like one."""

HISTORY_MAX: Final = 8 * 2**20
"""Bytes of past changes that watches can resume in."""


@define(eq=False)
class _Granted:
    id: str
    ttl: float
    deadline: float
    keys: set[str] = field(factory=set)


class MemoryStore:
    """One store. Most use it through `MemoryBackend`; tests reach for `faults`.

    Args:
        clock: the store's time; None takes the clock of the first client, and the next one's when all are closed.
        limits: what it grants; `CONSUL` to be as slow as Consul.
        name: shown in `inspect`.
        history_max: bytes of past changes to keep for watches; a consumer that is further behind gets a Snapshot.
    """

    _named: ClassVar[dict[str, MemoryStore]] = {}

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        limits: Limits = LIMITS,
        name: str = "",
        history_max: int = HISTORY_MAX,
    ) -> None:
        self.name = name
        self.limits = limits
        self.faults = StoreFaults(self)
        self.revision = 0
        self._lock = RLock()
        self._own_clock = clock is not None
        self._clock: Clock = clock or SystemClock()
        self._offset = 0.0
        self._clients = 0
        self._items: dict[str, Item] = {}
        self._sorted: list[str] = []
        self._leases: dict[str, _Granted] = {}
        self._due: list[tuple[float, int, str | Callable[[], None]]] = []  # ends of leases (by id), late requests
        self._numbers = count()
        self._history = History(history_max)
        self._watches = Subscriptions()
        self.alarms = Alarms(self._until_due, self.tick)

    @classmethod
    def named(cls, name: str) -> Self:
        """Return the store of `memory://NAME`, made when it is first asked for."""
        store = cls._named.setdefault(name, cls(name=name))
        assert isinstance(store, cls)
        return store

    def attach(self, clock: Clock) -> None:
        """Count a client. The first one's clock is the store's; its time goes on where the last one's stood."""
        with self._lock:
            if not self._own_clock and not self._clients:
                self._offset = (self.time() if self.revision or self._leases else clock.now()) - clock.now()
                self._clock = clock
            self._clients += 1

    def detach(self) -> None:
        """Count a client less."""
        with self._lock:
            self._clients -= 1

    def time(self) -> float:
        """Return the store's own seconds."""
        return self._clock.now() + self._offset

    def wall(self) -> float:
        """Return the store's idea of seconds since the epoch."""
        return self._clock.wall()

    def get(self, key: str) -> Item | None:
        """Read one key."""
        with self._lock:
            self.tick()
            return self._items.get(key)

    def scan(self, target: str) -> Snapshot:
        """Read all under a prefix, or one key; costs by what is there, not by what else the store holds."""
        with self._lock:
            self.tick()
            if is_prefix(target):
                return Snapshot({key: self._items[key] for key in self._keys_under(target)}, self.revision)
            item = self._items.get(target)
            return Snapshot({} if item is None else {target: item}, self.revision)

    def _keys_under(self, prefix: str) -> list[str]:
        start = bisect_left(self._sorted, prefix)
        end = start
        while end < len(self._sorted) and self._sorted[end].startswith(prefix):
            end += 1
        return self._sorted[start:end]

    def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
        """Apply all or nothing."""
        with self._lock:
            self.tick()
            for key, condition in expect.items():
                self._check(key, condition)
            for op in ops:
                if isinstance(op, Put) and op.lease is not None and op.lease not in self._leases:
                    raise LeaseExpiredError(f"the lease {op.lease} is not known: it expired or was revoked")
            after = {op.key: self._after(op) for op in ops}
            self._write(after)
            return {key: item.revision for key, item in after.items() if item is not None}

    def commit_and_scan(
        self, ops: Sequence[Op], expect: Mapping[str, Condition], prefix: str
    ) -> tuple[Mapping[str, int], Mapping[str, Item]]:
        """Apply all or nothing, and read what stands under a prefix then."""
        with self._lock:
            return self.commit(ops, expect), self.scan(prefix).items

    def _check(self, key: str, condition: Condition) -> None:
        item = self._items.get(key)
        match condition:
            case Absent():
                holds = item is None
            case Revision(number):
                holds = item is not None and item.revision == number
            case HeldBy(lease):
                holds = item is not None and item.lease == lease
        if not holds:
            raise ConflictError(f"{key!a} is {_told(item)}; expected {_wanted(condition)}")

    def _after(self, op: Op) -> Item | None:
        if isinstance(op, Delete):
            return None
        old = self._items.get(op.key)
        lease = op.lease
        if lease is None and old is not None and self.faults.bare_put_keeps_lease:
            lease = old.lease
        revision = self.revision + 1
        new = Item(op.key, bytes(op.value), revision if old is None else old.created, revision, lease)
        if old is not None and self.faults.noop_identical and new._replace(revision=old.revision) == old:
            return old
        return new

    def _write(self, after: Mapping[str, Item | None]) -> None:
        changes = {key: item for key, item in after.items() if self._items.get(key) is not item}
        if not changes:
            return
        self.revision += 1
        for key, item in changes.items():
            self._set(key, item)
        self._history.add(self.revision, changes)
        for sub in self._watches.touched(changes):
            sub.next = sub.next or self.revision
            sub.wake()

    def _set(self, key: str, item: Item | None) -> None:
        old = self._items.get(key)
        if old is not None and old.lease is not None:
            self._leases[old.lease].keys.discard(key)
        if item is None:
            del self._items[key]
            del self._sorted[bisect_left(self._sorted, key)]
            return
        if old is None:
            insort(self._sorted, key)
        self._items[key] = item
        if item.lease is not None:
            self._leases[item.lease].keys.add(key)

    def grant(self, ttl: float, lease_id: str) -> Lease:
        """Open a lease of whole seconds; raises LimitError above what is granted."""
        if not ttl <= self.limits.ttl_max:
            raise LimitError(f"a ttl of {ttl} s; at most {self.limits.ttl_max:.0f} s are granted")
        granted = float(max(self.limits.ttl_min, ceil(ttl)))
        with self._lock:
            self.tick()
            lease = self._leases[lease_id] = _Granted(lease_id, granted, self._deadline(granted))
            self.later(lease.deadline, lease_id)
        return Lease(lease_id, granted)

    def renew(self, lease_id: str) -> float:
        """Let a lease begin anew; raises LeaseExpiredError when there is none."""
        with self._lock:
            self.tick()
            lease = self._leases.get(lease_id)
            if lease is None:
                raise LeaseExpiredError(f"the lease {lease_id} is not known: it expired or was revoked")
            lease.deadline = self._deadline(lease.ttl)
            return lease.ttl

    def lease_status(self, lease_id: str) -> LeaseStatus | None:
        """Tell how long a lease lasts; None when there is none."""
        with self._lock:
            self.tick()
            lease = self._leases.get(lease_id)
            return None if lease is None else LeaseStatus(lease.ttl, max(0.0, lease.deadline - self.time()))

    def revoke(self, lease_id: str) -> bool:
        """End a lease with all its keys, in one revision. False when there is none."""
        with self._lock:
            self.tick()
            return self._end(lease_id)

    def _end(self, lease_id: str) -> bool:
        lease = self._leases.get(lease_id)
        if lease is None:
            return False
        self._write(dict.fromkeys(sorted(lease.keys)))
        del self._leases[lease_id]
        return True

    def _deadline(self, ttl: float) -> float:
        factor = self.faults.expiry_factor
        return self.time() + ttl * (self.limits.expiry_factor if factor is None else factor)

    def later(self, due: float, what: str | Callable[[], None]) -> None:
        """At `due`, in the store's time, end a lease (by its id) or let a request arrive."""
        with self._lock:
            heapq.heappush(self._due, (due, next(self._numbers), what))
            if self._due[0][2] is what:
                self.alarms.reset()

    def tick(self) -> None:
        """Do what is due, in its order. Everything that looks at the store calls this first."""
        if not self._due:  # mostly; what another thread adds meanwhile is not due yet
            return
        with self._lock:
            while self._due and self._due[0][0] <= self.time() and not self.faults.frozen:
                _, _, what = heapq.heappop(self._due)
                if callable(what):
                    what()
                elif what in self._leases:
                    self._expire(self._leases[what])

    def _expire(self, lease: _Granted) -> None:
        if lease.deadline <= self.time():
            self._end(lease.id)
        else:  # renewed since: one entry for each lease, moved only when it comes up
            heapq.heappush(self._due, (lease.deadline, next(self._numbers), lease.id))

    def _until_due(self) -> float | None:
        with self._lock:
            return self._due[0][0] - self.time() if self._due and not self.faults.frozen else None

    def subscribe(self, sub: Subscription, after: int | None) -> None:
        """Open a watch, resuming behind the revision `after` where the history still reaches."""
        with self._lock:
            self.tick()
            if after is not None and self._history.first <= after + 1 <= self.revision + 1:
                sub.resync = False
                sub.next = after + 1 if after < self.revision else None
            self._watches.add(sub)
            self.alarms.enter()

    def unsubscribe(self, sub: Subscription) -> None:
        """Close a watch."""
        with self._lock:
            self._watches.remove(sub)
            self.alarms.leave(sub.loop)

    def frame(self, sub: Subscription) -> Snapshot | Batch | None:
        """Return the watch's next frame, or None when it is up to date."""
        with self._lock:
            self.tick()
            behind = sub.next is not None and (self.conflating or sub.next < self._history.first)
            if sub.resync or behind:
                sub.resync, sub.next = False, None
                return self.scan(sub.target)
            while sub.next is not None:
                batch = self._history.batch(sub.target, sub.next)
                sub.next = sub.next + 1 if sub.next < self.revision else None
                if batch is not None:
                    return batch
            return None

    def contact(self, sub: Subscription) -> Snapshot | Batch:
        """Return the frame that says only that the store is there."""
        with self._lock:
            return self.scan(sub.target) if self.conflating else Batch((), (), self.revision)

    @property
    def conflating(self) -> bool:
        """Whether watches show only the latest state."""
        return self.limits.conflates or self.faults.conflate

    def compact(self) -> None:
        """Forget the history."""
        with self._lock:
            self._history.forget(self.revision)

    def resync(self) -> None:
        """Let every watch begin with a Snapshot again."""
        with self._lock:
            for sub in self._watches:
                sub.resync = True
        self.wake()

    def wake(self) -> None:
        """Let all who wait look again: a switch was thrown."""
        with self._lock:
            self.tick()
            for sub in self._watches:
                sub.wake()
            self.alarms.reset()


def _told(item: Item | None) -> str:
    return "absent" if item is None else f"at revision {item.revision}, lease {item.lease}"


def _wanted(condition: Condition) -> str:
    if condition == ABSENT:
        return "absent"
    return f"revision {condition.number}" if isinstance(condition, Revision) else str(condition)
