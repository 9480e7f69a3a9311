"""Stores that break one rule of leases each, for proving that the conformance suite would tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve

from osdisco.backend import Condition, Delete, Item, Lease, LeaseStatus, Op, Put
from osdisco.errors import LeaseExpiredError
from osdisco_memory import MemoryStore


class EndsEarly(MemoryStore):
    """Leases end after nine tenths of their ttl."""

    def __init__(self) -> None:
        super().__init__()
        self.faults.expiry_factor = 0.9


class NeverExpires(MemoryStore):
    """Leases end only when they are revoked."""

    def __init__(self) -> None:
        super().__init__()
        self.faults.expiry_factor = 1000.0


class RenewsNothing(MemoryStore):
    """A renewal is answered and forgotten."""

    def renew(self, lease_id: str) -> float:
        if lease_id not in self._leases:
            raise LeaseExpiredError("gone")
        return self._leases[lease_id].ttl


class LeavesKeys(MemoryStore):
    """The end of a lease leaves its keys."""

    def _end(self, lease_id: str) -> bool:
        lease = self._leases.get(lease_id)
        if lease is not None:
            for key in list(lease.keys):
                self._set(key, self._items[key]._replace(lease=None))
        return super()._end(lease_id)


class EndsKeyByKey(MemoryStore):
    """The keys of a lease go in a revision each."""

    def _end(self, lease_id: str) -> bool:
        lease = self._leases.get(lease_id)
        for key in sorted(lease.keys if lease else ()):
            self._write({key: None})
        return super()._end(lease_id)


class AcceptsDeadLeases(MemoryStore):
    """A write under an ended lease is written without one."""

    def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
        living = [evolve(op, lease=None) if isinstance(op, Put) and op.lease not in self._leases else op for op in ops]
        return super().commit(living, expect)


class RenewsDeadLeases(MemoryStore):
    """A renewal of an ended lease is answered as good."""

    def renew(self, lease_id: str) -> float:
        return super().renew(lease_id) if lease_id in self._leases else 1.0


class EndsByName(MemoryStore):
    """A lease takes along every key that it ever had."""

    def __init__(self) -> None:
        super().__init__()
        self._ever: dict[str, set[str]] = {}

    def _set(self, key: str, item: Item | None) -> None:
        if item is not None and item.lease is not None:
            self._ever.setdefault(item.lease, set()).add(key)
        super()._set(key, item)

    def _end(self, lease_id: str) -> bool:
        self._write({key: None for key in self._ever.get(lease_id, ()) if key in self._items})
        return super()._end(lease_id)


class HidesLeases(MemoryStore):
    """Readers do not see what a key hangs on."""

    def get(self, key: str) -> Item | None:
        item = super().get(key)
        return item and item._replace(lease=None)


class GrantsInSilence(MemoryStore):
    """Raises a ttl and tells what was asked for."""

    def grant(self, ttl: float, lease_id: str) -> Lease:
        return evolve(super().grant(ttl, lease_id), ttl=ttl)


class GrantsForEver(MemoryStore):
    """Takes any ttl."""

    def grant(self, ttl: float, lease_id: str) -> Lease:
        return super().grant(min(ttl, self.limits.ttl_max), lease_id)


class TellsTwiceTheTtl(MemoryStore):
    """The status of a lease tells another ttl than was granted."""

    def lease_status(self, lease_id: str) -> LeaseStatus | None:
        status = super().lease_status(lease_id)
        return status and LeaseStatus(2 * (status.ttl or 0), status.left)


class RenewsWhatIsAskedFor(MemoryStore):
    """Asking for the status of a lease renews it."""

    def lease_status(self, lease_id: str) -> LeaseStatus | None:
        if lease_id in self._leases:
            self.renew(lease_id)
        return super().lease_status(lease_id)


class RemembersLeases(MemoryStore):
    """A lease that has ended still has a status."""

    def lease_status(self, lease_id: str) -> LeaseStatus | None:
        return super().lease_status(lease_id) or LeaseStatus(60.0)


class RefusesGoneLeases(MemoryStore):
    """Revoking twice is an error."""

    def revoke(self, lease_id: str) -> bool:
        if not super().revoke(lease_id):
            raise LeaseExpiredError("gone")
        return True


class GrantsTheSame(MemoryStore):
    """All leases are one."""

    def grant(self, ttl: float, lease_id: str) -> Lease:
        return super().grant(ttl, "lease")


class EndsWithItsKey(MemoryStore):
    """Deleting a leased key ends its lease."""

    def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
        held = [item.lease for op in ops if isinstance(op, Delete) and (item := self._items.get(op.key))]
        answer = super().commit(ops, expect)
        for lease in filter(None, held):
            self._end(lease)
        return answer
