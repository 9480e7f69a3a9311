"""What a canary does next, as a state machine: steps up, holds, is promoted or rolled back, and never comes back."""

from __future__ import annotations

from math import inf, nan

import pytest
from attrs import evolve
from hypothesis import given, strategies as st
from traffic import BAD, GOOD, rules

from osdisco.errors import RulesError
from osdisco.mesh import CanaryPhase, CanaryPlan, CanaryState, Sample, ServiceRules
from osdisco.mesh._canary import Verdict, begun, checked, judged, promoted, rolled_back
from osdisco.mesh._documents import plain, structure

PLAN = CanaryPlan("v1", "v2")

BAD_PLANS = [
    ({"canary": "v1"}, "canary", "the stable subset, too"),
    ({"interval": 0.5}, "interval", "from 1 to 3600 seconds"),
    ({"step": 0}, "step", "above 0"),
    ({"step": 0.001}, "step", "steps of 0.01"),
    ({"max_weight": 101}, "max_weight", "from 0 to 100"),
    ({"step": 60}, "step", "more than max_weight"),
    ({"success_rate": 101}, "success_rate", "from 0 to 100"),
    ({"p99": 0}, "p99", "above 0"),
    ({"threshold": 0}, "threshold", "from 1"),
    ({"min_calls": -1}, "min_calls", "from 1"),
    ({"hold": 1}, "hold", "true or false"),
    ({"stable": ""}, "stable", "is no name"),
]


@pytest.mark.parametrize(("changes", "field", "said"), BAD_PLANS, ids=[f"{c}" for c, _, _ in BAD_PLANS])
def test_a_plan_that_cannot_be_is_refused(changes: dict[str, object], field: str, said: str) -> None:
    with pytest.raises(RulesError) as told:
        evolve(PLAN, **changes)
    assert told.value.field == field
    assert said in told.value.message


def run(state: CanaryState, there: ServiceRules, *samples: Sample | None) -> tuple[ServiceRules, CanaryState]:
    for sample in samples:
        there, state = checked(there, state, sample)
    return there, state


def test_good_checks_step_up_to_the_most_and_then_promote() -> None:
    there, state = begun(rules(), PLAN)
    weights = [state.weight]
    while state.running:
        there, state = checked(there, state, GOOD)
        weights.append(state.weight)
    assert weights == [5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 100]
    assert state.phase is CanaryPhase.PROMOTED
    assert (there.default_subset, there.splits) == ("v2", ())


def test_five_failed_checks_all_in_all_roll_back_and_one_in_between_only_waits() -> None:
    there, state = run(*reversed(begun(rules(), PLAN)), BAD, GOOD, BAD, None, GOOD, BAD)
    assert (state.phase, state.failed, state.weight) == (CanaryPhase.PROGRESSING, 4, 15)
    there, state = checked(there, state, BAD)
    assert state.phase is CanaryPhase.ROLLED_BACK
    assert there == rules()
    assert state.last == "5 checks failed, at last: 90.00 % of 1000 calls succeeded; 99 % are needed"


def test_one_that_holds_is_not_promoted_by_itself_but_still_rolled_back() -> None:
    there, state = run(*reversed(begun(rules(), evolve(PLAN, step=50, hold=True))), GOOD, GOOD, GOOD)
    assert (state.phase, state.weight) == (CanaryPhase.HOLDING, 50)
    _, up = promoted(there, state, "by hand")
    assert up.phase is CanaryPhase.PROMOTED
    _, down = run(state, there, *[BAD] * 5)
    assert down.phase is CanaryPhase.ROLLED_BACK


def test_what_is_over_does_not_move_any_more() -> None:
    there, state = begun(rules(), PLAN)
    over = promoted(there, state, "x"), rolled_back(there, state, "x")
    for its_rules, its_state in over:
        for move in (promoted, rolled_back):
            with pytest.raises(RulesError, match="cannot become"):
                move(its_rules, its_state, "again")


JUDGED = [
    (GOOD, None),
    (Sample(10, 99.0, 0.5), None),
    (None, "no figures"),
    (Sample(0, 0.0), "0 calls; 1 are needed"),
    (Sample(10, 98.99, 0.1), "98.99 % of 10 calls succeeded; 99 % are needed"),
    (Sample(10, nan, 0.1), "nan % of"),
    (Sample(10, 100, 0.501), "p99 of 10 calls is 501 ms; 500 ms are allowed"),
    (Sample(10, 100, inf), "p99 of 10 calls is inf ms"),
    (Sample(10, 100, nan), "p99 of 10 calls is nan"),
    (Sample(10, 100), "nobody knows how long"),
    (Sample(10, 100, -0.1), "p99 of 10 calls is -100 ms"),
    (Sample(10, 9900, 0.1), "figures that nobody can have measured"),
    (Sample(10**400, 100, 0.1), "figures that nobody can have measured"),
    (Sample(-1, 100, 0.1), "figures that nobody can have measured"),
]


@pytest.mark.parametrize(("sample", "why"), JUDGED)
def test_a_check_is_good_only_by_figures_that_say_so(sample: Sample | None, why: str | None) -> None:
    verdict, told = judged(PLAN, sample)
    assert told.startswith(why or "good: ")
    assert (verdict is Verdict.GOOD) is (why is None)


def test_without_a_limit_for_latency_only_success_counts() -> None:
    assert judged(evolve(PLAN, p99=None), Sample(10, 100))[0] is Verdict.GOOD


SAMPLES = st.none() | st.builds(
    Sample, st.integers(0, 1000), st.floats(0, 100) | st.just(nan), st.none() | st.floats(0, 2)
)
PLANS = st.builds(
    lambda step, more, threshold, hold: CanaryPlan(
        "v1", "v2", step=step / 100, max_weight=min(100, (step + more) / 100), threshold=threshold, hold=hold
    ),
    st.integers(1, 10_000),
    st.integers(0, 10_000),
    st.integers(1, 6),
    st.booleans(),
)


@given(plan=PLANS, samples=st.lists(SAMPLES | st.just(GOOD), max_size=60))
def test_whatever_is_seen(plan: CanaryPlan, samples: list[Sample | None]) -> None:
    """Weights rise by steps up to the most; so many failures roll back; the state survives the store, and rules fit."""
    there, state = begun(rules(), plan)
    failed = 0
    for sample in samples:
        if not state.running:
            break
        before = state
        there, state = checked(there, structure(CanaryState, plain(state)), sample)
        bad = judged(plan, sample)[0] is not Verdict.GOOD
        failed += bad
        assert state.checks == before.checks + 1
        assert state.failed == failed
        assert (state.phase is CanaryPhase.ROLLED_BACK) == (failed >= plan.threshold)
        if bad:
            assert state.weight in (before.weight, 0)
        elif state.phase is CanaryPhase.PROGRESSING:
            assert state.weight == min(round(before.weight + plan.step, 2), plan.max_weight)
        weights = {split.subset: split.weight for split in there.splits}
        want = {"v1": round(100 - state.weight, 2), "v2": state.weight} if state.running else {}
        assert weights == want
        assert ServiceRules.parse(there.document()) == there
    if state.phase is CanaryPhase.PROMOTED:
        assert not plan.hold
        assert there.default_subset == "v2"
    else:
        assert there.default_subset == "v1"
