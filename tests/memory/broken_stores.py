"""Stores and backends that break one rule each, for proving that the conformance suite would tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence

from attrs import evolve

from osdisco.backend import Batch, Condition, Item, Lease, Op, Put, Snapshot
from osdisco.errors import ConflictError, LeaseExpiredError, UnavailableError
from osdisco_memory import MemoryBackend, MemoryStore
from osdisco_memory._watching import Subscription

Frame = Snapshot | Batch


class ScansStale(MemoryStore):
    """Scans show the state before the last commit, as from a follower."""

    _seen: Snapshot = Snapshot({}, 0)
    _last: Snapshot = Snapshot({}, 0)

    def scan(self, target: str) -> Snapshot:
        now = super().scan(target)
        if now.revision != self._last.revision:
            self._seen, self._last = self._last, now
        return self._seen


class GetsStale(MemoryStore):
    """The first get after a commit shows the value before it."""

    def __init__(self) -> None:
        super().__init__()
        self._cached: dict[str, Item | None] = {}

    def get(self, key: str) -> Item | None:
        now = super().get(key)
        was = self._cached.get(key, now)
        self._cached[key] = now
        return was


class ScansInTwoHalves(MemoryBackend):
    """A scan of two requests: not one moment."""

    async def scan(self, prefix: str, *, timeout: float) -> Snapshot:
        first = await super().scan(prefix, timeout=timeout)
        second = await super().scan(prefix, timeout=timeout)
        half = len(first.items) // 2
        items = dict(list(first.items.items())[:half]) | dict(list(second.items.items())[half:])
        return Snapshot(items, second.revision)


class ScansOnePage(MemoryStore):
    """A scan that stops at its first 500 keys."""

    def scan(self, target: str) -> Snapshot:
        whole = super().scan(target)
        return Snapshot(dict(list(whole.items.items())[:500]), whole.revision)


class ScansBeyondThePrefix(MemoryStore):
    """A prefix without its slash: `p/` also finds `p-q/a`."""

    def scan(self, target: str) -> Snapshot:
        root, _, last = target.removesuffix("/").rpartition("/")
        below = super().scan(f"{root}/")
        return Snapshot({k: v for k, v in below.items.items() if k.startswith(f"{root}/{last}")}, below.revision)


class FoldsNames(MemoryStore):
    """Keys that differ in case only are one, as in some file systems."""

    def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
        lower = {key.lower(): condition for key, condition in expect.items()}
        answer = super().commit([evolve(op, key=op.key.lower()) for op in ops], lower)
        return {op.key: answer[op.key.lower()] for op in ops if isinstance(op, Put)}

    def get(self, key: str) -> Item | None:
        return super().get(key.lower())


class KeepsRevisions(MemoryStore):
    """A put over a key changes its value and not its revision."""

    def _after(self, op: Op) -> Item | None:
        after, old = super()._after(op), self._items.get(op.key)
        return after and evolve(after, revision=old.revision if old else after.revision)


class RevisesKeysApart(MemoryStore):
    """One commit gives each key a revision of its own."""

    def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
        answers: dict[str, int] = {}
        for n, op in enumerate(ops):
            answers |= super().commit([op], expect if n == 0 else {})
        return answers


class ForgetsCreation(MemoryStore):
    """Every put is a creation."""

    def _after(self, op: Op) -> Item | None:
        after = super()._after(op)
        return after and evolve(after, created=after.revision)


class TellsTheNextRevision(MemoryStore):
    """Answers a put that wrote nothing with a revision that no key has."""

    def __init__(self) -> None:
        super().__init__()
        self.faults.noop_identical = True

    def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
        before = self.revision
        answer = super().commit(ops, expect)
        return answer if self.revision > before else dict.fromkeys(answer, before + 1)


class CutsValues(MemoryStore):
    """Keeps what fits into a column."""

    def _after(self, op: Op) -> Item | None:
        after = super()._after(op)
        return after and evolve(after, value=after.value[:100_000])


class IgnoresALastCondition(MemoryStore):
    """Checks all conditions but the last."""

    def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
        return super().commit(ops, dict(list(expect.items())[:-1]))


class AppliesBeforeChecking(MemoryStore):
    """Applies the ops one by one until a condition fails."""

    def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
        try:
            return super().commit(ops, expect)
        except ConflictError:
            super().commit(ops[:1], {})
            raise


class ChecksExistenceOnly(MemoryStore):
    """A key that exists passes for held by whomever."""

    def _check(self, key: str, condition: Condition) -> None:
        if hasattr(condition, "lease") and key in self._items:
            return
        super()._check(key, condition)


class PassesWhatIsMissing(MemoryStore):
    """A missing key fulfils a condition on its revision (Consul's delete-cas)."""

    def _check(self, key: str, condition: Condition) -> None:
        if hasattr(condition, "number") and key not in self._items:
            return
        super()._check(key, condition)


class ComparesInclusively(MemoryStore):
    """A revision below the one of the key will do."""

    def _check(self, key: str, condition: Condition) -> None:
        item = self._items.get(key)
        if item is not None and getattr(condition, "number", item.revision + 1) <= item.revision:
            return
        super()._check(key, condition)


class ChecksThenActs(MemoryBackend):
    """Conditions are read first and written on later: two requests, not one transaction."""

    async def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition], *, timeout: float) -> Mapping[str, int]:
        for key, condition in expect.items():
            self.store._check(key, condition)
        return await super().commit(ops, {}, timeout=timeout)


class RefusesToDeleteTwice(MemoryStore):
    """Deleting what is not there is an error."""

    def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
        if any(not isinstance(op, Put) and op.key not in self._items for op in ops):
            raise ConflictError("no such key")
        return super().commit(ops, expect)


class AnswersDeletes(MemoryStore):
    """The answer names keys that were not put."""

    def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
        return dict.fromkeys((op.key for op in ops), 0) | super().commit(ops, expect)


class TearsBatches(MemoryStore):
    """A frame for each key of a commit."""

    def __init__(self) -> None:
        super().__init__()
        self._rest: dict[Subscription, list[Batch]] = {}

    def frame(self, sub: Subscription) -> Frame | None:
        if not self._rest.get(sub):
            frame = super().frame(sub)
            if not isinstance(frame, Batch):
                return frame
            self._rest[sub] = [Batch((item,), (), frame.revision) for item in frame.puts]
            self._rest[sub] += [Batch((), (key,), frame.revision) for key in frame.deletes]
        return self._rest[sub].pop(0)


class LosesDeletes(MemoryStore):
    """Watches are not told of deletes."""

    def frame(self, sub: Subscription) -> Frame | None:
        frame = super().frame(sub)
        return evolve(frame, deletes=()) if isinstance(frame, Batch) else frame


class LosesAChange(MemoryStore):
    """Every tenth batch gets lost."""

    _count = 0

    def frame(self, sub: Subscription) -> Frame | None:
        frame = super().frame(sub)
        self._count += isinstance(frame, Batch)
        return self.frame(sub) if isinstance(frame, Batch) and self._count % 10 == 9 else frame


class RepeatsChanges(MemoryStore):
    """Batches come late and out of order: the one before once more."""

    def __init__(self) -> None:
        super().__init__()
        self._past: list[Batch] = []

    def frame(self, sub: Subscription) -> Frame | None:
        frame = super().frame(sub)
        if isinstance(frame, Batch):
            self._past.append(frame)
            return self._past[-3] if len(self._past) % 7 == 6 else frame
        return frame


class BeginsWithBatches(MemoryStore):
    """A watch begins at the present revision, without a Snapshot."""

    def subscribe(self, sub: Subscription, after: int | None) -> None:
        super().subscribe(sub, self.revision if after is None else after)


class ResumesAtPresent(MemoryStore):
    """A resumed watch forgets what happened since."""

    def subscribe(self, sub: Subscription, after: int | None) -> None:
        super().subscribe(sub, None if after is None else self.revision)


class ResumesOneLate(MemoryStore):
    """A resumed watch misses the first change."""

    def subscribe(self, sub: Subscription, after: int | None) -> None:
        super().subscribe(sub, None if after is None else min(after + 1, self.revision))


class MakesUpDeletes(MemoryBackend):
    """Shows an emptied prefix when a commit was refused."""

    refused = 0

    async def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition], *, timeout: float) -> Mapping[str, int]:
        try:
            return await super().commit(ops, expect, timeout=timeout)
        except ConflictError:
            self.refused += 1
            raise

    async def watch(self, target: str, *, after: int | None = None) -> AsyncGenerator[Frame, None]:
        async for frame in super().watch(target, after=after):
            yield Snapshot({}, frame.revision) if self.refused else frame
            yield frame


class WatchesTooMuch(MemoryStore):
    """A watch of a key is one of everything that begins like it."""

    def scan(self, target: str) -> Snapshot:
        if target.endswith("/"):
            return super().scan(target)
        found = {key: self._items[key] for key in self._keys_under(target)}
        return Snapshot(found, self.revision)


class FallsSilent(MemoryBackend):
    """An idle watch never says that the store is there."""

    def _contact(self, sub: Subscription, last: float) -> Frame | None:
        return None

    def _now(self) -> float:
        return 0.0


class WatchesOn(MemoryBackend):
    """Closing does not end open watches."""

    def _check_watch(self, target: str) -> float:
        return 0.0


class StaysOpen(MemoryBackend):
    """Closing closes nothing."""

    def _check_open(self) -> None:
        pass


class LeavesATask(MemoryBackend):
    """Starts upkeep that nobody ends."""

    async def get(self, key: str, *, timeout: float) -> Item | None:
        self._upkeep = asyncio.create_task(asyncio.sleep(1000))
        return await super().get(key, timeout=timeout)


class SaysNoAndAppliesIt(MemoryBackend):
    """Takes a timeout for a refusal."""

    async def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition], *, timeout: float) -> Mapping[str, int]:
        answer = await super().commit(ops, expect, timeout=timeout)
        if timeout < 0.001:
            raise UnavailableError("timed out")
        return answer


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
                self._set(key, evolve(self._items[key], lease=None))
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
        return item and evolve(item, lease=None)


class GrantsInSilence(MemoryStore):
    """Raises a ttl and tells what was asked for."""

    def grant(self, ttl: float, lease_id: str) -> Lease:
        return evolve(super().grant(ttl, lease_id), ttl=ttl)


class GrantsForEver(MemoryStore):
    """Takes any ttl."""

    def grant(self, ttl: float, lease_id: str) -> Lease:
        return super().grant(min(ttl, self.limits.ttl_max), lease_id)


class RefusesGoneLeases(MemoryStore):
    """Revoking twice is an error."""

    def revoke(self, lease_id: str) -> bool:
        if not super().revoke(lease_id):
            raise LeaseExpiredError("gone")
        return True


class TakesLess(MemoryStore):
    """Declares 64 and takes 48."""

    def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
        if len(ops) + len(expect) > 48:
            raise ConflictError("too many")
        return super().commit(ops, expect)
