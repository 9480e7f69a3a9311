"""What rules make of one call: where it goes, and how it is treated on the way. Made by `Router`, read by the mesh."""

from __future__ import annotations

from attrs import field, frozen

from osdisco.discovery._filter import Filter
from osdisco.discovery.extension import ExtensionStatus
from osdisco.mesh.rate_limits import TokenBucket
from osdisco.mesh.rules import FaultRule, RetryRule, SubsetRule
from osdisco.registry.definition import ServiceEndpoint


@frozen(cache_hash=True)
class Subset:
    """Some of a service's endpoints: call it with one. Two that ask for the same are equal, and can be keys.

    Args:
        name: as in the rules.
        known: whether the rules of the service have it; no endpoint is in one that they do not have.
    """

    name: str
    version: str | None = None
    zone: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    only_passing: bool = False
    known: bool = True
    _meant: Filter = field(init=False, eq=False, repr=False)

    @_meant.default
    def _filter(self) -> Filter:
        return Filter.of_endpoints(version=self.version, zone=self.zone, metadata=dict(self.metadata))

    @classmethod
    def of(cls, name: str, rule: SubsetRule | None, zone: str | None = None) -> Subset:
        """Return the subset of a rule, in a zone if one is given; without a rule none that anybody knows."""
        if rule is None:
            return cls(name, zone=zone, known=False)
        metadata = tuple(sorted(rule.metadata.items()))
        return cls(name, rule.version, zone or rule.zone, metadata, rule.only_passing)

    def __call__(self, endpoint: ServiceEndpoint) -> bool:
        """Whether an endpoint belongs to it."""
        if self.only_passing and endpoint.status is not ExtensionStatus.HEALTHY:
            return False
        return self.known and self._meant(endpoint)


@frozen
class Target:
    """Endpoints of a service that a call may go to: all of them when `subset` is None."""

    service: str
    subset: Subset | None = None

    def __str__(self) -> str:
        return self.service if self.subset is None else f"{self.service}/{self.subset.name}"


@frozen
class Route:
    """Where one call goes.

    Args:
        service: whose endpoints it is for.
        subset: which of them; all when None.
        reason: which of the rules said so.
        failover: where it goes instead, in order, when there is no endpoint there that takes it.
        mirror: where a copy of it goes, if one does.
        fault: what is to go wrong with it on purpose.
        limit: what it must take a token of.
        lb: the name of the policy by which its endpoint is picked.
        timeout: seconds it may take when the caller says nothing.
    """

    service: str
    subset: Subset | None = None
    reason: str = ""
    failover: tuple[Target, ...] = ()
    mirror: Target | None = None
    fault: FaultRule | None = None
    limit: TokenBucket | None = None
    lb: str | None = None
    retry: RetryRule | None = None
    timeout: float | None = None

    @property
    def targets(self) -> tuple[Target, ...]:
        """Where it may go, in order."""
        return (Target(self.service, self.subset), *self.failover)
