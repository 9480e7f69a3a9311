"""Rules applied to calls: once for each, before its first attempt."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any, Final
from weakref import WeakSet

from attrs import evolve

from osdisco.client import Client
from osdisco.errors import (
    DeadlineExceededError,
    InvalidNameError,
    NoHealthyEndpointsError,
    OverloadedError,
    ServiceMeshError,
    TimedOutError,
)
from osdisco.mesh import balancers
from osdisco.mesh._calls import Call, Caller, outcome_of
from osdisco.mesh._services import Service, Services, Way
from osdisco.mesh._state import Outcome
from osdisco.mesh.balancers import LoadBalancer
from osdisco.mesh.canary_figures import CallSummaries
from osdisco.mesh.deadline import deadline
from osdisco.mesh.faults import inject
from osdisco.mesh.mirroring import Mirroring
from osdisco.mesh.rendezvous import RendezvousLoadBalancer
from osdisco.mesh.retry import NEVER
from osdisco.mesh.route import Route, Target
from osdisco.mesh.tracing import MIRRORED
from osdisco.mesh.traffic_rules import TrafficRules
from osdisco.metrics._catalog import MESH_COPIES, MESH_FAULTS

PATIENCE: Final = 0.5
"""Seconds that a service may take, the first time, that calls only fail over to."""


class Routing:
    """Follows the rules of all services, from the first call on."""

    def __init__(self, client: Client, services: Services, caller: Caller) -> None:
        self._client = client
        self._metrics = client.runtime.metrics
        self._now = client.runtime.clock.now
        self._services = services
        self._caller = caller
        self._rules = TrafficRules(client).view()
        self._summaries = CallSummaries(client, self._rules)
        self._started = self._known = False
        self._mirroring = Mirroring()
        self._balancers: dict[str, LoadBalancer] = {}
        self._awaited: WeakSet[Service] = WeakSet()

    async def call(self, call: Call, *, said_timeout: bool) -> Any:
        """Make a call as the rules say, and count it if a canary is under way.

        Raises:
            ServiceMeshError: as any call, and OverloadedError for a rate limit, RemoteError for a fault on purpose,
                NoHealthyEndpointsError when the rules are not known, or lead to what can be no service.
        """
        if not self._known:
            await self._learn(call)
        if not self._rules:
            return await self._caller.call(call)
        meant = await self._direct(call, said_timeout=said_timeout)
        began, ok = self._now(), None
        try:
            result = await self._caller.call(call)
            ok = call.went is meant  # what others answered in its place does not speak for a canary
            return result
        except ServiceMeshError as exc:
            outcome = outcome_of(exc)
            if outcome is not Outcome.CANCELLED:
                ok = call.went is meant and outcome is Outcome.OK
            raise
        finally:
            subset = None if meant.subset is None else meant.subset.name
            self._summaries.count(meant.service.name, subset, ok=ok, seconds=self._now() - began)

    async def _direct(self, call: Call, *, said_timeout: bool) -> Way:
        """Do with a call what the rules say before it is made; returns the way that they mean it to take."""
        route = self._rules.router.route(call.service, call.method, call.metadata, call.key)
        if route.timeout is not None and not said_timeout:
            call.deadline = min(deadline(), self._now() + route.timeout)  # also more than the mesh gives
        self._limit(route)
        meant = await self._lead(call, route)
        if route.mirror is not None:
            self._mirror(call, route.mirror)
        if route.fault is not None:
            await self._fault(call, route)
        return meant

    async def _learn(self, call: Call) -> None:
        if not self._started:
            self._started = True
            self._rules.start()
            await self._summaries.__aenter__()
        left = min(max(call.deadline - self._now(), 0.0), self._client.options.timeout)
        try:
            await self._rules.until(lambda _: self._rules.known, left)
        except TimedOutError:
            why = self._rules.error or "it has not answered yet"
            raise NoHealthyEndpointsError(
                f"the rules for traffic are not known, for the store was not seen: {why}; "
                "a mesh that is to follow none is made with rules=False"
            ) from None
        self._known = True

    def _limit(self, route: Route) -> None:
        wait = 0.0 if route.limit is None else route.limit.take()
        if wait:
            raise OverloadedError(f"{route.reason} allow no more calls for {wait:.3f} s", retry_after=wait)

    async def _lead(self, call: Call, route: Route) -> Way:
        ways = tuple(way for way in map(self._way, route.targets) if way is not None)
        if not ways:
            raise NoHealthyEndpointsError(f"{route.reason} lead to {route.service!a}, which no service can be called")
        for way in ways:
            if not way.service.known:
                await self._know(way.service, call, needed=way is ways[0])
        call.ways = ways if len(ways) == 1 else tuple(sorted(ways, key=_is_unfit))
        call.balancer = None if route.lb is None else self._balancer(route.lb)
        if route.retry is not None:
            call.attempts = route.retry.attempts
            call.attempt_timeout = route.retry.timeout or call.attempt_timeout
        return ways[0]

    async def _know(self, service: Service, call: Call, *, needed: bool) -> None:
        """Wait until a service is known; for one that is only failed over to once, for a moment, to hold no call up."""
        left = max(call.deadline - self._now(), 0.0)
        if needed:
            await service.wait_known(left)
        elif service.view.known or service not in self._awaited:
            self._awaited.add(service)
            with suppress(NoHealthyEndpointsError):
                await service.wait_known(min(left, PATIENCE))

    def _way(self, target: Target) -> Way | None:
        """Return the way to a target; None when that can be no service, as only who writes past osdisco can set it."""
        try:
            return Way(self._services.open(target.service), target.subset)
        except InvalidNameError:
            return None

    def _balancer(self, policy: str) -> LoadBalancer:
        found = self._balancers.get(policy)
        if found is None:
            found = self._balancers[policy] = _POLICIES[policy](runtime=self._client.runtime)
        return found

    def _mirror(self, call: Call, target: Target) -> None:
        way = self._way(target)
        if way is not None:
            headers = {**call.headers, MIRRORED: "1"}
            copy = evolve(call, ways=(way,), policy=NEVER, attempts=1, headers=headers, kind=None, is_copy=True)
            told = partial(self._metrics.count, MESH_COPIES, call.service)
            self._mirroring.offer(lambda: self._caller.call(copy), size=len(copy.body), told=told)

    async def _fault(self, call: Call, route: Route) -> None:
        assert route.fault is not None
        self._metrics.count(MESH_FAULTS, call.service)
        if self._now() + route.fault.delay >= call.deadline:
            raise DeadlineExceededError("a rule lets it be later than its time allows")
        await inject(route.fault, service=call.service, method=call.method)

    async def aclose(self) -> None:
        """Follow them no more."""
        await self._mirroring.aclose()
        if self._started:
            await self._summaries.__aexit__(None, None, None)
            await self._rules.aclose()


def _is_unfit(way: Way) -> bool:
    """Return whether only a panic would pick somebody there: while others are fit, calls fail over to them first."""
    choice = way.service.pool._choice(way.subset)
    return bool(choice.tiers) and choice.panic and not choice.fit


_POLICIES: Final = {
    "least_request": balancers.LeastRequestLoadBalancer,
    "peak_ewma": balancers.PeakEwmaLoadBalancer,
    "random": balancers.RandomLoadBalancer,
    "rendezvous": RendezvousLoadBalancer,
    "round_robin": balancers.RoundRobinLoadBalancer,
    "weighted_round_robin": balancers.WeightedRoundRobinLoadBalancer,
}
