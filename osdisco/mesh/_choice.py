"""Who may be picked: decided when something changes, so that a pick only asks the policy.

The order is: subset, who serves, health and ejection, panic, circuit breakers; then the healthy come before the
degraded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol

from attrs import evolve, frozen

from osdisco.mesh._state import Candidates, EndpointState, Tier
from osdisco.mesh.breaker import BreakerState
from osdisco.mesh.refusal import Refused, RefusedReason
from osdisco.registry.definition import ServiceEndpoint

_BY_HEALTH: Final = (Tier.HEALTHY, Tier.DEGRADED)


class EndpointSubset(Protocol):
    """Some of a service's endpoints. Two that mean the same are equal, and have one hash."""

    @property
    def name(self) -> str:
        """What it is called, for people."""

    def __call__(self, endpoint: ServiceEndpoint) -> bool:
        """Return whether an endpoint belongs to it."""


@frozen
class Choice:
    """Who may be picked until something changes.

    Args:
        tiers: those of the first are picked while it has any; none of them is empty.
        panic: whether too few are fit, so that neither health nor ejection counts.
        counts: who was left after each step.
        retry_at: when the first circuit may close, if all are open, in seconds of the clock.
        fit: how many are neither unhealthy nor ejected, also in a panic.
    """

    tiers: tuple[Candidates, ...]
    panic: bool
    counts: Refused
    retry_at: float | None
    fit: int

    def refused(self, now: float) -> Refused:
        """Return why nobody is picked now."""
        if self.retry_at is None:
            return self.counts
        return evolve(self.counts, retry_after=max(0.0, self.retry_at - now))


def choose(
    states: Collection[EndpointState],
    subset: EndpointSubset | None,
    threshold: float,
    narrow: Callable[[Sequence[EndpointState], int], Sequence[EndpointState]],
) -> Choice:
    """Decide who may be picked.

    Args:
        threshold: of those who serve this share must be fit; below it is a panic (Envoy's `healthy_panic_threshold`:
            so many cannot be ill, and if they are, the few others would not bear the calls of all).
        narrow: takes some of a tier, if so many serve that it is too large.
    """
    matching = states if subset is None else [state for state in states if subset(state.endpoint)]
    members = tuple([state for state in matching if state.tier is not Tier.NEVER])
    fit: Sequence[EndpointState] = [one for one in members if one.tier < Tier.PANIC and one.ejected_until is None]
    panic = bool(members) and len(fit) / len(members) < threshold  # divided: 0.55 * 100 is more than 55
    tiers = [members] if panic else [[state for state in fit if state.tier is tier] for tier in _BY_HEALTH]
    passing = [_let_through(tier) for tier in tiers]
    considered = members if panic else fit
    counts = len(states), len(matching), len(members), len(considered), sum(map(len, passing))
    refused = Refused(_reason(*counts), *counts, subset=None if subset is None else subset.name)
    retry_at = _retry_at(considered) if refused.reason is RefusedReason.CIRCUIT_OPEN else None
    return Choice(_candidates(passing, members, narrow, panic=panic), panic, refused, retry_at, len(fit))


def _candidates(
    tiers: Sequence[Sequence[EndpointState]],
    members: tuple[EndpointState, ...],
    narrow: Callable[[Sequence[EndpointState], int], Sequence[EndpointState]],
    *,
    panic: bool,
) -> tuple[Candidates, ...]:
    """Return those of each tier that are picked from, beside those of all members that would be if all were fit."""
    serving = len(members)
    tiers = [tier for tier in tiers if tier]
    left = [narrow(tier, serving) for tier in tiers]
    whole = len(tiers) == 1 and len(tiers[0]) == serving  # as mostly; to narrow very many twice would take its time
    some = tuple(left[0] if whole else narrow(members, serving))
    return tuple([Candidates(tier, some, panic=panic) for tier in left])


def _let_through(states: Sequence[EndpointState]) -> list[EndpointState]:
    """Return whom the breakers let be called: also in a panic, for they go by what this process saw itself."""
    closed = BreakerState.CLOSED
    return [one for one in states if one.breaker is None or one.breaker.state is closed or one.breaker.admits]


def _reason(known: int, matching: int, serving: int, fit: int, closed: int) -> RefusedReason:
    """Return why nobody is left; OVERLOADED when somebody is, for that is found out later."""
    steps = (
        (known, RefusedReason.NO_ENDPOINTS),
        (matching, RefusedReason.NO_MATCH),
        (serving, RefusedReason.NOT_SERVING),
        (fit, RefusedReason.UNHEALTHY),
        (closed, RefusedReason.CIRCUIT_OPEN),
    )
    return next((reason for left, reason in steps if not left), RefusedReason.OVERLOADED)


def _retry_at(states: Sequence[EndpointState]) -> float | None:
    times = [state.breaker.retry_at for state in states if state.breaker is not None]
    return min((at for at in times if at is not None), default=None)
