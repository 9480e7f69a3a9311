"""Outlier detection by Envoy's rules, beside a model of them."""

from __future__ import annotations

from collections import Counter
from math import sqrt
from typing import Any

import pytest
from fleets import endpoint
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from osdisco import ConfigError
from osdisco.mesh import EjectionReason, EndpointState, OutlierSettings
from osdisco.mesh.outliers import OutlierDetector, success_threshold


class Group:
    """A detector, and endpoints that it watches."""

    def __init__(self, size: int, **options: Any) -> None:
        self.now = 0.0
        self.told: list[tuple[str, EjectionReason | None]] = []
        self.detector = OutlierDetector(
            OutlierSettings(**options), self.now, lambda state, reason: self.told.append((state.id, reason))
        )
        self.states = [EndpointState(endpoint(number)) for number in range(size)]
        self.detector.size = size

    def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self.detector.due:
            self.detector.advance(self.states, self.now)

    def note(self, number: int, *, ok: int = 0, failed: int = 0) -> None:
        for bad in [False] * ok + [True] * failed:
            self.detector.note(self.states[number], bad, self.now)

    @property
    def ejected(self) -> set[str]:
        assert {state for state in self.states if state.ejected_until is not None} == set(self.detector.ejected)
        return {state.id for state in self.detector.ejected}


def test_five_failures_in_a_row_eject_at_once_for_30_seconds() -> None:
    group = Group(10)
    group.note(0, failed=4)
    group.note(0, ok=1)
    group.note(0, failed=4)
    assert group.ejected == set()
    group.note(0, failed=1)
    assert group.ejected == {"e0"}
    group.wait(29.9)
    assert group.ejected == {"e0"}
    group.wait(0.1)
    assert group.ejected == set()
    assert group.told == [("e0", EjectionReason.CONSECUTIVE_FAILURES), ("e0", None)]


def test_who_returns_is_ejected_again_only_by_five_new_failures() -> None:
    group = Group(10)
    group.note(0, failed=8)
    group.wait(30)
    group.note(0, failed=4)
    assert group.ejected == set()


def test_each_ejection_is_longer_up_to_300_seconds_and_shorter_again_after_good_intervals() -> None:
    group, lasted = Group(10), []
    for _ in range(12):
        group.note(0, failed=5)
        until = group.states[0].ejected_until
        assert until is not None
        lasted.append(until - group.now)
        group.wait(until - group.now)
    assert lasted == [30.0 * min(times, 10) for times in range(1, 13)]
    before = group.states[0].ejections
    group.wait(10)
    assert group.states[0].ejections == before - 1
    for _ in range(20):
        group.wait(10)
    group.note(0, failed=5)
    assert group.states[0].ejected_until == group.now + 30


@pytest.mark.parametrize(("size", "most"), [(1, 1), (2, 1), (3, 1), (6, 1), (7, 2), (10, 3), (100, 30)])
def test_at_most_30_per_cent_are_ejected_but_one_always_may_be(size: int, most: int) -> None:
    group = Group(size)
    for number in range(size):
        group.note(number, failed=5)
    assert len(group.ejected) == most


def test_who_succeeds_less_often_than_the_others_is_ejected_after_the_interval() -> None:
    group = Group(10)
    for number in range(9):
        group.note(number, ok=100)
    for _ in range(50):
        group.note(9, ok=1, failed=1)
    group.wait(9.9)
    assert group.ejected == set()
    group.wait(0.1)
    assert group.ejected == {"e9"}
    assert group.told == [("e9", EjectionReason.SUCCESS_RATE)]


def test_the_threshold_is_the_one_of_envoys_own_test() -> None:
    assert success_threshold([0.5, 1, 1, 1, 1], 1.9) == pytest.approx(0.52)


@pytest.mark.parametrize("failed", range(4))
def test_who_are_all_the_same_are_no_outliers(failed: int) -> None:
    group = Group(7)
    for number in range(7):
        for _ in range(30):
            group.note(number, ok=4, failed=failed)
    group.wait(10)
    assert group.ejected == set()


def test_without_enough_calls_or_endpoints_nobody_is_judged() -> None:
    few, seldom = Group(4), Group(10)
    for number in range(4):
        few.note(number, ok=100 if number else 0)
    few.note(0, ok=40, failed=4)
    for number in range(10):
        seldom.note(number, ok=49 if number else 45)
    seldom.note(0, failed=4)
    for group in (few, seldom):
        group.wait(10)
        assert group.ejected == set()


def test_who_nearly_always_fails_is_ejected_with_fewer_calls() -> None:
    group = Group(5, consecutive_failures=1000)
    for number in range(5):
        group.note(number, ok=50 if number else 7, failed=0 if number else 43)
    group.wait(10)
    assert group.told == [("e0", EjectionReason.FAILURE_RATE)]


def test_who_fails_at_exactly_the_rate_is_ejected() -> None:
    group = Group(5, consecutive_failures=1000, failure_rate=0.55, success_rate_volume=1000)
    for number in range(5):
        group.note(number, ok=45 if number == 0 else 100, failed=0 if number else 55)
    group.wait(10)
    assert group.told == [("e0", EjectionReason.FAILURE_RATE)]


def test_an_interval_without_a_call_ends_without_a_judgement_on_what_was_before() -> None:
    group = Group(10)
    for number in range(9):
        group.note(number, ok=100)
    for _ in range(50):
        group.note(9, ok=1, failed=1)
    group.wait(3600)
    assert group.ejected == set()
    group.wait(10)
    assert group.ejected == set()


def test_who_is_gone_makes_room_for_others() -> None:
    group = Group(3)
    group.note(0, failed=5)
    group.note(1, failed=5)
    assert group.ejected == {"e0"}
    group.detector.forget(group.states.pop(0))
    group.note(0, failed=5)
    assert group.ejected == {"e1"}


BAD = [
    ("consecutive_failures", 0, "whole number"),
    ("interval", -1, "seconds"),
    ("max_share", 1.5, "share"),
    ("success_rate_stdev", -1, "0 or more"),
    ("max_ejection", 10, "less than base_ejection"),
]


@pytest.mark.parametrize(("name", "value", "why"), BAD)
def test_settings_that_cannot_be_are_refused_by_name(name: str, value: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is .*{why}"):
        OutlierSettings(**{name: value})


SMALL = OutlierSettings(
    consecutive_failures=3,
    base_ejection=20,
    max_ejection=50,
    success_rate_hosts=3,
    success_rate_volume=4,
    success_rate_stdev=1.0,
    failure_rate=0.75,
    failure_rate_hosts=2,
    failure_rate_volume=2,
)


class Model:
    """One endpoint, by the rules; all calls of the running interval are kept."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.row = 0
        self.until: float | None = None
        self.returned: float | None = None
        self.times = 0

    def rate(self, *outcomes: str) -> float:
        return sum(one in outcomes for one in self.calls) / len(self.calls)


MOSTLY = st.just(["failed", "failed", "ok", "failed"])
"""Never three in a row, and yet too often."""

EJECTED: Counter[EjectionReason | str] = Counter()
"""What came up in all runs."""


class OutlierMachine(RuleBasedStateMachine):
    """The model ends intervals one by one, also those in which nobody called."""

    @initialize(size=st.sampled_from([1, 2, 2, 3, 4, 5, 7, 12]))
    def begin(self, size: int) -> None:
        self.now, self.ends, self.quiet = 0.0, 10.0, False
        self.detector = OutlierDetector(SMALL, 0.0)
        self.detector.size = size
        self.states = [EndpointState(endpoint(number)) for number in range(size)]
        self.models = [Model() for _ in range(size)]

    @rule(seconds=st.sampled_from([1.0, 5.0, 10.0, 20.0, 50.0, 200.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self.detector.due:
            self.detector.advance(self.states, self.now)
        for model in self.models:
            if model.until is not None and self.now >= model.until:
                model.until, model.returned, model.row = None, self.now, 0
        ended = 0
        while self.now >= self.ends:
            self.ends += 10
            ended += 1
        if ended == 1:
            self.judge()
        for model in self.models:
            if ended:
                model.calls = []
            well = model.until is None and model.returned is not None and self.now - model.returned >= 10
            for _ in range(ended if well else 0):
                model.times = max(0, model.times - 1)

    @rule(data=st.data(), outcomes=st.lists(st.sampled_from(["ok", "failed", "rejected"]), min_size=1, max_size=6))
    def call(self, data: st.DataObject, outcomes: list[str]) -> None:
        self.calls(data.draw(st.integers(0, len(self.states) - 1)), outcomes)

    @rule(bad=st.integers(0, 11), outcomes=st.lists(st.sampled_from(["ok", "failed"]), min_size=4, max_size=6) | MOSTLY)
    def call_all_of_whom_one_fares_otherwise(self, bad: int, outcomes: list[str]) -> None:
        self.wait(self.ends - self.now)
        for number in range(len(self.states)):
            self.calls(number, outcomes if number == bad % len(self.states) else ["ok"] * len(outcomes))
        self.wait(self.ends - self.now)

    @rule(number=st.integers(0, 11), times=st.integers(1, 4))
    def fail_again_and_again(self, number: int, times: int) -> None:
        for _ in range(times):
            self.calls(number % len(self.states), ["failed"] * 3)
            self.wait(50.0)

    def calls(self, number: int, outcomes: list[str]) -> None:
        model = self.models[number]
        for outcome in outcomes:
            model.calls.append(outcome)
            if outcome == "rejected":
                self.detector.note_rejected(self.states[number])
                continue
            self.detector.note(self.states[number], outcome == "failed", self.now)
            model.row = model.row + 1 if outcome == "failed" else 0
            if model.row >= 3 and model.until is None:
                model.row = 0
                self.eject(model, EjectionReason.CONSECUTIVE_FAILURES)

    def eject(self, model: Model, reason: EjectionReason) -> None:
        ejected = sum(one.until is not None for one in self.models)
        if model.until is None and (ejected == 0 or (ejected + 1) / len(self.models) <= 0.3):
            model.times = min(model.times + 1, 4)  # the first number by which 20 s are 50 s and 20 s more, or longer
            model.until = self.now + min(50.0, 20.0 * model.times)
            EJECTED[reason] += 1
            EJECTED["again"] += model.times > 1

    def judge(self) -> None:
        present = [one for one in self.models if one.until is None]
        rated = [one for one in present if len(one.calls) >= 4]
        if len(rated) >= 3:
            rates = [one.rate("ok") for one in rated]
            mean = sum(rates) / len(rates)
            least = mean - sqrt(sum((rate - mean) ** 2 for rate in rates) / len(rates))
            for one, rate in zip(rated, rates, strict=True):
                if rate < least - 1e-6:
                    self.eject(one, EjectionReason.SUCCESS_RATE)
        failing = [one for one in present if len(one.calls) >= 2]
        if len(failing) >= 2:
            for one in failing:
                if one.rate("failed") >= 0.75:
                    self.eject(one, EjectionReason.FAILURE_RATE)

    @invariant()
    def the_same_are_ejected_until_the_same_time(self) -> None:
        if hasattr(self, "states"):
            assert [state.ejected_until for state in self.states] == [model.until for model in self.models]
            assert {state.id for state in self.detector.ejected} == {
                state.id for state in self.states if state.ejected_until is not None
            }

    @invariant()
    def no_more_than_allowed_are_ejected(self) -> None:
        if hasattr(self, "states"):
            assert len(self.detector.ejected) <= max(1, int(0.3 * len(self.states)))


def test_all_reasons_came_up() -> None:
    EJECTED.clear()
    run_state_machine_as_test(OutlierMachine, settings=TestOutliers.settings)  # type: ignore[no-untyped-call]
    assert set(EJECTED) == {*EjectionReason, "again"}
    assert min(EJECTED.values()) > 5


TestOutliers = OutlierMachine.TestCase
TestOutliers.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
