"""A pool in any order of changes, calls and waits: who is picked is who may be, looked at anew each time."""

from __future__ import annotations

from collections import Counter

from attrs import frozen
from fleets import DEGRADED, HEALTHY, STARTING, STOPPING, UNHEALTHY, Fleet, Named, endpoint
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from osdisco.mesh import (
    BreakerSettings,
    BreakerState,
    EndpointState,
    LeastRequestLoadBalancer,
    LoadBalancer,
    Outcome,
    OutlierSettings,
    PoolSettings,
    Refused,
    RefusedReason,
    RoundRobinLoadBalancer,
)

LIMIT, PERMITS, PANIC = 3, 2, 0.5
NUMBERS = st.integers(0, 5)
STATUSES = st.sampled_from([HEALTHY, HEALTHY, HEALTHY, DEGRADED, UNHEALTHY, STARTING, STOPPING])
BREAKERS = BreakerSettings(window=4, minimum=3, open_for=10, permits=PERMITS)
SETTINGS = PoolSettings(
    panic=PANIC, concurrency=LIMIT, outliers=OutlierSettings(consecutive_failures=3, base_ejection=15, max_ejection=40)
)


@frozen
class Attempt:
    state: EndpointState
    began: float
    trying: bool


SUBSETS = st.sampled_from([None, None, "1", "2"])
TRIED = st.frozensets(NUMBERS.map(lambda number: f"e{number}"), max_size=3)

SEEN: Counter[str] = Counter()
"""What came up in all runs: a machine that never sees an open circuit shows nothing of them."""


class PoolMachine(RuleBasedStateMachine):
    @initialize(
        balancer=st.sampled_from([LeastRequestLoadBalancer(), RoundRobinLoadBalancer()]), size=st.integers(0, 6)
    )
    def begin(self, balancer: LoadBalancer, size: int) -> None:
        self.fleet = Fleet(size, SETTINGS, balancer=balancer, breakers=BREAKERS)
        self.pool = self.fleet.pool
        self.attempts: list[Attempt] = []

    @rule(number=NUMBERS, status=STATUSES, weight=st.sampled_from([100, 100, 1, 0]), version=st.sampled_from("12"))
    def come_or_change(self, number: int, status: object, weight: int, version: str) -> None:
        self.fleet.set(endpoint(number, status=status, weight=weight, version=version))

    @rule(number=NUMBERS)
    def come_at_another_address(self, number: int) -> None:
        self.fleet.set(endpoint(number, address=f"10.9.0.{number + 1}:{len(self.attempts) + 1}"))

    @precondition(lambda self: self.fleet.endpoints)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        self.fleet.remove(data.draw(st.sampled_from(sorted(self.fleet.endpoints))))

    @rule(seconds=st.sampled_from([0.0, 1.0, 5.0, 10.0, 15.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.fleet.time.at += seconds

    @rule(
        outcome=st.sampled_from([Outcome.FAILED, Outcome.FAILED, Outcome.OK]),
        times=st.integers(1, 12),
        wait=st.sampled_from([0.0, 1.0, 10.0]),
    )
    def call(self, outcome: Outcome, times: int, wait: float) -> None:
        """Several calls, one after the other: each fares alike."""
        for _ in range(times):
            before = len(self.attempts)
            self.pick(None, frozenset(), True)
            if len(self.attempts) > before:
                self.fleet.time.at += wait
                attempt = self.attempts.pop()
                self.pool.end(attempt.state, outcome, wait)

    @rule(version=SUBSETS, tried=TRIED, times=st.integers(1, 8))
    def begin_several(self, version: str | None, tried: frozenset[str], times: int) -> None:
        for _ in range(times):
            self.pick(version, tried, True)

    @rule(version=SUBSETS, tried=TRIED, go_on=st.booleans())
    def pick(self, version: str | None, tried: frozenset[str], go_on: bool) -> None:
        subset = None if version is None else Named(version)
        picked = self.pool.pick(subset=subset, tried=tried)
        allowed = self.allowed(version, tried)
        SEEN["a panic"] += self.pool.panicking
        SEEN["an ejection"] += any(self.is_ejected(state) for state in self.pool.states.values())
        if isinstance(picked, Refused):
            SEEN[picked.reason.name] += 1
            assert allowed == set()
            assert picked.reason is self.reason(version)
            assert picked.retry_after == self.retry_after(version, picked.reason)
            return
        assert picked.id in allowed
        assert self.pool.states[picked.id] is picked
        SEEN["an ejected one picked"] += self.is_ejected(picked)
        SEEN["one tried again"] += picked.id in tried
        SEEN["a permit taken"] += picked.breaker is not None and picked.breaker.state is BreakerState.HALF_OPEN
        if go_on:
            self.pool.begin(picked)
            assert picked.breaker is not None
            trying = picked.breaker.state is BreakerState.HALF_OPEN
            self.attempts.append(Attempt(picked, self.fleet.time.at, trying))

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), outcome=st.sampled_from([Outcome.FAILED, *Outcome]))
    def end(self, data: st.DataObject, outcome: Outcome) -> None:
        attempt = self.attempts.pop(data.draw(st.integers(0, len(self.attempts) - 1)))
        self.pool.end(attempt.state, outcome, self.fleet.time.at - attempt.began)

    # The rules, looked at anew

    def steps(self, version: str | None) -> list[list[EndpointState]]:
        """Who is left after each step, up to the breakers."""
        known = list(self.pool.states.values())
        matching = [one for one in known if version is None or one.endpoint.version == version]
        serving = [one for one in matching if one.endpoint.status in (HEALTHY, DEGRADED, UNHEALTHY)]
        serving = [one for one in serving if one.endpoint.weight > 0]
        fit = [one for one in serving if one.endpoint.status is not UNHEALTHY and not self.is_ejected(one)]
        considered = serving if len(fit) < PANIC * len(serving) else fit
        return [known, matching, serving, considered, [one for one in considered if self.lets_through(one)]]

    def is_ejected(self, state: EndpointState) -> bool:
        return state.ejected_until is not None and state.ejected_until > self.fleet.time.at

    def lets_through(self, state: EndpointState) -> bool:
        breaker = self.pool.breakers.breaker("geo", state.id)
        assert breaker is state.breaker
        return breaker.admits

    def allowed(self, version: str | None, tried: frozenset[str]) -> set[str]:
        *_, serving, considered, closed = self.steps(version)
        placed = [one for one in closed if one.in_flight < LIMIT]
        healthy = [one for one in placed if one.endpoint.status is HEALTHY]
        panic = considered is serving
        tiers = [placed] if panic else [healthy, [one for one in placed if one not in healthy]]
        for avoided in (tried, frozenset[str]()):
            for tier in tiers:
                if left := {one.id for one in tier if one.id not in avoided}:
                    return left
        return set()

    def reason(self, version: str | None) -> RefusedReason:
        reasons = [
            RefusedReason.NO_ENDPOINTS,
            RefusedReason.NO_MATCH,
            RefusedReason.NOT_SERVING,
            RefusedReason.UNHEALTHY,
            RefusedReason.CIRCUIT_OPEN,
        ]
        for left, reason in zip(self.steps(version), reasons, strict=True):
            if not left:
                return reason
        return RefusedReason.OVERLOADED

    def retry_after(self, version: str | None, reason: RefusedReason) -> float | None:
        *_, considered, _ = self.steps(version)
        waits = [one.breaker.retry_after for one in considered if one.breaker is not None]
        waits = [] if reason is not RefusedReason.CIRCUIT_OPEN else [wait for wait in waits if wait is not None]
        return min(waits, default=None)

    # What holds at any time

    @invariant()
    def calls_under_way_are_counted_and_within_the_limit(self) -> None:
        if not hasattr(self, "attempts"):
            return
        for state in self.pool.states.values():
            assert state.in_flight == sum(one.state is state for one in self.attempts) <= LIMIT

    @invariant()
    def no_more_try_than_there_are_permits(self) -> None:
        if not hasattr(self, "attempts"):
            return
        for state in self.pool.states.values():
            if state.breaker is not None and state.breaker.state is BreakerState.HALF_OPEN:
                of_now = [one for one in self.attempts if one.state is state and one.began >= state.breaker._since]
                assert sum(one.trying for one in of_now) <= PERMITS

    @invariant()
    def what_is_known_is_who_there_is(self) -> None:
        if hasattr(self, "attempts"):
            assert {id_: state.endpoint for id_, state in self.pool.states.items()} == self.fleet.endpoints
            assert len(self.pool.breakers) == len(self.pool.states)


def test_all_that_may_come_up_did() -> None:
    SEEN.clear()
    run_state_machine_as_test(PoolMachine, settings=TestPool.settings)  # type: ignore[no-untyped-call]
    expected = {reason.name for reason in RefusedReason} - {"UNHEALTHY", "SERVICE_CIRCUIT_OPEN"}
    expected |= {"a panic", "an ejection", "one tried again", "a permit taken"}
    assert expected - {what for what, times in SEEN.items() if times} == set()


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
