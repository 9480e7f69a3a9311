"""Calling what is beside the data: endpoints on the host of a node of the search cluster, or in its zone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Self

from osdisco.discovery._nearness import hosts_of
from osdisco.errors import ConfigError
from osdisco.mesh._settings import checked
from osdisco.mesh._state import Candidates, EndpointState
from osdisco.mesh.balancers import LeastRequestLoadBalancer, LoadBalancer, StateBalancer
from osdisco.registry.definition import ServiceEndpoint
from osdisco.runtime import Runtime

if TYPE_CHECKING:
    from osdisco.cluster import NodeInfo

NODES_MAX: Final = 256
"""Places for which a balancer is remembered; with more, all are made anew."""


class NearestLoadBalancer(StateBalancer):
    """Picks on the same host as a node of the search cluster; without such an endpoint in its zone, else anywhere.

    In a panic it picks anywhere: those that are near may all be ill. A host is the same when it is written the same, as
    with `DiscoveryService.nearest`.

    Args:
        hosts: names and addresses of the node, in small letters.
        zone: where it is, if that is known.
        inner: who picks among those that are as near. Least request by default.

    Raises:
        ConfigError: hosts that are no set of texts, a zone that is none, or an inner that is no load balancer.
    """

    def __init__(
        self,
        hosts: frozenset[str],
        zone: str | None = None,
        inner: LoadBalancer | None = None,
        *,
        runtime: Runtime | None = None,
    ) -> None:
        runtime = Runtime() if runtime is None else runtime
        super().__init__(runtime)
        if not isinstance(hosts, frozenset) or not all(isinstance(host, str) for host in hosts):
            raise ConfigError(f"hosts is a frozenset of names and addresses, not {hosts!a}")
        checked("zone", zone, str, "text")
        checked("inner", inner, LoadBalancer)
        self.hosts: Final = hosts
        self.zone: Final = zone
        self.inner: Final = LeastRequestLoadBalancer(runtime) if inner is None else inner
        self._own = self.inner.fresh(runtime)

    @classmethod
    def to(cls, node: NodeInfo, inner: LoadBalancer | None = None, *, runtime: Runtime | None = None) -> Self:
        """Return one for a node as `ClusterState.nodes` has it."""
        return cls(frozenset(hosts_of(node)), node.zone, inner, runtime=runtime)

    def __repr__(self) -> str:
        return f"NearestLoadBalancer({sorted(self.hosts)!r}, {self.zone!r}, {self.inner!r})"

    def _settings(self) -> dict[str, Any]:
        return {"hosts": self.hosts, "zone": self.zone, "inner": self.inner}

    def pick(self, states: Sequence[EndpointState], key: str | None = None) -> EndpointState:
        """Return one of those that are nearest."""
        candidates = Candidates.of(states)
        near = candidates.parts.get(self)
        if not isinstance(near, Candidates):
            near = candidates.parts[self] = self._nearest(candidates)
        return self._own.pick(near, key)

    def _nearest(self, candidates: Candidates) -> Candidates:
        if candidates.panic:
            return candidates
        by_host = [state for state in candidates if _host(state.endpoint) in self.hosts]
        if by_host:
            return Candidates(by_host)
        in_zone = [state for state in candidates if self.zone is not None and state.endpoint.zone == self.zone]
        return Candidates(in_zone) if in_zone else candidates


def _host(endpoint: ServiceEndpoint) -> str:
    return endpoint.address.rpartition(":")[0].strip("[]").lower()


class Near:
    """The balancers of one mesh for calls that go near a node."""

    def __init__(self, runtime: Runtime, inner: LoadBalancer | None) -> None:
        self._runtime = runtime
        self._inner = inner
        self._balancers: dict[NodeInfo, NearestLoadBalancer] = {}

    def balancer(self, node: NodeInfo) -> NearestLoadBalancer:
        """Return that of a node; the same one as long as the node is as it was."""
        found = self._balancers.get(node)
        if found is None:
            if len(self._balancers) >= NODES_MAX:
                self._balancers.clear()
            found = self._balancers[node] = NearestLoadBalancer.to(node, self._inner, runtime=self._runtime)
        return found
