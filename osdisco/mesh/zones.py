"""Staying in the zone: calls to what is near are faster and cheaper, as long as enough of it is well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from osdisco.errors import ConfigError
from osdisco.mesh._settings import checked, is_factor
from osdisco.mesh._state import Candidates, EndpointState
from osdisco.mesh.balancers import LeastRequestLoadBalancer, LoadBalancer, StateBalancer
from osdisco.runtime import Runtime

OVERPROVISIONING: Final = 1.4
"""Envoy's `overprovisioning_factor`: endpoints bear 1.4 times their usual calls, so all stay while 71 % are fit."""


class ZoneAwareLoadBalancer(StateBalancer):
    """Picks in the own zone while 1 / `overprovisioning` of its endpoints are fit; then the rest goes to the others.

    With a share `h` of fit ones, `min(1, h * overprovisioning)` of the calls stay, as with Envoy's locality weights.
    Without fit endpoints of that zone all calls go elsewhere. In a panic zones do not count, as with Envoy: else calls
    stayed with those near, who may all be dead, because elsewhere one more was ill. Envoy turns this on by itself, and
    so needs 6 endpoints for it; here it is asked for, and works with one.

    Args:
        zone: where this process runs.
        inner: who picks among those in the zone, and among those outside. Least request by default.
        overprovisioning: 1 or more.

    Raises:
        ConfigError: no zone, an overprovisioning below 1, or an inner that is no load balancer.
    """

    def __init__(
        self,
        zone: str,
        inner: LoadBalancer | None = None,
        *,
        overprovisioning: float = OVERPROVISIONING,
        runtime: Runtime | None = None,
    ) -> None:
        runtime = Runtime() if runtime is None else runtime
        super().__init__(runtime)
        if not isinstance(zone, str) or not zone:
            raise ConfigError(f"zone is the name of the zone where this process runs, not {zone!a}")
        checked("inner", inner, LoadBalancer)
        if not is_factor(overprovisioning):
            raise ConfigError(f"overprovisioning is 1 or more, not {overprovisioning!a}")
        self.zone: Final = zone
        self.inner: Final = LeastRequestLoadBalancer(runtime) if inner is None else inner
        self.overprovisioning: Final = overprovisioning
        self._near, self._far = self.inner.fresh(runtime), self.inner.fresh(runtime)

    def __repr__(self) -> str:
        return f"ZoneAwareLoadBalancer({self.zone!r}, {self.inner!r})"

    def _settings(self) -> dict[str, Any]:
        return {"zone": self.zone, "inner": self.inner, "overprovisioning": self.overprovisioning}

    def pick(self, states: Sequence[EndpointState], key: str | None = None) -> EndpointState:
        """Return one that is near, or one of the others for the share that is too much there."""
        candidates = Candidates.of(states)
        parts = candidates.parts.get(self)
        if not isinstance(parts, _Parts):
            parts = candidates.parts[self] = _Parts(candidates, self.zone, self.overprovisioning)
        if parts.near is not None and (parts.far is None or parts.stay >= 1 or self._random() < parts.stay):
            return self._near.pick(parts.near, key)
        assert parts.far is not None, "candidates are near or far"
        return self._far.pick(parts.far, key)


class _Parts:
    """Candidates of which some are near."""

    def __init__(self, candidates: Candidates, zone: str, overprovisioning: float) -> None:
        near = [state for state in candidates if state.endpoint.zone == zone and not candidates.panic]
        far = [state for state in candidates if state.endpoint.zone != zone] if near else candidates
        all_near = sum(state.endpoint.zone == zone for state in candidates.members)
        self.near = Candidates(near) if near else None
        self.far = Candidates(far) if far else None
        self.stay = overprovisioning * len(near) / max(1, all_near, len(near))
