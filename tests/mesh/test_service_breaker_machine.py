"""Calls of any number of attempts, in any order, beside the breaker of a whole service: no permit is lost."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from fleets import Time
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from osdisco.mesh import BreakerSettings, BreakerState, CircuitBreaker, Outcome, RefusedReason
from osdisco.mesh._whole import note, turned_away

HALF_OPEN, OPEN = BreakerState.HALF_OPEN, BreakerState.OPEN
SETTINGS = BreakerSettings(window=4, minimum=3, open_for=10, permits=3)
OUTCOMES = st.sampled_from([Outcome.FAILED, Outcome.FAILED, *Outcome])

SEEN: Counter[str] = Counter()
"""What came up in all runs."""


class WholeMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.time = Time()
        self.breaker = CircuitBreaker(SETTINGS, self.time)
        self.service: Any = SimpleNamespace(breaker=self.breaker)
        self.calls: list[Any] = []

    @rule(seconds=st.sampled_from([0.0, 1.0, 4.0, 10.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.time.at += seconds

    @rule()
    def call(self) -> None:
        call = SimpleNamespace(permits=(), is_copy=False)
        if self.attempt(call):
            self.calls.append(call)

    @rule()
    def copy(self) -> None:
        copy = SimpleNamespace(permits=(), is_copy=True)
        assert self.attempt(copy)
        assert copy.permits == ()

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), outcome=OUTCOMES)
    def try_again(self, data: st.DataObject, outcome: Outcome) -> None:
        call = data.draw(st.sampled_from(self.calls))
        note(call, self.service, outcome)
        SEEN["stopped"] += not self.attempt(call)

    @precondition(lambda self: self.calls)
    @rule(outcome=OUTCOMES)
    def fail_beside(self, outcome: Outcome) -> None:
        """Let the breaker nearly always open while calls are under way, which by chance it seldom does."""
        self.call_several(Outcome.FAILED, SETTINGS.window)
        for call in self.calls:
            note(call, self.service, outcome)
            SEEN["stopped"] += not self.attempt(call)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), outcome=OUTCOMES, counted=st.booleans())
    def end(self, data: st.DataObject, outcome: Outcome, counted: bool) -> None:
        self.over(self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1))), outcome, counted)

    @rule(outcome=OUTCOMES, times=st.integers(1, 5))
    def call_several(self, outcome: Outcome, times: int) -> None:
        for _ in range(times):
            before = len(self.calls)
            self.call()
            if len(self.calls) > before:
                self.over(self.calls.pop(), outcome, counted=True)

    def over(self, call: Any, outcome: Outcome, counted: bool) -> None:
        note(call, self.service, outcome)
        for permit in call.permits:
            permit.end(self.time.at, counted=counted)

    def attempt(self, call: Any) -> bool:
        """Let a call make an attempt, if it may."""
        refused = turned_away(call, self.service, self.time.at)
        SEEN[self.breaker.state.name] += 1
        if refused is None:
            assert call.is_copy or self.breaker.state is not OPEN
            assert len(call.permits) == (not call.is_copy)
            assert not any(self.breaker._is_of_before(permit.began) for permit in call.permits)
            return True
        assert refused.reason is RefusedReason.SERVICE_CIRCUIT_OPEN
        assert refused.retry_after == self.breaker.retry_after
        assert self.breaker.state is not BreakerState.CLOSED
        return False

    @invariant()
    def permits_are_free_or_with_a_call_or_decided(self) -> None:
        if not hasattr(self, "calls") or self.breaker.state is not HALF_OPEN:
            return
        held = [permit for call in self.calls for permit in call.permits]
        current = [permit for permit in held if not self.breaker._is_of_before(permit.began)]
        assert self.breaker._free + len(current) + self.breaker._window.calls == SETTINGS.permits


def test_all_that_may_come_up_did() -> None:
    SEEN.clear()
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        WholeMachine, settings=settings(max_examples=200, stateful_step_count=50, deadline=None)
    )
    assert set(SEEN) == {"OPEN", "HALF_OPEN", "CLOSED", "stopped"}
    assert min(SEEN.values()) > 5
