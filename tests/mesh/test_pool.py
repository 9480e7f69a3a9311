"""Who is picked for an attempt, and why nobody is: tiers, panic, ejection, breakers, limits, and who was tried."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from fleets import DEGRADED, HEALTHY, STARTING, STOPPING, UNHEALTHY, Fleet, Named, Time, endpoint, runtime

from osdisco import ConfigError
from osdisco.discovery import ExtensionStatus
from osdisco.mesh import (
    BreakerSettings,
    BreakerState,
    CircuitBreakerRegistry,
    EjectionReason,
    EndpointEjected,
    EndpointReturned,
    LeastRequestLoadBalancer,
    LoadBalancer,
    Outcome,
    PanicBegan,
    PanicOver,
    Pool,
    PoolSettings,
    RandomLoadBalancer,
    Refused,
    RefusedReason,
    RendezvousLoadBalancer,
    RoundRobinLoadBalancer,
)

OK, FAILED, TIMEOUT, UNSENT = Outcome.OK, Outcome.FAILED, Outcome.TIMEOUT, Outcome.UNSENT
CALM = PoolSettings(panic=0, outliers=None)


def of(*statuses: ExtensionStatus, settings: PoolSettings | None = None) -> Fleet:
    """A fleet of which each is as said."""
    fleet = Fleet(settings=settings)
    fleet.set(*(endpoint(number, status=status) for number, status in enumerate(statuses)))
    return fleet


# Tiers


def test_the_degraded_are_picked_only_when_no_healthy_one_is_left() -> None:
    fleet = of(HEALTHY, DEGRADED, DEGRADED, HEALTHY)
    assert fleet.picked() == {"e0", "e3"}
    fleet.remove("e0", "e3")
    assert fleet.picked() == {"e1", "e2"}


def test_who_starts_or_stops_or_has_no_weight_is_never_picked_not_even_in_a_panic() -> None:
    fleet = of(STARTING, STOPPING, UNHEALTHY)
    fleet.set(endpoint(3, weight=0))
    assert fleet.picked() == {"e2"}
    assert fleet.pool.panicking
    fleet.remove("e2")
    assert fleet.refused() == Refused(RefusedReason.NOT_SERVING, 3, 3)


def test_who_is_unhealthy_is_picked_only_when_less_than_half_are_fit() -> None:
    fleet = of(HEALTHY, UNHEALTHY)
    assert fleet.picked() == {"e0"}
    fleet.set(endpoint(2, status=UNHEALTHY))
    assert fleet.picked() == {"e0", "e1", "e2"}
    fleet.set(endpoint(2, status=DEGRADED))
    assert fleet.picked() == {"e0"}


@pytest.mark.parametrize(("panic", "fit", "size"), [(0.55, 55, 100), (0.07, 7, 100), (0.5, 1, 2), (0.29, 29, 100)])
def test_with_exactly_the_share_that_must_be_fit_there_is_no_panic(panic: float, fit: int, size: int) -> None:
    fleet = of(*[HEALTHY] * fit, *[UNHEALTHY] * (size - fit), settings=PoolSettings(panic=panic))
    fleet.pick()
    assert not fleet.pool.panicking
    fleet.set(endpoint(0, status=UNHEALTHY))
    fleet.pick()
    assert fleet.pool.panicking


def test_without_a_panic_threshold_nobody_is_left_instead() -> None:
    refused = of(UNHEALTHY, UNHEALTHY, settings=CALM).refused()
    assert refused == Refused(RefusedReason.UNHEALTHY, 2, 2, 2)
    assert "unhealthy or ejected" in str(refused)


def test_a_panic_is_told_once_when_it_begins_and_when_it_is_over() -> None:
    fleet = of(HEALTHY, UNHEALTHY, UNHEALTHY)
    told: list[object] = []
    fleet.pool.add_listener(told.append)
    fleet.picked()
    fleet.set(endpoint(3, status=UNHEALTHY))
    fleet.picked()
    fleet.set(endpoint(1), endpoint(2))
    fleet.picked()
    assert told == [PanicBegan("geo", None, 3), PanicOver("geo", None)]


def test_the_panic_of_a_subset_that_nobody_is_picked_of_any_more_is_over() -> None:
    fleet = Fleet()
    fleet.set(*(endpoint(number, version="1") for number in range(4)), endpoint(4, version="2", status=UNHEALTHY))
    told: list[object] = []
    fleet.pool.add_listener(told.append)
    fleet.pick(subset=Named("2"))
    for settled in (True, False):
        for _ in range(30):
            fleet.time.at += 5
            fleet.pick(subset=Named("1"))
            assert settled is False or fleet.pick(subset=Named("2"))
        assert fleet.pool.panicking is settled
    assert told == [PanicBegan("geo", "2", 1), PanicOver("geo", "2")]


def test_a_panic_in_which_nobody_calls_any_more_does_not_show_for_ever() -> None:
    fleet = of(UNHEALTHY, UNHEALTHY)
    fleet.pick()
    fleet.time.at += 29
    assert fleet.pool.panicking
    fleet.time.at += 1
    assert not fleet.pool.panicking


def test_a_panic_lasts_while_it_is_picked_in_whatever_else_is_off() -> None:
    fleet = of(UNHEALTHY, UNHEALTHY, settings=PoolSettings(outliers=None))
    told: list[object] = []
    fleet.pool.add_listener(told.append)
    for _ in range(100):
        fleet.time.at += 5
        fleet.pick()
    assert (told, fleet.pool.panicking) == ([PanicBegan("geo", None, 2)], True)


def test_a_listener_may_bring_the_pool_up_to_date() -> None:
    fleet = of(HEALTHY, UNHEALTHY, UNHEALTHY)
    fleet.set(endpoint(3, status=UNHEALTHY))
    fleet.pool.add_listener(lambda _: fleet.remove("e1", "e2", "e3") if "e3" in fleet.endpoints else None)
    fleet.pick()
    assert fleet.picked() == {"e0"}


# Subsets


def test_of_a_subset_only_its_own_are_picked_and_it_has_a_panic_of_its_own() -> None:
    fleet = Fleet()
    fleet.set(*(endpoint(number, version="1") for number in range(8)))
    fleet.set(endpoint(8, version="2"), endpoint(9, version="2", status=UNHEALTHY), endpoint(10, version="3"))
    assert fleet.picked(subset=Named("2")) == {"e8"}
    assert fleet.picked(subset=Named("3")) == {"e10"}
    fleet.set(endpoint(8, version="2", status=UNHEALTHY))
    assert fleet.picked(subset=Named("2")) == {"e8", "e9"}
    assert fleet.picked() == {*(f"e{number}" for number in range(8)), "e10"}


def test_an_empty_subset_is_refused_and_never_spreads() -> None:
    refused = Fleet(3).refused(subset=Named("7"))
    assert refused == Refused(RefusedReason.NO_MATCH, 3, subset="7")
    assert "none is of the subset 7" in str(refused)
    assert Fleet().refused() == Refused(RefusedReason.NO_ENDPOINTS)


@pytest.mark.parametrize("pattern", [RoundRobinLoadBalancer(), RoundRobinLoadBalancer(runtime())])
def test_turns_of_one_subset_do_not_skip_those_of_another(pattern: RoundRobinLoadBalancer) -> None:
    fleet = Fleet(balancer=RandomLoadBalancer(runtime()))
    fleet.set(*(endpoint(number, version=str(number % 2)) for number in range(4)))
    counts: Counter[str] = Counter()
    for turn in range(400):
        counts[fleet.pick(subset=Named(str(turn % 2)), balancer=pattern).id] += 1
    assert counts == {f"e{number}": 100 for number in range(4)}


def test_very_many_subsets_are_served_as_well() -> None:
    fleet = Fleet()
    fleet.set(*(endpoint(number, version=str(number)) for number in range(200)))
    for _ in range(2):
        assert all(fleet.picked(1, subset=Named(str(number))) == {f"e{number}"} for number in range(200))
    assert len(fleet.pool._turns) <= 64


# Ejection


def test_who_fails_five_times_in_a_row_is_not_picked_for_30_seconds() -> None:
    fleet = Fleet(4)
    told: list[object] = []
    fleet.pool.add_listener(told.append)
    fleet.call(0, FAILED, times=4)
    assert "e0" in fleet.picked()
    fleet.call(0, TIMEOUT)
    assert fleet.picked() == {"e1", "e2", "e3"}
    fleet.time.at += 30
    assert fleet.picked() == {"e0", "e1", "e2", "e3"}
    assert told == [
        EndpointEjected("geo", "e0", EjectionReason.CONSECUTIVE_FAILURES, 30.0),
        EndpointReturned("geo", "e0"),
    ]


def test_the_only_endpoint_is_picked_although_it_is_ejected() -> None:
    fleet = Fleet(1)
    fleet.call(0, UNSENT, times=5)
    assert fleet.state(0).ejected_until is not None
    assert fleet.picked() == {"e0"}
    assert fleet.pool.panicking


@pytest.mark.parametrize(("old", "new"), [(STOPPING, HEALTHY), (HEALTHY, STARTING), (STOPPING, DEGRADED)])
def test_who_starts_anew_is_another_process(old: ExtensionStatus, new: ExtensionStatus) -> None:
    fleet = Fleet(3)
    fleet.set(endpoint(0, status=old))
    fleet.call(0, UNSENT, times=10)
    assert fleet.state(0).ejected_until is not None
    fleet.set(endpoint(0, status=new))
    assert (fleet.state(0).ejected_until, fleet.state(0).consecutive) == (None, 0)
    assert fleet.pool.breakers.breaker("geo", "e0").state is BreakerState.CLOSED


@pytest.mark.parametrize(("old", "new"), [(HEALTHY, STOPPING), (STARTING, HEALTHY), (HEALTHY, UNHEALTHY)])
def test_who_changes_otherwise_is_the_same_process(old: ExtensionStatus, new: ExtensionStatus) -> None:
    fleet = of(old, HEALTHY)
    before = fleet.state(0)
    fleet.set(endpoint(0, status=new))
    assert fleet.state(0) is before


def test_who_is_overloaded_far_more_often_than_the_others_is_ejected_in_time() -> None:
    fleet = Fleet(6)
    for number in range(6):
        fleet.call(number, OK if number else Outcome.REJECTED, times=100)
    assert "e0" in fleet.picked()
    fleet.time.at += 10
    assert fleet.picked() == {f"e{number}" for number in range(1, 6)}


def test_when_all_are_overloaded_nobody_is_ejected() -> None:
    fleet = Fleet(6)
    for number in range(6):
        fleet.call(number, Outcome.REJECTED, times=100)
    fleet.time.at += 10
    assert fleet.picked() == {f"e{number}" for number in range(6)}


@pytest.mark.parametrize("outcome", [Outcome.REJECTED, Outcome.CANCELLED])
def test_who_is_only_overloaded_or_given_up_is_not_held_to_have_failed(outcome: Outcome) -> None:
    fleet = Fleet(4)
    fleet.call(0, outcome, times=100)
    assert fleet.picked() == {"e0", "e1", "e2", "e3"}
    assert fleet.state(0).outcomes == {outcome: 100}


# Circuit breakers


def opened(size: int, *numbers: int, settings: PoolSettings = CALM) -> Fleet:
    """A fleet in which the breakers of some have just opened."""
    fleet = Fleet(size, settings, balancer=RandomLoadBalancer())
    for number in numbers:
        fleet.call(number, FAILED, times=10)
        assert fleet.pool.breakers.breaker("geo", f"e{number}").state is BreakerState.OPEN
    return fleet


def test_who_has_an_open_circuit_is_not_picked_and_then_tried_by_three_calls() -> None:
    fleet = opened(3, 0)
    assert fleet.picked() == {"e1", "e2"}
    fleet.time.at += 10
    assert fleet.picked() == {"e0", "e1", "e2"}
    for _ in range(3):
        assert "e0" in fleet.picked()
        fleet.pool.begin(fleet.state(0))
    assert fleet.picked() == {"e1", "e2"}
    for _ in range(3):
        fleet.pool.end(fleet.state(0), OK, 0.0)
    assert fleet.picked() == {"e0", "e1", "e2"}


def test_when_all_circuits_are_open_nobody_is_picked_not_even_in_a_panic() -> None:
    for settings, numbers in ((CALM, (0, 1)), (PoolSettings(), (0,))):
        fleet = opened(len(numbers), *numbers, settings=settings)
        fleet.time.at += 2
        refused = fleet.refused()
        assert fleet.pool.panicking is (settings is not CALM)
        assert (refused.reason, refused.retry_after) == (RefusedReason.CIRCUIT_OPEN, 8.0)
        assert "tried again in 8.0 s" in str(refused)
        fleet.time.at += 3
        assert fleet.refused().retry_after == 5.0
        fleet.time.at += 5
        assert fleet.pick().id in {"e0", "e1"}


def test_a_permit_that_was_given_up_can_be_taken_again() -> None:
    fleet = opened(1, 0)
    fleet.time.at += 10
    for _ in range(3):
        fleet.pool.begin(fleet.pick())
    refused = fleet.refused()
    assert (refused.reason, refused.retry_after) == (RefusedReason.CIRCUIT_OPEN, None)
    assert "when a call under way ends" in str(refused)
    fleet.pool.end(fleet.state(0), Outcome.CANCELLED, 0.0)
    assert fleet.pick().id == "e0"


def test_a_breaker_that_somebody_else_drives_counts_at_once() -> None:
    breakers = CircuitBreakerRegistry(BreakerSettings(minimum=1), clock=(time := Time()))
    pool = Pool("geo", runtime(1, time), CALM, breakers=breakers)
    pool.update([endpoint(0), endpoint(1)])
    pool.pick()
    breakers.breaker("geo", "e0").record(True, 0.0)
    assert {getattr(pool.pick(), "id", None) for _ in range(50)} == {"e1"}


def test_a_closed_pool_leaves_the_registry() -> None:
    breakers = CircuitBreakerRegistry(clock=(time := Time()))
    pool = Pool("geo", runtime(1, time), breakers=breakers)
    pool.update([endpoint(0)])
    assert len(breakers) == 1
    pool.close()
    assert len(breakers) == 0
    assert not breakers._listeners._listeners


# Limits


def test_who_has_a_hundred_calls_under_way_gets_no_more() -> None:
    fleet = Fleet(2, PoolSettings(concurrency=100))
    for _ in range(100):
        fleet.pool.begin(fleet.state(0))
    for _ in range(100):
        picked = fleet.pick()
        assert picked.id == "e1"
        fleet.pool.begin(picked)
    refused = fleet.refused()
    assert refused == Refused(RefusedReason.OVERLOADED, 2, 2, 2, 2, 2)
    assert "have `concurrency` calls under way" in str(refused)
    fleet.pool.end(fleet.state(0), OK, 1.0)
    assert fleet.pick().id == "e0"


def test_the_degraded_take_what_the_healthy_have_no_place_for() -> None:
    fleet = of(HEALTHY, DEGRADED, settings=PoolSettings(concurrency=1))
    fleet.pool.begin(fleet.pick())
    assert fleet.picked() == {"e1"}


def test_without_a_limit_there_is_none() -> None:
    fleet = Fleet(1, PoolSettings(concurrency=None))
    for _ in range(2000):
        fleet.pool.begin(fleet.pick())
    assert fleet.state(0).in_flight == 2000


def test_an_end_without_a_begin_is_a_mistake() -> None:
    fleet = Fleet(1)
    with pytest.raises(AssertionError, match="never began"):
        fleet.pool.end(fleet.state(0), OK, 0.0)


# Who was tried


@pytest.mark.parametrize("balancer", [None, RoundRobinLoadBalancer(), RendezvousLoadBalancer()])
def test_who_was_tried_is_picked_again_only_when_all_were(balancer: Any) -> None:
    fleet = Fleet(3, balancer=balancer)
    fleet.set(endpoint(3, status=DEGRADED))
    tried: frozenset[str] = frozenset()
    for left in (3, 2, 1):
        picked = fleet.picked(tried=tried, key="user-7")
        assert len(picked) == left if not isinstance(balancer, RendezvousLoadBalancer) else len(picked) == 1
        assert picked <= {"e0", "e1", "e2"} - tried
        tried |= {min(picked)}
    assert fleet.picked(tried=tried) == {"e3"}
    assert fleet.pick(tried=tried | {"e3"}).id in {"e0", "e1", "e2"}


@pytest.mark.parametrize("balancer", [LeastRequestLoadBalancer(), RoundRobinLoadBalancer(), RendezvousLoadBalancer()])
def test_of_very_many_the_tried_and_the_full_are_left_out_as_well(balancer: LoadBalancer) -> None:
    fleet = Fleet(200, PoolSettings(concurrency=1), balancer=balancer)
    out = {f"e{number}" for number in range(0, 190, 2)}
    for number in range(1, 190, 2):
        fleet.pool.begin(fleet.state(number))
    picked = {fleet.pick(tried=out, key=f"user-{number}").id for number in range(500)}
    assert picked == {f"e{number}" for number in range(190, 200)}


def test_to_pick_another_of_very_many_does_not_look_at_all_of_them() -> None:
    fleet = Fleet(5000)
    looked: list[object] = []

    class Tried(frozenset[str]):
        def __contains__(self, id_: object) -> bool:
            looked.append(id_)
            return super().__contains__(id_)

    for _ in range(100):
        fleet.pick(tried=Tried({"e0"}))
    assert len(looked) < 300


# Changes


def test_what_was_seen_of_an_endpoint_stays_while_its_address_does() -> None:
    fleet = Fleet(2)
    fleet.call(0, FAILED, seconds=1.0, times=3)
    before = fleet.state(0)
    fleet.set(endpoint(0, weight=7, metadata={"a": "b"}))
    assert fleet.state(0) is before
    assert (before.weight, before.consecutive, before.ewma) == (7, 3, 1.0)
    fleet.set(endpoint(0, address="10.9.9.9:1"))
    assert fleet.state(0) is not before
    assert fleet.state(0).consecutive == 0


def test_who_is_gone_takes_its_ejection_and_its_circuit_along() -> None:
    fleet = opened(3, 0, settings=PoolSettings())
    assert fleet.state(0).ejected_until is not None
    fleet.remove("e0")
    assert len(fleet.pool.breakers) == 2
    fleet.call(1, FAILED, times=5)
    assert fleet.state(1).ejected_until is not None, "one may be ejected again"
    fleet.set(endpoint(0))
    assert fleet.picked() == {"e0", "e2"}


def test_a_call_that_ends_after_its_endpoint_went_is_counted_for_nobody() -> None:
    fleet = Fleet(2)
    before = fleet.state(0)
    for _ in range(5):
        fleet.pool.begin(before)
    fleet.set(endpoint(0, address="10.9.9.9:1"))
    for _ in range(5):
        fleet.pool.end(before, FAILED, 0.0)
    assert before.in_flight == 0
    assert (fleet.state(0).in_flight, fleet.state(0).consecutive) == (0, 0)
    assert fleet.picked() == {"e0", "e1"}


def test_the_same_endpoints_again_change_nothing() -> None:
    fleet = Fleet(3)
    fleet.picked()
    turns = dict(fleet.pool._turns)
    fleet.pool.update(fleet.endpoints.values())
    assert fleet.pool._turns == turns
    assert repr(fleet.pool) == "<Pool of 'geo': 3 endpoints>"
    assert repr(fleet.state(0)) == "<EndpointState of 'e0': 0 in flight, closed>"


def test_an_answer_is_measured_and_a_quick_refusal_is_not() -> None:
    fleet = Fleet(1)
    fleet.call(0, OK, seconds=0.2)
    fleet.call(0, Outcome.REJECTED, seconds=5.0)
    assert fleet.state(0).ewma == 0.2
    fleet.call(0, TIMEOUT, seconds=2.0)
    assert fleet.state(0).ewma == 2.0


def test_the_default_is_least_request() -> None:
    fleet = Fleet(2)
    assert isinstance(fleet.pool._balancer, LeastRequestLoadBalancer)
    for _ in range(100):
        fleet.pool.begin(fleet.pick())
    assert [fleet.state(number).in_flight for number in range(2)] == [50, 50]


BAD: list[tuple[Callable[[], PoolSettings], str]] = [
    (lambda: PoolSettings(panic=-0.1), "panic is a share from 0"),
    (lambda: PoolSettings(panic=50), "panic is a share from 0"),
    (lambda: PoolSettings(concurrency=0), "concurrency is a whole number from 1, or None"),
    (lambda: PoolSettings(outliers=False), "outliers is OutlierSettings, or None, not False"),  # type: ignore[arg-type]
    (lambda: PoolSettings(slow_start=True), "slow_start is SlowStart, or None, not True"),  # type: ignore[arg-type]
    (lambda: PoolSettings(subsetting=20), "subsetting is Subsetting, or None, not 20"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "why"), BAD)
def test_settings_that_cannot_be_are_refused_by_name(make: Callable[[], PoolSettings], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        make()
