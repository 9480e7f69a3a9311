"""What a mesh shows to metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from osdisco.mesh._seeing import OTHER, Seeing, word_of
from osdisco.mesh._state import Outcome
from osdisco.mesh.breaker import BreakerState, CircuitBreaker
from osdisco.mesh.events import EndpointEjected, PoolEvent
from osdisco.mesh.refusal import Refused
from osdisco.metrics._catalog import (
    MESH_ATTEMPTS,
    MESH_BREAKERS,
    MESH_BUDGET,
    MESH_EJECTED,
    MESH_EJECTIONS,
    MESH_HEDGES,
    MESH_IN_FLIGHT,
    MESH_PANIC,
    MESH_REFUSED,
    MESH_REQUEST_SECONDS,
    MESH_REQUESTS,
    MESH_RETRIES,
    MESH_SERVED,
    MESH_SERVED_SECONDS,
    MESH_SERVICE_BREAKER,
    MESH_SERVING,
)
from osdisco.metrics._hooks import NONE, Metrics, Sample

if TYPE_CHECKING:
    from osdisco.client import Client
    from osdisco.mesh._calls import Call
    from osdisco.mesh._services import Service
    from osdisco.mesh.mesh import ExtensionServiceMesh

NAMES_MAX: Final = 500
"""Names of services and methods that are told apart, for they may come from whoever calls the caller."""


class CallMetrics:
    """Counts calls for metrics; see `Observer`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._names: set[tuple[str, str]] = set()

    def called(self, call: Call, error: BaseException | None, seconds: float) -> None:
        """Count a call."""
        service, method = self._bounded(call.service, call.method)
        self._metrics.count(MESH_REQUESTS, service, method, word_of(error))
        self._metrics.time(MESH_REQUEST_SECONDS, seconds, service, method)

    def attempted(self, service: str, outcome: Outcome, seconds: float) -> None:
        """Count an attempt."""
        self._metrics.count(MESH_ATTEMPTS, self._known(service), outcome.value)

    def refused(self, service: str, refused: Refused) -> None:
        """Count an attempt that nobody was picked for."""
        self._metrics.count(MESH_REFUSED, self._known(service), refused.reason.name.lower())

    def retried(self, call: Call, result: str) -> None:
        """Count a retry, or the want of it."""
        self._metrics.count(MESH_RETRIES, self._known(call.target), result)

    def hedged(self, call: Call) -> None:
        """Count a second attempt."""
        self._metrics.count(MESH_HEDGES, self._known(call.target))

    def served(self, service: str, method: str, status: int, seconds: float) -> None:
        """Count a request of others."""
        self._metrics.count(MESH_SERVED, service, method, str(status))
        self._metrics.time(MESH_SERVED_SECONDS, seconds, service, method)

    def told(self, event: PoolEvent) -> None:
        """Count an ejection."""
        if isinstance(event, EndpointEjected):
            self._metrics.count(MESH_EJECTIONS, self._known(event.service), event.reason.name.lower())

    def _known(self, service: str) -> str:
        return self._bounded(service, "")[0]

    def _bounded(self, service: str, method: str) -> tuple[str, str]:
        names = service, method
        if names not in self._names:
            if len(self._names) >= NAMES_MAX:
                return OTHER, OTHER
            self._names.add(names)
        return names


def counted(client: Client, mesh: ExtensionServiceMesh, seeing: Seeing) -> Callable[[], None]:
    """Show a mesh to the metrics of its client, if it has any; returns a function that ends it."""
    metrics = client.runtime.metrics
    if metrics is NONE:
        return lambda: None
    seeing.add(CallMetrics(metrics))
    return metrics.follow(partial(gauges, client._keys.root.rstrip("/"), mesh))


def gauges(namespace: str, mesh: ExtensionServiceMesh) -> Iterator[Sample]:
    """Yield how the services stand that are called, and what is served."""
    for name, service in list(mesh.services.items()):
        yield from _called(namespace, name, service, mesh._now())
    serving = Counter({server._definition.name: 0 for server in list(mesh._servers)})
    for server in list(mesh._servers):
        serving[server._definition.name] += server.in_flight
    for name, in_flight in serving.items():
        yield Sample(MESH_SERVING, in_flight, (namespace, name))


def _called(namespace: str, name: str, service: Service, now: float) -> Iterator[Sample]:
    pool, labels = service._pool, (namespace, name)  # as it is: whoever collects may be another thread
    states = list(pool.states.values())
    breakers = breaker_states(service)
    whole = None if service.breaker is None else seen_state(service.breaker)
    for state in BreakerState:
        yield Sample(MESH_BREAKERS, breakers[state], (*labels, state.value))
        if whole is not None:
            yield Sample(MESH_SERVICE_BREAKER, whole is state, (*labels, state.value))
    yield Sample(MESH_EJECTED, ejected(service, now), labels)
    yield Sample(MESH_IN_FLIGHT, sum(one.in_flight for one in states), labels)
    yield Sample(MESH_PANIC, pool.panicking, labels)
    yield Sample(MESH_BUDGET, service.balance.seen(now), labels)


def breaker_states(service: Service) -> Mapping[BreakerState, int]:
    """Return how many breakers of a service's endpoints stand how."""
    states = service._pool.states.values()
    return Counter(seen_state(one.breaker) for one in list(states) if one.breaker is not None)


def seen_state(breaker: CircuitBreaker) -> BreakerState:
    """Return how a breaker stands, also when nobody has asked since: one that was open long enough would be tried."""
    return BreakerState.HALF_OPEN if breaker.state is BreakerState.OPEN and breaker.admits else breaker.state


def ejected(service: Service, now: float) -> int:
    """Return how many endpoints are ejected, also when nobody has called since."""
    ends = [state.ejected_until for state in list(service._pool.states.values())]
    return sum(end is not None and now < end for end in ends)
