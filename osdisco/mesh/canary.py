"""The canary controller: on the elected leader, it moves calls to a canary step by step, or back.

Any number of processes may run one; at most one acts, and the store refuses what a former leader still writes. What it
knows stands in the document of the rules, so the next leader goes on, after one interval of its own: no clock is
compared with another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Final, Self

from osdisco._connection import backoff
from osdisco._tasks import Supervisor
from osdisco.backend import Condition
from osdisco.client import Client
from osdisco.coordination._term import Term
from osdisco.coordination.election import LeaderElection
from osdisco.errors import (
    ClosedError,
    ConfigError,
    DeniedError,
    IndeterminateError,
    LostError,
    OsdiscoError,
    TimedOutError,
    UnavailableError,
)
from osdisco.mesh import _canary as canaries
from osdisco.mesh._canary import CanaryPlan, Sample
from osdisco.mesh._canary_gauges import Watched, end_of, gauges
from osdisco.mesh._rules_record import RulesVersion
from osdisco.mesh._standing import Standing
from osdisco.mesh.canary_figures import CallFigures, CanaryMetrics
from osdisco.mesh.rules_view import RulesView
from osdisco.mesh.traffic_rules import TrafficRules
from osdisco.metrics._catalog import CANARY_CHECKS, CANARY_ENDS
from osdisco.metrics._hooks import Sample as Gauge

log = logging.getLogger("osdisco")

ELECTION: Final = "mesh-canary"

ASKING_MAX: Final = 10.0
"""Seconds that figures may take: the other canaries wait meanwhile."""


class _OverError(Exception):
    """The canary that was checked is not under way any more."""


class _UnchangedError(Exception):
    """The check changes nothing: there is nothing to write."""


class CanaryController:
    """Checks the canaries of all services while it leads. Enter it, or run it in a task of your own.

    Args:
        metrics: how their calls go; what callers publish in the store when None.

    Raises:
        ConfigError: it is no CanaryMetrics; every check would fail, and the canary be rolled back.
    """

    def __init__(self, client: Client, metrics: CanaryMetrics | None = None) -> None:
        if metrics is not None and not callable(getattr(metrics, "sample", None)):
            raise ConfigError(f"metrics is a CanaryMetrics, with a method `sample`, not {type(metrics).__name__}")
        self._client = client
        self._now = client.runtime.clock.now
        self._rules = TrafficRules(client)
        self._metrics: CanaryMetrics = CallFigures(client) if metrics is None else metrics
        self._election = LeaderElection(client, None, ELECTION, candidate_id=None, priority=0, info={})
        self._supervisor = Supervisor()
        self._watched: dict[str, Watched] = {}

    def __repr__(self) -> str:
        return f"<CanaryController of {self._client.runtime.name}{', leading' if self.leading else ''}>"

    @property
    def leading(self) -> bool:
        """Whether it is the one that acts."""
        return self._election.is_leader

    async def __aenter__(self) -> Self:
        self._client._connection.check_open()
        self._supervisor.spawn(self.run(), "control canaries")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._supervisor.aclose()

    async def run(self) -> None:
        """Stand in the election, and act while leading, for ever; trouble of the store is waited out.

        Raises:
            ClosedError: the client was closed.
        """
        view, failures = self._rules.view(), 0
        view.start()
        uncount = self._client.runtime.metrics.follow(lambda: self._gauges(view))
        try:
            while True:
                try:
                    async with self._election.campaign() as term:
                        failures = 0
                        await self._lead(term, view)
                except DeniedError as exc:  # until the right is given
                    log.warning("canaries are not controlled from here: %s", exc)
                except (LostError, UnavailableError, IndeterminateError) as exc:
                    log.debug("canaries are not controlled from here for now: %s", exc)
                await asyncio.sleep(backoff(self._client.runtime, failures))
                failures += 1
        finally:
            uncount()
            await view.aclose()

    def _gauges(self, view: RulesView) -> Iterator[Gauge]:
        return gauges(self._client._keys.root.rstrip("/"), self.leading, self._watched, view)

    async def _lead(self, term: Term, view: RulesView) -> None:
        watched = self._watched = {}
        while True:
            await self._follow(watched, view)
            for service, one in watched.items():
                if one.due <= self._now():
                    await self._check(term, service, one)
            due = min((one.due for one in watched.values()), default=None)
            timeout = None if due is None else max(0.0, due - self._now())
            try:
                await view.until(lambda _: _is_new(watched, view), timeout)
            except TimedOutError:
                continue

    async def _follow(self, watched: dict[str, Watched], view: RulesView) -> None:
        """Begin with canaries that are new here, which takes an interval, and leave those that are over."""
        there = _under_way(view)
        for service in [name for name, one in watched.items() if there.get(name) != (one.base, one.plan)]:
            how = end_of(view.get(service), watched.pop(service))
            self._client.runtime.metrics.count(CANARY_ENDS, service, how)
        for service in there.keys() - watched.keys():
            base, plan = there[service]
            _, marked = await self._sample(service, plan)
            watched[service] = Watched(base, plan, self._now() + plan.interval, marked)

    async def _check(self, term: Term, service: str, one: Watched) -> None:
        sample, given = await self._sample(service, one.plan)
        if not one.marked:  # what came before nobody knows since when
            sample, one.marked = None, given
        one.sample = sample
        one.due = self._now() + one.plan.interval

        def advance(standing: Standing) -> RulesVersion:
            return _advanced(standing, one.base, sample)

        def held() -> Mapping[str, Condition]:
            term.check()
            return term._held()

        try:
            new = await self._rules._change(service, advance, held)
            log.info("%s: %s", service, new.why)
        except _UnchangedError:
            pass
        except _OverError:
            return
        except (ClosedError, LostError):
            raise
        except OsdiscoError as exc:  # of one canary alone; the others go on
            log.warning("the canary of %s could not be moved, it is checked again: %s", service, exc)
            return
        verdict, _ = canaries.judged(one.plan, sample)
        self._client.runtime.metrics.count(CANARY_CHECKS, service, verdict.value)

    async def _sample(self, service: str, plan: CanaryPlan) -> tuple[Sample | None, bool]:
        """Return the figures, and whether they could be asked for."""
        try:
            async with asyncio.timeout(min(plan.interval, ASKING_MAX)):
                sample = await self._metrics.sample(service, plan.canary, plan.interval)
            if not canaries.is_sample(sample):
                raise TypeError(f"{type(self._metrics).__name__} gave no Sample of numbers, but {sample!a:.200}")
            return sample, True
        except ClosedError:
            raise
        except Exception as exc:
            level = logging.DEBUG if isinstance(exc, OsdiscoError) else logging.WARNING
            log.log(level, "no figures of the canary of %s: %r", service, exc)
            return None, False


def _under_way(view: RulesView) -> dict[str, tuple[int, CanaryPlan]]:
    """Return the canaries that are to be checked, each by the version before it and its plan."""
    found = {}
    for service, one in view.items():
        if one.canary is not None and one.canary.running:
            found[service] = one.previous, one.canary.plan
    return found


def _is_new(watched: Mapping[str, Watched], view: RulesView) -> bool:
    return _under_way(view) != {service: (one.base, one.plan) for service, one in watched.items()}


def _advanced(standing: Standing, base: int, sample: Sample | None) -> RulesVersion:
    """Return what a check makes of what stands.

    Raises:
        _OverError: it is another canary, or none. _UnchangedError: it stays as it is.
    """
    now = standing.now
    if now is None or now.canary is None or not now.canary.running or now.previous != base:
        raise _OverError
    rules, state = canaries.checked(now.rules, now.canary, sample)
    if rules == now.rules and (state.phase, state.failed) == (now.canary.phase, now.canary.failed):
        raise _UnchangedError
    return standing.next(rules, _why(state), state)


def _why(state: canaries.CanaryState) -> str:
    what = f"{state.weight:g} %" if state.running else state.phase.value.replace("_", " ")
    return f"canary {state.plan.canary!a}: {what}; {state.last}"
