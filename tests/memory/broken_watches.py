"""Stores that break one rule of watches each, for proving that the conformance suite would tell."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

from attrs import evolve

from osdisco.backend import Batch, Condition, Item, Op, Snapshot
from osdisco.errors import ConflictError
from osdisco_memory import MemoryBackend, MemoryStore
from osdisco_memory._watching import Subscription

Frame = Snapshot | Batch


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


class RunsAhead(MemoryStore):
    """A frame claims the revision of the change after it."""

    def frame(self, sub: Subscription) -> Frame | None:
        frame = super().frame(sub)
        return frame and evolve(frame, revision=frame.revision + 1)


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


class DropsLargeEvents(MemoryStore):
    """What is larger than a message may be is not sent."""

    def frame(self, sub: Subscription) -> Frame | None:
        frame = super().frame(sub)
        if isinstance(frame, Batch) and sum(len(item.value) for item in frame.puts) > 100_000:
            return self.frame(sub)
        return frame


class ResumesWithNothing(MemoryStore):
    """A resumed watch begins with an empty Snapshot."""

    def subscribe(self, sub: Subscription, after: int | None) -> None:
        super().subscribe(sub, after)
        self._resumed = None if after is None else sub

    def frame(self, sub: Subscription) -> Frame | None:
        if self._resumed is sub:
            self._resumed = None
            return Snapshot({}, self.revision)
        return super().frame(sub)


class OverflowsInSilence(MemoryStore):
    """A consumer that is too far behind goes on with the latest change."""

    def frame(self, sub: Subscription) -> Frame | None:
        if sub.next is not None and self.revision - sub.next > 100:
            sub.next = self.revision
        return super().frame(sub)


class WakesTen(MemoryStore):
    """Tells a change to ten watches at most, and never the others."""

    def subscribe(self, sub: Subscription, after: int | None) -> None:
        super().subscribe(sub, after)
        if len(list(self._watches)) > 10:
            self._watches.remove(sub)

    def unsubscribe(self, sub: Subscription) -> None:
        if sub in list(self._watches):
            super().unsubscribe(sub)
        else:
            self.alarms.leave(sub.loop)


class RemembersCreation(MemoryStore):
    """A key made anew is as old as the first one of its name."""

    def __init__(self) -> None:
        super().__init__()
        self._first: dict[str, int] = {}

    def _after(self, op: Op) -> Item | None:
        after = super()._after(op)
        return after and after._replace(created=self._first.setdefault(op.key, after.created))


class ClosesTogether(MemoryBackend):
    """Closing one watch closes the backend."""

    async def watch(self, target: str, *, after: int | None = None) -> AsyncGenerator[Frame, None]:
        try:
            async with aclosing(super().watch(target, after=after)) as frames:
                async for frame in frames:
                    yield frame
        finally:
            await self.aclose()
