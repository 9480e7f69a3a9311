"""Stores that break one rule of keys, reads and commits each, for proving that the conformance suite would tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve

from osdisco.backend import Condition, Item, Limits, Op, Put, Snapshot
from osdisco.errors import ConflictError
from osdisco_memory import MemoryBackend, MemoryStore


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
        return after and after._replace(revision=old.revision if old else after.revision)


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
        return after and after._replace(created=after.revision)


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
        return after and after._replace(value=after.value[:100_000])


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


class LooksBeforeItWrites(MemoryStore):
    """What a commit tells of a prefix is from before it."""

    def commit_and_scan(
        self, ops: Sequence[Op], expect: Mapping[str, Condition], prefix: str
    ) -> tuple[Mapping[str, int], Mapping[str, Item]]:
        before = self.scan(prefix).items
        return self.commit(ops, expect), before


class TakesLess(MemoryStore):
    """Declares 64 and takes 48."""

    def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
        if len(ops) + len(expect) > 48:
            raise ConflictError("too many")
        return super().commit(ops, expect)


class RemembersTheDead(MemoryStore):
    """A get finds what was deleted."""

    def __init__(self) -> None:
        super().__init__()
        self._dead: dict[str, Item] = {}

    def _set(self, key: str, item: Item | None) -> None:
        if item is None:
            self._dead[key] = self._items[key]
        super()._set(key, item)

    def get(self, key: str) -> Item | None:
        return super().get(key) or self._dead.get(key)


class CountsSnapshotsBack(MemoryStore):
    """The cursor of a scan lies before what it holds."""

    def scan(self, target: str) -> Snapshot:
        return evolve(super().scan(target), revision=max(self.revision - 1, 0))


class PutsOnly(MemoryStore):
    """A commit that puts does not delete."""

    def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
        return super().commit([op for op in ops if isinstance(op, Put)] or ops, expect)


class CutsKeys(MemoryStore):
    """Keeps 400 bytes of a key."""

    def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
        return super().commit([evolve(op, key=op.key[:400]) for op in ops], expect)


class DeclaresNonsense(MemoryStore):
    """Grants nothing at all, by its own words."""

    def __init__(self) -> None:
        super().__init__(limits=Limits(ttl_min=10, ttl_max=1, expiry_factor=1))


class ShowsValues(MemoryBackend):
    """Its repr is its content."""

    def __repr__(self) -> str:
        return str({key: item.value for key, item in self.store._items.items()})
