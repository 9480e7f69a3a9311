"""What a canary controller shows to metrics: of the canaries that it controls, and only while it leads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite

from attrs import define

from osdisco.mesh import _canary as canaries
from osdisco.mesh._canary import CanaryPhase, CanaryPlan
from osdisco.mesh._rules_record import RulesVersion
from osdisco.metrics._catalog import (
    CANARY_CALLS,
    CANARY_FAILED,
    CANARY_LEADING,
    CANARY_P99,
    CANARY_PHASE,
    CANARY_SUCCESS,
    CANARY_WEIGHT,
)
from osdisco.metrics._hooks import Sample


@define(eq=False)
class Watched:
    """A canary under way. `base` is the version before it, which no other canary of the service has.

    `marked` is whether its figures were begun with: before that they may be those of another canary, or another leader.
    `sample` is what the last check saw.
    """

    base: int
    plan: CanaryPlan
    due: float
    marked: bool
    sample: canaries.Sample | None = None

    def is_of(self, version: RulesVersion | None) -> bool:
        """Return whether rules belong to it, also when they are where it ended."""
        return (
            version is not None
            and version.canary is not None
            and (version.previous, version.canary.plan) == (self.base, self.plan)
        )


def gauges(
    namespace: str, leading: bool, watched: Mapping[str, Watched], rules: Mapping[str, RulesVersion]
) -> Iterator[Sample]:
    """Yield how the canaries stand. Whoever collects may be another thread."""
    yield Sample(CANARY_LEADING, leading, (namespace,))
    for service, one in list(watched.items()) if leading else ():
        version = rules.get(service)
        if version is not None and version.canary is not None and version.canary.running and one.is_of(version):
            yield from _of(version.canary, one.sample, (namespace, service))


def _of(state: canaries.CanaryState, sample: canaries.Sample | None, labels: tuple[str, str]) -> Iterator[Sample]:
    for phase in (CanaryPhase.PROGRESSING, CanaryPhase.HOLDING):
        yield Sample(CANARY_PHASE, state.phase is phase, (*labels, phase.value))
    yield Sample(CANARY_WEIGHT, state.weight / 100, labels)
    yield Sample(CANARY_FAILED, state.failed, labels)
    if sample is None:
        return
    yield Sample(CANARY_CALLS, sample.calls, labels)
    if sample.calls and isfinite(sample.success_rate):
        yield Sample(CANARY_SUCCESS, sample.success_rate / 100, labels)
    if sample.p99 is not None:
        yield Sample(CANARY_P99, sample.p99, labels)


def end_of(version: RulesVersion | None, one: Watched) -> str:
    """Return how a canary ended, in a word, by the rules that stand now."""
    if version is None or version.canary is None or not one.is_of(version):
        return "replaced"
    return version.canary.phase.value
