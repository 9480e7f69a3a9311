"""How the calls to a canary went, without more than the store: callers tell each what they have counted.

Under `calls/<service>/<caller>` stands a small leased record of sums that only rise, by subset. It is written while a
canary of that service is under way, seldom, and only when there is something new. Who judges the canary reads all of
them, and takes what came since it read last. Sums that are begun anew stand under another key, so one that was away
with its session and returns is known again, and nothing is counted twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Protocol, Self

from attrs import define, field, frozen

from osdisco._connection import backoff
from osdisco._records import decode, encode
from osdisco._tasks import Supervisor
from osdisco.backend import ABSENT, Condition, Delete, HeldBy, Put
from osdisco.client import Client
from osdisco.errors import ClosedError, ConflictError, InvalidNameError, OsdiscoError, RecordError
from osdisco.mesh._canary import CanaryPlan, Sample
from osdisco.mesh._histogram import SIZE, bucket_of, quantile
from osdisco.mesh.rules_view import RulesView

log = logging.getLogger("osdisco")

PLACE: Final = "calls"

PERIOD: Final = 10.0
"""Seconds between two writes of a caller, or a third of the canary's interval when that is less."""

KEPT_LEAST: Final = 600.0
"""Seconds, or ten windows if that is more, for which the sums of a caller are remembered whose record is away: it
returns with the next session, and what was in it then has been counted."""

COUNT_MAX: Final = 2**53


class CanaryMetrics(Protocol):
    """Knows how the calls to a subset went."""

    async def sample(self, service: str, subset: str, window: float) -> Sample | None:
        """Return how they went since this was last asked for, or in the last `window` seconds; None: nobody knows.

        It is asked when a canary begins to be watched, which only marks the beginning, and after each interval. What it
        raises is as good as None.
        """


@frozen
class Counts:
    """Sums of the calls to one subset: all, those that failed, and how many took how long."""

    calls: int = 0
    failed: int = 0
    took: Sequence[int] = (0,) * SIZE


@frozen
class CallRecord:
    """What one caller has counted, by subset."""

    caller: str
    subsets: Mapping[str, Counts]


@define(eq=False)
class _Sums:
    calls: int = 0
    failed: int = 0
    took: list[int] = field(factory=lambda: [0] * SIZE)


@define(eq=False)
class _Told:
    """What is counted of a service, by subset; `id` is under which it is published."""

    service: str
    id: str
    sums: dict[str, _Sums] = field(factory=dict)
    written: bytes | None = None


class CallSummaries:
    """Counts this process's calls of services that have a canary under way, and publishes the sums. Enter it.

    Args:
        view: the rules that calls are routed by.
    """

    def __init__(self, client: Client, view: RulesView) -> None:
        self._client = client
        self._connection = client._connection
        self._view = view
        self._told: dict[str, _Told] = {}
        self._supervisor = Supervisor()

    def count(self, service: str, subset: str | None, *, ok: bool | None, seconds: float) -> None:
        """Count one call. Costs next to nothing while no canary of the service is under way.

        Args:
            ok: whether it did not fail; None for one that its caller gave up: that only tells how long it took, and
                only once that was longer than the plan allows. Who leaves sooner says nothing of who is called.
        """
        plan = None if subset is None else self._plan(service)
        if subset is None or plan is None or (ok is None and (plan.p99 is None or seconds <= plan.p99)):
            return
        told = self._told.get(service)
        if told is None:
            told = self._told[service] = _Told(service, self._client.runtime.unique())
        sums = told.sums.setdefault(subset, _Sums())
        sums.calls += 1
        sums.failed += ok is False
        sums.took[bucket_of(seconds)] += 1

    def _plan(self, service: str) -> CanaryPlan | None:
        version = self._view.get(service)
        canary = version.canary if version is not None else None
        return canary.plan if canary is not None and canary.running else None

    async def __aenter__(self) -> Self:
        self._supervisor.spawn(self._publish(), "publish what calls came to")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._supervisor.aclose()
        for service in list(self._told):
            with suppress(OsdiscoError):  # it goes with the session
                await self._withdraw(service)

    async def _publish(self) -> None:
        failures = 0
        with suppress(ClosedError):
            while True:
                await self._view.until(lambda _: self._plans() or self._told)
                period = min((plan.interval / 3 for plan in self._plans().values()), default=0.0)
                await asyncio.sleep(self._client.runtime.jittered(min(period, PERIOD)))
                try:
                    await self._publish_now()
                    failures = 0
                except ClosedError:
                    raise
                except OsdiscoError as exc:
                    log.debug("what calls came to could not be published: %s", exc)
                    await asyncio.sleep(backoff(self._client.runtime, failures))
                    failures += 1

    def _plans(self) -> dict[str, CanaryPlan]:
        plans = ((service, self._plan(service)) for service in self._view)
        return {service: plan for service, plan in plans if plan is not None}

    async def _publish_now(self) -> None:
        """Write now what is new, and take away what is over. Raises what the store says."""
        plans = self._plans()
        for service in self._told.keys() - plans.keys():
            await self._withdraw(service)
        for told in list(self._told.values()):
            try:
                await self._publish_one(told)
            except (RecordError, InvalidNameError) as exc:  # of one service alone; the others are published
                log.warning("what calls of %s came to cannot be published: %s", told.service, exc)

    async def _publish_one(self, told: _Told) -> None:
        record = CallRecord(self._client.runtime.name, {name: _counts(one) for name, one in told.sums.items()})
        data = encode(record)
        if told.written != data:
            await self._put(told, data)

    async def _put(self, told: _Told, data: bytes) -> None:
        key = self._key(told)
        session = await self._client.shared_session()
        guards: list[Condition] = [HeldBy(session.id), ABSENT]
        for guard in guards if told.written is not None else reversed(guards):
            try:
                await self._connection.commit([Put(key, data, session.id)], {key: guard})
                told.written = data
                return
            except ConflictError:
                continue
        raise ConflictError(f"{key!a} is still held by a session of before")

    def _key(self, told: _Told) -> str:
        return self._client._keys.join(PLACE, told.service, told.id)

    async def _withdraw(self, service: str) -> None:
        told = self._told[service]
        if told.written is not None:
            await self._connection.commit([Delete(self._key(told))], {})
        del self._told[service]


def _counts(sums: _Sums) -> Counts:
    return Counts(sums.calls, sums.failed, tuple(sums.took))


@frozen
class _Seen:
    """The sums of a caller when they were last read, and when that was."""

    counts: Counts
    at: float


class CallFigures:
    """CanaryMetrics from what callers publish."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._seen: dict[tuple[str, str], dict[str, _Seen]] = {}

    async def sample(self, service: str, subset: str, window: float) -> Sample | None:
        """Return how calls went since this was last asked for. Raises what the store says."""
        there = await self._read(service, subset)
        before = self._remember(service, subset, there, max(KEPT_LEAST, 10 * window))
        if before is None or not there:
            return None
        differences = [
            _since(counts, before[key].counts if key in before else Counts()) for key, counts in there.items()
        ]
        calls = sum(one.calls for one in differences)
        if not calls:
            return Sample(0, 0.0)
        failed = sum(one.failed for one in differences)
        took = [sum(one.took[place] for one in differences) for place in range(SIZE)]
        return Sample(calls, 100.0 * (calls - failed) / calls, quantile(took, 0.99))

    def _remember(
        self, service: str, subset: str, there: Mapping[str, Counts], keep: float
    ) -> Mapping[str, _Seen] | None:
        """Take what was read for the next time; returns what was known before, None when nothing was asked for yet."""
        now = self._client.runtime.clock.now()
        before = self._seen.get((service, subset))
        away = {key: seen for key, seen in (before or {}).items() if now - seen.at < keep}
        self._seen[service, subset] = away | {key: _Seen(counts, now) for key, counts in there.items()}
        return before

    async def _read(self, service: str, subset: str) -> dict[str, Counts]:
        """Return the sums of each caller that called the subset."""
        snapshot = await self._client._connection.scan(self._client._keys.join(PLACE, service) + "/")
        found: dict[str, Counts] = {}
        for key, item in snapshot.items.items():
            try:
                counts = decode(item.value, CallRecord).subsets.get(subset)
            except RecordError as exc:
                log.warning("skipped what a caller is said to have counted at %r: %s", key, exc)
                continue
            if counts is not None and _is_sound(counts):
                found[key] = counts
        return found


def _is_sound(counts: Counts) -> bool:
    """Return whether that can have been counted: others may write there, too."""
    numbers = (counts.calls, counts.failed, *counts.took)
    return len(counts.took) == SIZE and all(0 <= number <= COUNT_MAX for number in numbers)


def _since(now: Counts, before: Counts) -> Counts:
    """Return what came after `before`; a sum that fell was begun anew."""
    if now.calls < before.calls:
        before = Counts()
    took = tuple(max(0, new - old) for new, old in zip(now.took, before.took, strict=True))
    return Counts(now.calls - before.calls, max(0, now.failed - before.failed), took)
