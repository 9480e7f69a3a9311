"""Histories of keys: what many clients did at the same time, written down, and whether one store can have done that.

    history = History()
    recorder = Recorder(client, history, "worker 1")      # one for each worker; all share the history
    await recorder.put("a", b"1")
    await recorder.get("a")
    assert not history.problems()

Every operation has one of three outcomes: done (or refused, as its condition did not hold), failed, or unknown. Each
value must be written once, so that whoever reads it tells which write it saw. What watches showed is held against the
same history by `osdisco.testing.watched`. `osdisco.testing.linearizability` does the search, for other objects, too.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from enum import Enum
from typing import Final, Literal

from attrs import evolve, field, frozen

from osdisco.backend import ABSENT, Condition, Delete, HeldBy, Item, Op, Put, Revision
from osdisco.client import Client
from osdisco.errors import ConflictError, IndeterminateError, OsdiscoError
from osdisco.runtime import Clock
from osdisco.testing.linearizability import BUDGET, IMPOSSIBLE, Impossible, Step, Verdict, linearizable
from osdisco.testing.watched import Log

KEY_MAX: Final = 250
"""Operations on one key that a search is good for, without those that failed. With unknown outcomes among them more can
take for ever."""

State = bytes | None
"""A key's value. Each is written once, so it stands for its revision, too."""


class Outcome(Enum):
    """What came of an operation."""

    DONE = "done"
    REFUSED = "refused"
    """Its condition did not hold; that is an answer of the store as a read is one."""
    FAILED = "failed"
    """It was not applied, and nothing was learnt."""
    UNKNOWN = "unknown"
    """It may have been applied, or may still be."""


@frozen(kw_only=True)
class Operation:
    """Something that was asked of one key.

    Attributes:
        who, key: who asked, and of what.
        begin, end: seconds on the history's clock; what is unknown ended for its caller, and may go on.
        op: what to write; None for a read.
        expect: the condition of a write.
        outcome: what came of it.
        seen: what a read that is done found.
        revision: of a put that is done.
    """

    who: str
    key: str
    begin: float
    end: float
    op: Op | None = None
    expect: Condition | None = None
    outcome: Outcome = Outcome.DONE
    seen: Item | None = field(default=None)
    revision: int | None = None

    @property
    def value(self) -> State:
        """The value that a put writes."""
        return self.op.value if isinstance(self.op, Put) else None

    @property
    def may_apply(self) -> bool:
        """Whether it is a write that was applied, or may have been."""
        return self.op is not None and self.outcome in (Outcome.DONE, Outcome.UNKNOWN)

    def __str__(self) -> str:
        what = "get" if self.op is None else type(self.op).__name__.lower()
        told = self.value if self.op is not None else self.seen and (self.seen.value, self.seen.revision)
        condition = f" if {self.expect}" if self.expect is not None else ""
        revision = f" @{self.revision}" if self.revision is not None else ""
        return (
            f"{self.begin:.4f}-{self.end:.4f} {self.who}: {what} {self.key} {told!a}{condition}"
            f" {self.outcome.value}{revision}"
        )


class History:
    """What all did. Operations may come in any order."""

    def __init__(self, operations: Iterable[Operation] = ()) -> None:
        self.operations = list(operations)
        self._now = -math.inf

    def moment(self, now: float) -> float:
        """Return a clock's time, or a little more: no two moments of a history are the same."""
        self._now = max(now, math.nextafter(self._now, math.inf))
        return self._now

    def add(self, operation: Operation) -> int:
        """Write down an operation; returns its place among the operations."""
        self.operations.append(operation)
        return len(self.operations) - 1

    def counts(self) -> Counter[str]:
        """Return how many operations had which outcome."""
        return Counter(operation.outcome.value for operation in self.operations)

    def by_key(self) -> Mapping[str, list[Operation]]:
        """Return the operations of each key."""
        keys: dict[str, list[Operation]] = defaultdict(list)
        for operation in self.operations:
            keys[operation.key].append(operation)
        return keys

    def problems(self, log: Log | None = None, *, shown: Iterable[Item] = (), budget: int = BUDGET) -> list[str]:
        """Return what no store that keeps the contract can have done; nothing when all is well.

        Args:
            log: all changes, where the store has them all (etcd): acknowledged writes are in it, at the revisions that
                were told, and nothing is in it that nobody wrote.
            shown: items that anybody saw in other ways, as by watches.
            budget: of the search, for each key.

        Raises:
            ValueError: a value was written twice, or a key has more than KEY_MAX operations that have not failed:
                nothing can be said.
        """
        self._check()
        found = [*_values(self.operations, shown), *_order(self.operations)]
        found += _against(log, self.operations) if log is not None else ()
        for key, operations in self.by_key().items():
            verdict = verdict_on(operations, budget=budget)
            if verdict is not Verdict.LINEARIZABLE:
                lines = map(str, sorted(operations, key=lambda operation: operation.begin))
                found.append("\n  ".join([f"{key} is {verdict.value}:", *lines]))
        return found

    def _check(self) -> None:
        written = Counter((one.key, one.value) for one in self.operations if isinstance(one.op, Put))
        for (key, value), times in written.items():
            if times > 1:
                raise ValueError(f"{value!a} was written {times} times to {key!a}; each value must be written once")
        for key, operations in self.by_key().items():
            if (searched := len(list(_searched(operations)))) > KEY_MAX:
                raise ValueError(f"{key!a} has {searched} operations; at most {KEY_MAX} can be searched")


def verdict_on(operations: Iterable[Operation], *, budget: int = BUDGET) -> Verdict:
    """Return whether the operations of one key, which was not there before, are linearizable."""
    operations = list(operations)
    values: dict[int, State] = {}
    for one in operations:
        if one.revision is not None:
            values[one.revision] = one.value
        if one.seen is not None:
            values[one.seen.revision] = one.seen.value
    return linearizable([_step(one, values) for one in _searched(operations)], None, budget=budget)


def _searched(operations: Iterable[Operation]) -> Iterator[Operation]:
    """Return those that an order must hold: what failed is in none."""
    return (one for one in operations if one.outcome is not Outcome.FAILED)


def _step(one: Operation, values: Mapping[int, State]) -> Step[State]:
    end = None if one.outcome is Outcome.UNKNOWN else one.end
    if one.op is None:
        seen = one.seen.value if one.seen is not None else None
        return Step(one.begin, end, lambda state: state if state == seen else IMPOSSIBLE)
    holds, value = _guard(one.expect, values), one.value
    if one.outcome is Outcome.REFUSED:
        return Step(one.begin, end, lambda state: IMPOSSIBLE if holds(state) else state)

    def write(state: State) -> State | Literal[Impossible.IMPOSSIBLE]:
        return value if holds(state) else IMPOSSIBLE

    return Step(one.begin, end, write)


def _guard(expect: Condition | None, values: Mapping[int, State]) -> Callable[[State], bool]:
    match expect:
        case None:
            return lambda state: True
        case Revision(number):
            return lambda state: state is not None and state == values.get(number)
        case HeldBy():
            raise ValueError("leases are no matter of histories")
        case _:
            return lambda state: state is None


def _values(operations: Iterable[Operation], shown: Iterable[Item]) -> Iterator[str]:
    """Whatever was seen is what somebody wrote and was not told to have failed, always at one revision."""
    operations = list(operations)
    revisions: dict[tuple[str, State], int | None] = {
        (one.key, one.value): one.revision for one in operations if isinstance(one.op, Put) and one.may_apply
    }
    reads = [(str(one), one.key, one.seen) for one in operations if one.seen is not None]
    for story, key, item in [*reads, *((f"{item} was shown", item.key, item) for item in shown)]:
        place = key, item.value
        if place not in revisions:
            yield f"{story}: no write of it was done, or may have been"
        elif revisions[place] is None:
            revisions[place] = item.revision
        elif revisions[place] != item.revision:
            yield f"{story}: it has the revision {revisions[place]}"


def _order(operations: Iterable[Operation]) -> Iterator[str]:
    """What came later has the higher revision: a put than all that was seen before, a read than its key's past."""
    events: list[tuple[float, int, Operation]] = []
    for one in operations:
        if _revision(one) is not None:
            events += [(one.begin, 0, one), (one.end, 1, one)]
    newest, of_key, floors = 0, Counter[str](), dict[int, tuple[int, int]]()
    for _, ended, one in sorted(events, key=lambda event: event[:2]):
        revision = _revision(one) or 0
        if not ended:
            floors[id(one)] = newest, of_key[one.key]
            continue
        before, before_here = floors.pop(id(one))
        if one.op is not None and revision <= before:
            yield f"{one}: {before} was there before it began"
        elif revision < before_here:
            yield f"{one}: {before_here} of this key was there before it began"
        newest, of_key[one.key] = max(newest, revision), max(of_key[one.key], revision)


def _revision(one: Operation) -> int | None:
    return one.revision if one.seen is None else one.seen.revision


def _against(log: Log, operations: Iterable[Operation]) -> Iterator[str]:
    """Acknowledged writes are a subset of the log, and that is one of the acknowledged and the unknown."""
    writes = {(one.key, one.value): one for one in operations if isinstance(one.op, Put) and one.may_apply}
    logged: dict[tuple[str, State], Item] = {}
    for item in log.puts:
        if (earlier := logged.setdefault((item.key, item.value), item)) is not item:
            yield f"{earlier} was applied again at {item.revision}"
    for place, one in writes.items():
        applied = logged.get(place)
        if one.outcome is Outcome.DONE and (applied is None or applied.revision != one.revision):
            yield f"{one} is not in the log as it was acknowledged, but {applied}"
        elif applied is not None and not _held(one.expect, applied, log):
            yield f"{one} was applied at {applied.revision} although its condition did not hold"
    yield from (f"{item} is in the log and nobody wrote it" for place, item in logged.items() if place not in writes)
    yield from _deletions(log, operations)


def _held(expect: Condition | None, item: Item, log: Log) -> bool:
    before = log.before(item.key, item.revision)
    match expect:
        case None:
            return True
        case Revision(number):
            return before is not None and before.revision == number
        case _:
            return before is None


def _deletions(log: Log, operations: Iterable[Operation]) -> Iterator[str]:
    """A delete has no value to tell it by, and one that is done may have found nothing: they are counted."""
    may: Counter[str] = Counter()
    must: Counter[str] = Counter()
    for one in operations:
        if isinstance(one.op, Delete) and one.may_apply:
            may[one.key] += 1
            must[one.key] += one.outcome is Outcome.DONE and isinstance(one.expect, Revision)
    for key in log.deletes.keys() | may.keys():
        if not must[key] <= log.deletes[key] <= may[key]:
            yield f"{key} was deleted {log.deletes[key]} times; at least {must[key]} and at most {may[key]} deletes did"


class Recorder:
    """Does operations by a client, and writes down what came of them. Raises no error of the store.

    Args:
        client: does them.
        history: takes them.
        who: its name in the history.
        clock: one that all recorders share; the client's own when None.
    """

    def __init__(self, client: Client, history: History, who: str, *, clock: Clock | None = None) -> None:
        self.client = client
        self.history = history
        self.who = who
        self._clock = clock or client.runtime.clock

    async def get(self, name: str) -> Operation:
        """Read a key."""
        return await self._do(name, None, None, self.client.get(name))

    async def put(self, name: str, value: bytes) -> Operation:
        """Write a key, whatever it holds."""
        return await self._do(name, Put(name, value), None, self.client.put(name, value))

    async def create(self, name: str, value: bytes) -> Operation:
        """Write a key that must not exist."""
        return await self._do(name, Put(name, value), ABSENT, self.client.create(name, value))

    async def compare_and_set(self, name: str, value: bytes, revision: int) -> Operation:
        """Write a key that must be as it was at a revision."""
        op, expect = Put(name, value), Revision(revision)
        return await self._do(name, op, expect, self._commit(op, expect))

    async def delete(self, name: str, revision: int | None = None) -> Operation:
        """Delete a key, with a revision only if it is as it was then."""
        expect = None if revision is None else Revision(revision)
        return await self._do(name, Delete(name), expect, self.client.delete(name, expect=expect))

    async def _commit(self, op: Put, expect: Condition) -> int:
        return (await self.client.commit([op], {op.key: expect}))[op.key]

    async def _do(
        self, name: str, op: Op | None, expect: Condition | None, call: Awaitable[Item | int | None]
    ) -> Operation:
        """Write it down before it is sent: whoever is killed or cancelled meanwhile leaves it of unknown outcome."""
        unknown = Outcome.FAILED if op is None else Outcome.UNKNOWN  # of a read nothing was learnt
        asked = Operation(
            who=self.who, key=name, begin=self._now(), end=math.inf, op=op, expect=expect, outcome=unknown
        )
        place = self.history.add(asked)
        try:
            answer = await call
        except ConflictError:
            told = evolve(asked, outcome=Outcome.REFUSED)
        except IndeterminateError:
            told = asked
        except OsdiscoError:
            told = evolve(asked, outcome=Outcome.FAILED)
        else:
            seen = answer if isinstance(answer, Item) else None
            revision = answer if isinstance(answer, int) else None
            told = evolve(asked, outcome=Outcome.DONE, seen=seen, revision=revision)
        self.history.operations[place] = told = evolve(told, end=self._now())
        return told

    def _now(self) -> float:
        return self.history.moment(self._clock.now())
