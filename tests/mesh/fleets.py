"""Endpoints, time that stands until a test moves it, and pools: what tests of the mesh's decisions use."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from attrs import frozen

from osdisco.discovery import ExtensionStatus
from osdisco.mesh import (
    BreakerSettings,
    CircuitBreakerRegistry,
    EndpointState,
    LoadBalancer,
    Outcome,
    Pool,
    PoolSettings,
    Refused,
)
from osdisco.registry import ServiceEndpoint
from osdisco.runtime import Runtime

HEALTHY, DEGRADED, UNHEALTHY = ExtensionStatus.HEALTHY, ExtensionStatus.DEGRADED, ExtensionStatus.UNHEALTHY
STARTING, STOPPING = ExtensionStatus.STARTING, ExtensionStatus.STOPPING


class Time:
    """A clock that a test moves."""

    def __init__(self, at: float = 1000.0) -> None:
        self.at = at

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return self.at


def runtime(seed: int = 1, time: Time | None = None) -> Runtime:
    return Runtime(clock=time or Time(), random=random.Random(seed), name=f"client-{seed}")


def endpoint(number: int, **changes: Any) -> ServiceEndpoint:
    address = f"10.0.{number // 250}.{number % 250 + 1}:9700"
    given = {"extension_id": f"e{number}", "address": address, "status": HEALTHY, **changes}
    return ServiceEndpoint(**given)


def states(weights: Iterable[int] = (100, 100, 100), **changes: Any) -> list[EndpointState]:
    """One of each weight."""
    return [EndpointState(endpoint(number, weight=weight, **changes)) for number, weight in enumerate(weights)]


def picks(balancer: LoadBalancer, among: Sequence[EndpointState], times: int, key: str | None = None) -> Counter[str]:
    """How often each is picked while nothing is under way."""
    return Counter(balancer.pick(among, key).id for _ in range(times))


@frozen
class Named:
    """A subset by version."""

    name: str

    def __call__(self, given: ServiceEndpoint) -> bool:
        return given.version == self.name


class Fleet:
    """A pool in its own time, and who there is."""

    def __init__(
        self,
        size: int = 0,
        settings: PoolSettings | None = None,
        seed: int = 1,
        balancer: LoadBalancer | None = None,
        breakers: BreakerSettings | None = None,
    ) -> None:
        self.time = Time()
        registry = CircuitBreakerRegistry(breakers, clock=self.time)
        self.pool = Pool("geo", runtime(seed, self.time), settings, balancer=balancer, breakers=registry)
        self.endpoints: dict[str, ServiceEndpoint] = {}
        self.set(*(endpoint(number) for number in range(size)))

    def set(self, *changed: ServiceEndpoint) -> None:
        self.endpoints |= {one.extension_id: one for one in changed}
        self.pool.update(self.endpoints.values())

    def remove(self, *ids: str) -> None:
        for id_ in ids:
            del self.endpoints[id_]
        self.pool.update(self.endpoints.values())

    def state(self, number: int) -> EndpointState:
        return self.pool.states[f"e{number}"]

    def pick(self, **options: Any) -> EndpointState:
        """Pick, where somebody is to be picked."""
        picked = self.pool.pick(**options)
        assert not isinstance(picked, Refused), picked
        return picked

    def refused(self, **options: Any) -> Refused:
        refused = self.pool.pick(**options)
        assert isinstance(refused, Refused), refused
        return refused

    def picked(self, times: int = 200, **options: Any) -> set[str]:
        """Who is picked, without being called."""
        return {self.pick(**options).id for _ in range(times)}

    def call(self, number: int, outcome: Outcome, seconds: float = 0.0, times: int = 1) -> None:
        for _ in range(times):
            state = self.state(number)
            self.pool.begin(state)
            self.time.at += seconds
            self.pool.end(state, outcome, seconds)
