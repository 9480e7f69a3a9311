"""What a canary does next: pure decisions, with no clock and no I/O.

    PROGRESSING --good--> PROGRESSING with more weight, up to the most; then HOLDING, or PROMOTED
    PROGRESSING, HOLDING --bad or no figures, `threshold` times--> ROLLED_BACK

The whole state stands in the document of the rules, so whoever leads next goes on where the last one was.
"""

from __future__ import annotations

import enum
from typing import Any, Final

from attrs import evolve, frozen

from osdisco.errors import RulesError
from osdisco.mesh import _documents as doc
from osdisco.mesh._documents import refuse
from osdisco.mesh.rules import SECONDS_MAX, ServiceRules, Split


class CanaryPhase(enum.Enum):
    """Where a canary stands. The last two are final."""

    PROGRESSING = "progressing"
    HOLDING = "holding"
    """It has all the weight that it gets, and waits for an operator to promote it."""
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


CALLS_MAX: Final = 2**53
"""Calls above which a float, as JSON may have them, no longer counts one by one: nobody has measured that."""
RATE_MAX: Final = 100.5
"""Per cent. Somewhat more than all is how some reckon it from samples; much more is another unit."""


class Verdict(enum.Enum):
    """What a check comes to: all but the first have failed."""

    GOOD = "good"
    NO_FIGURES = "no_figures"
    TOO_FEW_CALLS = "too_few_calls"
    SUCCESS_RATE = "success_rate"
    LATENCY = "latency"


MOVES: Final = {
    CanaryPhase.PROGRESSING: {CanaryPhase.HOLDING, CanaryPhase.PROMOTED, CanaryPhase.ROLLED_BACK},
    CanaryPhase.HOLDING: {CanaryPhase.PROMOTED, CanaryPhase.ROLLED_BACK},
    CanaryPhase.PROMOTED: set[CanaryPhase](),
    CanaryPhase.ROLLED_BACK: set[CanaryPhase](),
}


@frozen
class Sample:
    """How the calls of some time went.

    Args:
        calls: how many there were.
        success_rate: per cent of them that did not fail.
        p99: seconds within which 99 % were answered; None when that is not known.
    """

    calls: int
    success_rate: float
    p99: float | None = None


@frozen
class CanaryPlan:
    """How the calls of a service are moved from one subset to another. The defaults are Flagger's.

    Args:
        stable: the subset that is there already.
        canary: the subset that is new.
        interval: seconds between checks.
        step: per cent that the canary gets at first, and more at each good check.
        max_weight: per cent at which it is promoted at the next good check.
        success_rate: per cent of its calls that must not fail.
        p99: seconds within which 99 % of its calls must be answered; not looked at when None.
        threshold: failed checks, all in all, that roll it back.
        min_calls: with fewer calls to the canary since the last check, or without figures, a check has failed.
        hold: do not promote it, but wait for an operator to do that.
    """

    stable: str = doc.name()
    canary: str = doc.name()
    interval: float = doc.number(1, SECONDS_MAX, what="seconds", default=60.0)
    step: float = doc.checked(lambda value: _wrong_step(value), default=5.0)
    max_weight: float = doc.checked(lambda value: _wrong_step(value), default=50.0)
    success_rate: float = doc.number(0, 100, default=99.0)
    p99: float | None = doc.number(0, SECONDS_MAX, what="seconds", above=True, optional=True, default=0.5)
    threshold: int = doc.whole(1, 1000, default=5)
    min_calls: int = doc.whole(1, 1_000_000, default=1)
    hold: bool = doc.flag()

    def __attrs_post_init__(self) -> None:
        if self.stable == self.canary:
            raise refuse("canary", f"is {self.canary!a}, which is the stable subset, too")
        if self.step > self.max_weight:
            raise refuse("step", f"is {self.step:g}, which is more than max_weight, {self.max_weight:g}")


def _wrong_step(value: object) -> str | None:
    return doc.wrong_percent(value) or ("is 0; above 0 is allowed" if value == 0 else None)


def _read_phase(value: object, path: str) -> CanaryPhase:
    try:
        return CanaryPhase(value)
    except ValueError:
        raise refuse(path, f"is {value!a}; one of {', '.join(one.value for one in CanaryPhase)} is allowed") from None


@frozen
class CanaryState:
    """Where a canary stands.

    Args:
        weight: per cent of the calls that it gets.
        failed: checks that have failed so far.
        checks: all of them.
        last: what the last one found.
    """

    plan: CanaryPlan = doc.required(CanaryPlan, lenient=True)
    phase: CanaryPhase = doc.checked(lambda _: None, read=_read_phase, default=CanaryPhase.PROGRESSING)
    weight: float = doc.percent(default=0.0)
    failed: int = doc.whole(0, 1_000_000, default=0)
    checks: int = doc.whole(0, 1_000_000_000, default=0)
    last: str = doc.text(default="")

    @property
    def running(self) -> bool:
        """Whether it is still to be checked."""
        return bool(MOVES[self.phase])

    def moved(self, phase: CanaryPhase, **changes: Any) -> CanaryState:
        """Return it in another phase. Raises RulesError for one that it cannot come to."""
        if phase not in MOVES[self.phase]:
            raise RulesError("canary", f"is {self.phase.value}, and cannot become {phase.value}")
        return evolve(self, phase=phase, **changes)


def begun(rules: ServiceRules, plan: CanaryPlan) -> tuple[ServiceRules, CanaryState]:
    """Return the rules and the state with which a canary begins.

    Raises:
        RulesError: a subset is unknown, or calls are split already.
    """
    for field in ("stable", "canary"):
        name = getattr(plan, field)
        if name not in rules.subsets:
            known = ", ".join(map(ascii, rules.subsets)) or "none"
            raise refuse(field, f"is {name!a}, which is no subset of the service; there are {known}")
    if rules.splits:
        raise refuse("splits", "are there already; a canary needs them for itself: set the rules without them first")
    if rules.redirect is not None or rules.default_subset not in (None, plan.stable):
        raise refuse("default_subset", f"is {rules.default_subset!a}; a canary begins where all calls go to its stable")
    return _weighted(rules, plan, plan.step), CanaryState(plan, weight=plan.step)


def _weighted(rules: ServiceRules, plan: CanaryPlan, weight: float) -> ServiceRules:
    splits = Split(round(100 - weight, 2), plan.stable), Split(weight, plan.canary)
    return evolve(rules, splits=splits, default_subset=plan.stable)


def promoted(rules: ServiceRules, state: CanaryState, why: str) -> tuple[ServiceRules, CanaryState]:
    """Return what stands when all calls go to the canary. Raises RulesError when it is over."""
    moved = state.moved(CanaryPhase.PROMOTED, weight=100.0, last=why)
    return evolve(rules, splits=(), default_subset=state.plan.canary), moved


def rolled_back(rules: ServiceRules, state: CanaryState, why: str) -> tuple[ServiceRules, CanaryState]:
    """Return what stands when all calls go to the stable subset. Raises RulesError when it is over."""
    moved = state.moved(CanaryPhase.ROLLED_BACK, weight=0.0, last=why)
    return evolve(rules, splits=(), default_subset=state.plan.stable), moved


def checked(rules: ServiceRules, state: CanaryState, sample: Sample | None) -> tuple[ServiceRules, CanaryState]:
    """Return what one check makes of rules and state; `sample` is of the canary's calls, None when nobody knows."""
    verdict, why = judged(state.plan, sample)
    if verdict is not Verdict.GOOD:
        return _failed(rules, evolve(state, checks=state.checks + 1, failed=state.failed + 1, last=why))
    state = evolve(state, checks=state.checks + 1, last=why)
    if state.phase is CanaryPhase.HOLDING:
        return rules, state
    if state.weight < state.plan.max_weight:
        weight = min(round(state.weight + state.plan.step, 2), state.plan.max_weight)
        return _weighted(rules, state.plan, weight), evolve(state, weight=weight)
    if state.plan.hold:
        return rules, state.moved(CanaryPhase.HOLDING)
    return promoted(rules, state, state.last)


def _failed(rules: ServiceRules, state: CanaryState) -> tuple[ServiceRules, CanaryState]:
    if state.failed < state.plan.threshold:
        return rules, state
    return rolled_back(rules, state, f"{state.failed} checks failed, at last: {state.last}")


def is_sample(value: object) -> bool:
    """Return whether something is figures, or the want of them: who asks for them may have made anything."""
    if value is None:
        return True
    numbers = (value.calls, value.success_rate, value.p99 or 0) if isinstance(value, Sample) else ("none",)
    return all(isinstance(one, int | float) and not isinstance(one, bool) for one in numbers)


def judged(plan: CanaryPlan, sample: Sample | None) -> tuple[Verdict, str]:
    """Return what a check comes to, and why."""
    if sample is None:
        return Verdict.NO_FIGURES, "no figures"
    if not 0 <= sample.calls <= CALLS_MAX or sample.success_rate > RATE_MAX:
        return Verdict.NO_FIGURES, "figures that nobody can have measured"
    if sample.calls < plan.min_calls:
        return Verdict.TOO_FEW_CALLS, f"{sample.calls} calls; {plan.min_calls} are needed"
    if not sample.success_rate >= plan.success_rate:  # what is no number is not good
        why = f"{sample.success_rate:.2f} % of {sample.calls} calls succeeded; {plan.success_rate:g} % are needed"
        return Verdict.SUCCESS_RATE, why
    if plan.p99 is not None and sample.p99 is None:
        return Verdict.NO_FIGURES, "nobody knows how long calls take"
    if plan.p99 is not None and sample.p99 is not None and not 0 <= sample.p99 <= plan.p99:
        why = f"p99 of {sample.calls} calls is {sample.p99 * 1000:.0f} ms; {plan.p99 * 1000:.0f} ms are allowed"
        return Verdict.LATENCY, why
    p99 = "" if sample.p99 is None else f", p99 {sample.p99 * 1000:.0f} ms"
    return Verdict.GOOD, f"good: {sample.success_rate:.2f} % of {sample.calls} calls succeeded{p99}"
