"""What this process knows of one endpoint, and those of whom one is picked.

Only the pool of a service changes a state; balancers read it.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import accumulate
from math import exp, isfinite
from typing import Final, Self

from osdisco.discovery.extension import ExtensionStatus
from osdisco.errors import ConfigError, NoHealthyEndpointsError
from osdisco.mesh.breaker import CircuitBreaker
from osdisco.mesh.refusal import Refused, RefusedReason
from osdisco.registry.definition import ServiceEndpoint

DECAY: Final = 10.0
"""Seconds after which what was measured counts for a third, as Finagle's `decayTime` and Envoy's of peak EWMA."""

PENALTY: Final = 2.0**47 / 1e9
"""Seconds that who never answered costs with a call under way: Finagle's `Long.MaxValue >> 16` ns."""


class Outcome(enum.Enum):
    """How one attempt ended, as far as the endpoint is to be judged by it."""

    OK = "ok"
    """It answered; an error that is the caller's fault is an answer, too."""
    FAILED = "failed"
    TIMEOUT = "timeout"
    UNSENT = "unsent"
    """No connection: nothing was sent."""
    REJECTED = "rejected"
    """It said that it is overloaded. Only who says so more often than the others is held to fare worse."""
    CANCELLED = "cancelled"
    """Nobody waits for it any more. Neither for nor against it."""


VERDICTS: Final = {Outcome.OK: False, Outcome.FAILED: True, Outcome.TIMEOUT: True, Outcome.UNSENT: True}
"""Whether an outcome counts as a failure; of those that are not here nothing is concluded."""


class Tier(enum.IntEnum):
    """When an endpoint is picked, by what the registry says of it: those of the lowest come first."""

    HEALTHY = 0
    DEGRADED = 1
    PANIC = 2
    """It is unhealthy: only when too many are."""
    NEVER = 3
    """It is starting or stopping, or has no weight."""


_TIERS: Final = {
    ExtensionStatus.HEALTHY: Tier.HEALTHY,
    ExtensionStatus.DEGRADED: Tier.DEGRADED,
    ExtensionStatus.UNHEALTHY: Tier.PANIC,
}


class EndpointState:
    """One endpoint as this process sees it.

    Attributes:
        endpoint, id: as the registry shows it.
        incarnation: which process it is; None when that is not known.
        tier: when it is picked, by its status and weight.
        weight: its share of the calls against that of others, less than it was registered with while it starts slowly.
        in_flight: calls under way.
        load: what they count for in the choice of the less loaded: so many, unless it is slow.
        mean: seconds that its answers take.
        slowness: how many times as long as usual that is, 1 unless it is much longer; see `slowness`.
        since: when it became healthy, or was first seen so, in seconds of the clock.
        breaker: its circuit breaker; None outside of a pool.
        ejected_until: when it may be picked again; None unless it is ejected.
        ejections: by how many times `base_ejection` its next ejection grows; falls while all is well.
        consecutive: failures since its last success.
        calls, failures, rejections: in the running interval of the outlier detection.
        returned_at: when its last ejection ended.
        outcomes: how many attempts ended how.
    """

    __slots__ = (
        "__weakref__", "_at", "_heard", "_seed", "breaker", "calls", "consecutive", "ejected_until", "ejections",
        "endpoint", "ewma", "failures", "id", "in_flight", "incarnation", "load", "mean", "outcomes", "rejections",
        "returned_at", "since", "slowness", "tier", "weight",
    )  # fmt: skip

    def __init__(self, endpoint: ServiceEndpoint, now: float = 0.0, breaker: CircuitBreaker | None = None) -> None:
        self.id: Final = endpoint.extension_id
        self.show(endpoint)
        self.in_flight = 0
        self.load: float = 0
        self.mean = 0.0
        self.slowness = 1.0
        self._heard = now
        self.ewma = 0.0
        """Seconds that an answer takes, sensitive to peaks, as it was when it last answered."""
        self.since = now
        self.breaker = breaker
        self.incarnation: int | None = None
        self.ejected_until: float | None = None
        self.ejections = 0
        self.consecutive = 0
        self.calls = 0
        self.failures = 0
        self.rejections = 0
        self.returned_at: float | None = None
        self.outcomes: Counter[Outcome] = Counter()
        self._at = now
        self._seed: int | None = None

    def show(self, endpoint: ServiceEndpoint) -> None:
        """Take what the registry shows of it now."""
        self.endpoint = endpoint
        self.weight = float(endpoint.weight)
        self.tier = _TIERS.get(endpoint.status, Tier.NEVER) if endpoint.weight > 0 else Tier.NEVER

    def _is_another(self, new: ServiceEndpoint, incarnation: int | None) -> bool:
        """Whether it is another process under the same id: known to be one, at another address, or started anew."""
        old, leaving, starting = self.endpoint, ExtensionStatus.STOPPING, ExtensionStatus.STARTING
        if None not in (self.incarnation, incarnation) and self.incarnation != incarnation:
            return True
        if old.address != new.address:
            return True
        return (old.status is leaving and new.status is not leaving) or (
            new.status is starting and old.status is not starting
        )

    def __repr__(self) -> str:
        ejected = ", ejected" if self.ejected_until is not None else ""
        breaker = f", {self.breaker.state.value}" if self.breaker is not None else ""
        return f"<EndpointState of {self.id!a}: {self.in_flight} in flight{breaker}{ejected}>"

    def _weigh(self) -> None:
        """Reckon the load anew. Who is slow has one with nothing under way, too, as the next call would wait there."""
        slowness = self.slowness
        self.load = self.in_flight if slowness == 1 else (self.in_flight + 1) * slowness - 1

    @property
    def seed(self) -> int:
        """64 bits that are the same for this id in every process."""
        if self._seed is None:
            self._seed = seed_of(self.id)
        return self._seed

    def cost(self, now: float) -> float:
        """Return what one more call would cost, in seconds: peak EWMA times calls under way.

        What was measured decays while nothing is, so that who was slow is tried again. Who never answered costs nothing
        until it has one call under way, and then more than all others (Finagle's `PeakEwma.Metric.get`).
        """
        decayed = self.ewma * exp((self._at - now) / DECAY)
        if not decayed and self.in_flight:
            return PENALTY + self.in_flight
        return decayed * (self.in_flight + 1)

    def observe(self, seconds: float, now: float, *, whole: bool) -> None:
        """Learn how long a call took. What failed or was given up (not `whole`) took at least that long, so that an
        endpoint that fails at once does not look fast.

        A rise is taken over at once, a fall with the weight of the time since the last answer
        (Finagle's `PeakEwma.Metric.observe`).
        """
        if seconds > self.ewma:
            self.ewma, self._at = seconds, now
        elif whole:
            kept = exp((self._at - now) / DECAY)
            self.ewma, self._at = self.ewma * kept + seconds * (1 - kept), now


def seed_of(text: str) -> int:
    """Return 64 bits that are the same for a text in every process."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


class Candidates(tuple[EndpointState, ...]):
    """Those of whom one is picked. Made when something changes, so that a pick need not look at each of them.

    Attributes:
        members: those of whom these are what is fit.
        panic: whether there is a panic, so that some of these may be ill, and where they are does not count.
        bounds: sums of the weights up to each but the last; None when all weights are the same.
        total: sum of all weights.
        parts: what balancers derived from it.

    Raises:
        NoHealthyEndpointsError: there is none.
        ConfigError: a weight that is not above 0.
    """

    members: tuple[EndpointState, ...]
    panic: bool
    bounds: list[float] | None
    total: float
    parts: dict[object, object]

    def __new__(
        cls, states: Iterable[EndpointState], members: tuple[EndpointState, ...] | None = None, *, panic: bool = False
    ) -> Self:
        self = super().__new__(cls, states)
        if not self:
            raise NoHealthyEndpointsError(Refused(RefusedReason.NO_ENDPOINTS))
        self.members = self if members is None else members
        self.panic = panic
        self.total, self.bounds = _weighed(self)
        self.parts = {}
        return self

    @classmethod
    def of(cls, states: Sequence[EndpointState]) -> Candidates:
        """Return states as candidates; what are candidates stays the same."""
        return states if type(states) is cls else cls(states)


def _weighed(states: Sequence[EndpointState]) -> tuple[float, list[float] | None]:
    weights = [state.weight for state in states]
    *bounds, total = accumulate(weights)
    if not (min(weights) > 0 and isfinite(total)):
        wrong = next(state for state in states if not (state.weight > 0 and isfinite(state.weight)))
        raise ConfigError(f"the weight of {wrong.id!a} is {wrong.weight:g}; what is picked from has weights above 0")
    return total, None if weights.count(weights[0]) == len(weights) else bounds
