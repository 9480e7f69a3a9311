"""Why no endpoint was picked: a reason to decide by, numbers to look at, and words with advice."""

from __future__ import annotations

import enum
from typing import Final

from attrs import frozen


class RefusedReason(enum.Enum):
    """The first step at which nobody was left."""

    NO_ENDPOINTS = "no endpoints"
    NO_MATCH = "no match"
    NOT_SERVING = "not serving"
    UNHEALTHY = "unhealthy"
    CIRCUIT_OPEN = "circuit open"
    OVERLOADED = "overloaded"
    SERVICE_CIRCUIT_OPEN = "service circuit open"


_ADVICE: Final = {
    RefusedReason.NO_ENDPOINTS: "none is registered; start an instance, or look with `osdisco ls` at what there is",
    RefusedReason.NO_MATCH: "none is of the subset {subset}; look at the rules, or at the versions that are registered",
    RefusedReason.NOT_SERVING: "all are starting, stopping or of weight 0; wait for one, or start another",
    RefusedReason.UNHEALTHY: "all that serve are unhealthy or ejected, and the panic threshold is 0; look at them",
    RefusedReason.CIRCUIT_OPEN: "the circuit breakers of all that are fit are open; the first is tried again {again}",
    RefusedReason.OVERLOADED: "all that are fit have `concurrency` calls under way; call less, or start another",
    RefusedReason.SERVICE_CIRCUIT_OPEN: "too many calls of the service failed or were slow; it is tried again {again}",
}


@frozen
class Refused:
    """No endpoint may be called now. Each number counts who is left after one more step.

    Args:
        reason: the step at which nobody was left.
        known: endpoints that are registered.
        matching: that are of the subset.
        serving: that neither start nor stop, and have a weight.
        fit: that are not unhealthy and not ejected, or all in a panic.
        closed: whose circuit breakers let calls through.
        retry_after: seconds until the first breaker lets one through again; None when that is not the reason.
        subset: what the subset is called.
    """

    reason: RefusedReason
    known: int = 0
    matching: int = 0
    serving: int = 0
    fit: int = 0
    closed: int = 0
    retry_after: float | None = None
    subset: str | None = None

    def __str__(self) -> str:
        again = "at once, when a call under way ends" if self.retry_after is None else f"in {self.retry_after:.1f} s"
        advice = _ADVICE[self.reason].format(subset=self.subset, again=again)
        if self.reason is RefusedReason.SERVICE_CIRCUIT_OPEN:
            return advice  # who there is was not what mattered
        counts = f"{self.known} known, {self.matching} matching, {self.serving} serving, {self.fit} fit"
        return f"{advice} ({counts}, {self.closed} with a closed circuit)"
