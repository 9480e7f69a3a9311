"""One check over time: when it is run, and what its results make of it."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Iterable
from typing import Any, Final

from attrs import evolve, frozen

from osdisco._tasks import Supervisor, cancel
from osdisco.discovery.checks import Check, CheckFailedError, PolledCheck, TtlCheck, Verdict
from osdisco.runtime import Runtime

EAGER_INTERVAL: Final = 1.0
"""Seconds between runs of an eager check until it has passed for the first time."""

_NEGLIGIBLE: Final = 0.001
"""Seconds that are no time: a timer is that early at times."""


class CheckState(enum.Enum):
    """How a check is."""

    STARTING = "starting"
    PASSING = "passing"
    FAILING = "failing"


class _Event(enum.Enum):
    PASSED = "passed for the first time"
    GRACE_OVER = "failed when its startup grace was over"
    FELL = "failed `fall` times in a row"
    ROSE = "passed `rise` times in a row"


_MOVES: Final = {
    (CheckState.STARTING, _Event.PASSED): CheckState.PASSING,
    (CheckState.STARTING, _Event.GRACE_OVER): CheckState.FAILING,
    (CheckState.PASSING, _Event.FELL): CheckState.FAILING,
    (CheckState.FAILING, _Event.ROSE): CheckState.PASSING,
}
"""All that a check can become; nothing leads back to STARTING."""


@frozen
class CheckStatus:
    """One check as it is.

    Args:
        reason: why it is in its state: what it said last that fits to it.
        since: when it came to be so, in seconds since the epoch.
    """

    name: str
    critical: bool
    state: CheckState
    reason: str
    since: float


class Watching:
    """A check that is run, or listened to, until it is closed.

    Args:
        changed: called when the state is another one.
        first: seconds until the first run.
    """

    def __init__(
        self,
        check: Check,
        runtime: Runtime,
        supervisor: Supervisor,
        changed: Callable[[], None],
        *,
        first: float = 0.0,
    ) -> None:
        self.status = CheckStatus(
            check.label, check.critical, CheckState.STARTING, "has not passed yet", runtime.clock.wall()
        )
        self._check = check
        self._runtime = runtime
        self._supervisor = supervisor
        self._changed = changed
        self._first = first
        self._grace_ends = 0.0
        self._row = (False, 0)  # what the last results were, and how many of them in a row
        self._task: asyncio.Task[None] | None = None
        self._running: asyncio.Task[Verdict] | None = None

    def start(self) -> None:
        """Begin."""
        self._grace_ends = self._runtime.clock.now() + self._first + self._check.startup_grace
        self._task = self._supervisor.spawn(self._follow(), f"follow the check {self._check.label}")

    @property
    def tasks(self) -> Iterable[asyncio.Task[Any]]:
        """What it does now: a run may be under way."""
        return (task for task in (self._task, self._running) if task is not None)

    async def aclose(self) -> None:
        """End it, also a run that is under way."""
        await cancel(*self.tasks)

    async def _follow(self) -> None:
        if isinstance(self._check, TtlCheck):
            await self._listen(self._check)
        elif isinstance(self._check, PolledCheck):
            await self._poll(self._check)

    async def _listen(self, check: TtlCheck) -> None:
        seen = 0
        while True:
            verdict, seen = await check.next_report(seen, max(check.ttl, self._grace_left))
            self._take(verdict)

    async def _poll(self, check: PolledCheck) -> None:
        await asyncio.sleep(self._first)
        while True:
            self._take(await self._verdict(check))
            await asyncio.sleep(self._pause(check))

    @property
    def _grace_left(self) -> float:
        """Seconds; 0 when it is over, or the check has passed."""
        if self.status.state is not CheckState.STARTING:
            return 0.0
        left = self._grace_ends - self._runtime.clock.now()
        return left if left > _NEGLIGIBLE else 0.0

    def _pause(self, check: PolledCheck) -> float:
        """Return the seconds until the next run. One is due at the very end of the grace."""
        pause = check.interval * (1 + check.jitter * self._runtime.random.uniform(-1, 1))
        if self.status.state is CheckState.STARTING:
            pause = min(pause, self._grace_left, EAGER_INTERVAL if check.eager else pause)
        return pause

    async def _verdict(self, check: PolledCheck) -> Verdict:
        """Run the check in a task of its own: one that does not even end when it is cancelled holds up nothing."""
        if self._running is not None and not self._running.done():
            return Verdict(ok=False, reason="its last run does not end")
        self._running = self._supervisor.spawn(_run(check), f"check {check.label}")
        await asyncio.wait([self._running], timeout=check.timeout)
        if not self._running.done():
            self._running.cancel()
            return Verdict(ok=False, reason=f"no answer within {check.timeout:g} s")
        if self._running.cancelled():
            return Verdict(ok=False, reason="it was cancelled")
        return self._running.result()

    def _take(self, verdict: Verdict) -> None:
        last, count = self._row
        self._row = (verdict.ok, count + 1 if verdict.ok is last else 1)
        before = self.status.state
        event = self._event(verdict)
        state = before if event is None else _MOVES[before, event]
        if state is not before:
            self.status = evolve(self.status, state=state, reason=verdict.reason, since=self._runtime.clock.wall())
            self._changed()
        elif verdict.ok is (state is CheckState.PASSING):
            self.status = evolve(self.status, reason=verdict.reason)

    def _event(self, verdict: Verdict) -> _Event | None:
        state, in_a_row = self.status.state, self._row[1]
        if state is CheckState.STARTING:
            if verdict.ok:
                return _Event.PASSED
            return None if self._grace_left else _Event.GRACE_OVER
        if state is CheckState.PASSING:
            return _Event.FELL if not verdict.ok and in_a_row >= self._check.fall else None
        return _Event.ROSE if verdict.ok and in_a_row >= self._check.rise else None


async def _run(check: PolledCheck) -> Verdict:
    try:
        await check.run()
    except CheckFailedError as exc:
        return Verdict(ok=False, reason=str(exc))
    except Exception as exc:
        return Verdict(ok=False, reason=f"{type(exc).__name__}: {exc}")
    return Verdict(ok=True, reason="passed")
