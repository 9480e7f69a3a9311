"""Circuit breakers by their rules, beside a model that keeps every call and counts anew."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytest
from attrs import define
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

from osdisco import ConfigError
from osdisco.mesh import (
    BreakerEvent,
    BreakerReason,
    BreakerSettings,
    BreakerState,
    CircuitBreaker,
    CircuitBreakerRegistry,
)
from osdisco.mesh.breaker import TRANSITIONS

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def breaker(time: Time, **options: Any) -> CircuitBreaker:
    return CircuitBreaker(BreakerSettings(**options), time, service="geo", endpoint="e1")


def fails(one: CircuitBreaker, *failed: bool) -> None:
    for each in failed:
        assert one.try_acquire()
        one.record(each, 0.0)


def opened(time: Time, **options: Any) -> CircuitBreaker:
    one = breaker(time, window=4, minimum=2, **options)
    fails(one, True, True)
    assert one.state is OPEN
    return one


def test_it_opens_when_enough_calls_are_known_and_half_of_them_failed() -> None:
    one = breaker(Time())
    fails(one, *[True] * 9)
    assert one.state is CLOSED
    fails(one, True)
    assert one.state is OPEN
    assert not one.try_acquire()


def test_it_stays_closed_below_the_rate() -> None:
    one = breaker(Time(), window=10, minimum=10)
    fails(one, *[True, True, False, False, False] * 8)
    assert (one.state, one.last) == (CLOSED, None)


@pytest.mark.parametrize(("rate", "failed", "calls"), [(0.55, 11, 20), (0.07, 7, 100), (0.14, 14, 100), (0.5, 1, 2)])
def test_it_opens_at_exactly_the_rate(rate: float, failed: int, calls: int) -> None:
    for options in ({"failure_rate": rate}, {"slow_rate": rate, "slow_after": 0.5, "failure_rate": 1.0}):
        one = breaker(Time(), window=calls, minimum=calls, **options)
        for number in range(calls):
            bad = number < failed
            one.record(bad and len(options) == 1, float(bad))
        assert one.state is OPEN


@pytest.mark.parametrize("make", [CircuitBreakerRegistry, CircuitBreaker])
def test_settings_of_another_kind_are_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match="settings is BreakerSettings, or None, not 5"):
        make(5)


def test_only_the_last_calls_count() -> None:
    one = breaker(Time(), window=4, minimum=4, failure_rate=0.75)
    fails(one, True, True, False, False, True, True)
    assert one.state is CLOSED
    fails(one, True)
    assert one.state is OPEN


def test_in_a_window_of_time_only_the_last_seconds_count() -> None:
    time = Time()
    one = breaker(time, window_seconds=10, minimum=3)
    fails(one, True, True)
    time.at += 10
    fails(one, True)
    assert one.state is CLOSED
    fails(one, True, True)
    assert one.state is OPEN


def test_calls_that_succeed_too_slowly_open_it() -> None:
    time = Time()
    one = breaker(time, window=4, minimum=4, slow_after=2.0, slow_rate=0.5)
    for seconds in (2.0, 2.1, 2.0, 2.1):
        one.record(False, seconds)
    assert one.last is not None
    assert (one.state, one.last.reason, one.last.slow) == (OPEN, BreakerReason.SLOW_RATE, 2)


def test_after_a_while_a_few_calls_may_try() -> None:
    time = Time()
    one = opened(time, open_for=10, permits=3)
    assert one.retry_after == 10
    time.at += 9.9
    assert not one.admits
    time.at += 0.1
    assert one.admits
    assert [one.try_acquire() for _ in range(4)] == [True, True, True, False]
    assert one.state is HALF_OPEN


@pytest.mark.parametrize(
    ("failed", "state"), [((False, False, True), CLOSED), ((False, True, True), OPEN), ((True, True, True), OPEN)]
)
def test_all_who_tried_decide(failed: tuple[bool, ...], state: BreakerState) -> None:
    time = Time()
    one = opened(time, permits=3)
    time.at += 10
    fails(one, *failed[:2])
    assert one.state is HALF_OPEN
    fails(one, failed[2])
    assert one.state is state


def test_a_call_that_was_given_up_gives_its_permit_back() -> None:
    time = Time()
    one = opened(time, permits=1)
    time.at += 10
    assert one.try_acquire()
    time.at += 3
    assert not one.admits
    one.release(3.0)
    assert one.admits


def test_what_began_before_it_opened_neither_decides_nor_takes_a_permit() -> None:
    time = Time()
    one = opened(time, permits=1)
    time.at += 10
    assert one.try_acquire()
    one.record(True, 11.0)
    one.release(11.0)
    assert (one.state, one.admits) == (HALF_OPEN, False)
    one.record(False, 0.0)
    assert one.state is CLOSED
    for _ in range(5):
        one.record(True, 11.0)
    assert one.state is CLOSED


def test_it_says_how_it_came_to_stand_as_it_does() -> None:
    time = Time()
    told: list[BreakerEvent] = []
    registry = CircuitBreakerRegistry(BreakerSettings(window=2, minimum=2, permits=1), clock=time)
    end = registry.add_listener(told.append)
    one = registry.breaker("geo", "e1")
    fails(one, True, True)
    time.at += 10
    fails(one, False)
    end()
    fails(one, True, True)
    opened_, half, closed = told
    assert opened_ == BreakerEvent("geo", "e1", CLOSED, OPEN, BreakerReason.FAILURE_RATE, 2, 2, 0, 1010.0)
    assert (half.new, half.reason, closed.new, closed.reason) == (
        HALF_OPEN,
        BreakerReason.WAITED,
        CLOSED,
        BreakerReason.RECOVERED,
    )
    assert str(opened_) == (
        "the circuit breaker of geo at e1 is open: too many calls failed (of 2 calls 2 failed and 0 were slow)"
    )


def test_there_is_one_for_each_service_and_each_endpoint_with_settings_of_its_own() -> None:
    registry = CircuitBreakerRegistry(services={"tiles": BreakerSettings(permits=7)})
    one, other, whole = registry.breaker("geo", "e1"), registry.breaker("geo", "e2"), registry.breaker("geo")
    assert len({one, other, whole}) == len(registry) == 3
    assert registry.breaker("geo", "e1") is one
    assert (one.settings.permits, registry.breaker("tiles", "e1").settings.permits) == (3, 7)
    registry.forget("geo", "e1")
    assert registry.breaker("geo", "e1") is not one
    assert {each.service for each in registry} == {"geo", "tiles"}


def test_a_bad_listener_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    registry = CircuitBreakerRegistry(BreakerSettings(window=1, minimum=1))
    told: list[BreakerEvent] = []
    registry.add_listener(lambda event: 1 / 0)
    registry.add_listener(told.append)
    with caplog.at_level(logging.ERROR, "osdisco"):
        fails(registry.breaker("geo"), True)
    assert len(told) == 1
    assert "listener" in caplog.text
    with pytest.raises(ConfigError, match="function"):
        registry.add_listener("me")  # type: ignore[arg-type]  # that is the point


BAD = [
    ("failure_rate", 0, "above 0"),
    ("failure_rate", 1.1, "at most 1"),
    ("slow_rate", float("nan"), "share"),
    ("slow_after", 0, "seconds"),
    ("slow_after", float("inf"), "seconds"),
    ("window", 0, "whole number from 1"),
    ("window", 2.5, "whole number"),
    ("window", True, "whole number"),
    ("window_seconds", -1, "or None"),
    ("minimum", -3, "whole number"),
    ("open_for", 0, "seconds"),
    ("permits", "3", "whole number"),
]


@pytest.mark.parametrize(("name", "value", "why"), BAD)
def test_settings_that_cannot_be_are_refused_by_name(name: str, value: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is .*{why}"):
        BreakerSettings(**{name: value})


@define
class Call:
    began: float
    moves: int  # how often the breaker had moved when it began


@define
class Kept:
    at: float
    failed: bool
    slow: bool


SECONDS = st.sampled_from([0.0, 0.5, 1.0, 4.5, 5.0, 9.5, 10.0, 25.0])
OPTIONS = st.fixed_dictionaries(
    {
        "failure_rate": st.sampled_from([0.3, 0.5, 1.0]),
        "slow_rate": st.sampled_from([0.5, 1.0]),
        "slow_after": st.just(4.0),
        "window": st.integers(1, 6),
        "window_seconds": st.sampled_from([None, 5.0]),
        "minimum": st.integers(1, 8),
        "open_for": st.sampled_from([0.5, 10.0]),
        "permits": st.integers(1, 4),
    }
)


MOVES: Counter[tuple[BreakerState, BreakerState]] = Counter()
"""What came up in all runs."""


class BreakerMachine(RuleBasedStateMachine):
    """The model remembers how often the breaker had moved when each call began, and every call that counts."""

    @initialize(options=OPTIONS)
    def begin(self, options: dict[str, Any]) -> None:
        self.settings = BreakerSettings(**options)
        self.time = Time()
        self.events: list[BreakerEvent] = []
        self.breaker = CircuitBreaker(self.settings, self.time, tell=self.events.append)
        self.state, self.moves, self.moved_at = CLOSED, 0, 0.0
        self.calls: list[Call] = []
        self.kept: list[Kept] = []

    def move(self, state: BreakerState) -> None:
        MOVES[self.state, state] += 1
        self.state, self.moved_at, self.kept = state, self.time.at, []
        self.moves += 1

    @property
    def trying(self) -> int:
        return sum(call.moves == self.moves for call in self.calls)

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        self.time.at += seconds

    @rule()
    def try_a_call(self) -> None:
        if self.state is OPEN and self.time.at >= self.moved_at + self.settings.open_for:
            self.move(HALF_OPEN)
        room = self.trying + len(self.kept) < self.settings.permits
        expected = self.state is CLOSED or (self.state is HALF_OPEN and room)
        assert self.breaker.try_acquire() is expected
        if expected:
            self.calls.append(Call(self.time.at, self.moves))

    @rule(wait=SECONDS, calls=st.lists(st.booleans(), min_size=1, max_size=8), slow=st.booleans())
    def several(self, wait: float, calls: list[bool], slow: bool) -> None:
        """After a while some calls, one after the other."""
        self.wait(wait)
        for failed in calls:
            before = len(self.calls)
            self.try_a_call()
            if len(self.calls) > before:
                self.wait(4.5 if slow else 0.0)
                self.end(self.calls.pop(), failed)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), failed=st.booleans())
    def end_a_call(self, data: st.DataObject, failed: bool) -> None:
        self.end(self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1))), failed)

    def end(self, call: Call, failed: bool) -> None:
        seconds = self.time.at - call.began
        self.breaker.record(failed, seconds)
        if call.moves == self.moves:
            self.kept.append(Kept(self.time.at, failed, seconds > self.settings.slow_after))
            self.judge()

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def give_a_call_up(self, data: st.DataObject) -> None:
        call = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        self.breaker.release(self.time.at - call.began)

    def judge(self) -> None:
        given, trying = self.settings, self.state is HALF_OPEN
        if trying:
            seen, least = self.kept, given.permits
        elif given.window_seconds is None:
            seen, least = self.kept[-given.window :], min(given.minimum, given.window)
        else:
            width = given.window_seconds / 10
            oldest = self.time.at // width - 9
            seen, least = [one for one in self.kept if one.at // width >= oldest], given.minimum
        if len(seen) < least:
            return
        failed = sum(one.failed for one in seen) >= given.failure_rate * len(seen)
        slow = sum(one.slow for one in seen) >= given.slow_rate * len(seen)
        if failed or slow:
            self.move(OPEN)
        elif trying:
            self.move(CLOSED)

    @invariant()
    def it_stands_as_the_model_does(self) -> None:
        if not hasattr(self, "breaker"):
            return
        assert self.breaker.state is self.state
        due = self.moved_at + self.settings.open_for
        assert self.breaker.retry_at == (due if self.state is OPEN else None)
        room = self.trying + len(self.kept) < self.settings.permits
        waited = self.state is OPEN and self.time.at >= due
        assert self.breaker.admits is (self.state is CLOSED or waited or (self.state is HALF_OPEN and room))

    @invariant()
    def it_moves_only_as_the_table_says(self) -> None:
        if hasattr(self, "events"):
            stood = [CLOSED, *(event.new for event in self.events)]
            assert len(self.events) == self.moves
            assert all(TRANSITIONS[event.old, event.reason] is event.new for event in self.events)
            assert [event.old for event in self.events] == stood[:-1]


def test_all_moves_came_up() -> None:
    MOVES.clear()
    run_state_machine_as_test(BreakerMachine, settings=TestBreaker.settings)  # type: ignore[no-untyped-call]
    assert set(MOVES) == {(old, new) for (old, _), new in TRANSITIONS.items()}
    assert min(MOVES.values()) > 5


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
