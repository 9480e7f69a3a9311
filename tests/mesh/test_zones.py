"""Staying near, taking some of very many, and starting slowly."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from fleets import DEGRADED, HEALTHY, STARTING, UNHEALTHY, Fleet, endpoint, picks, runtime

from osdisco import ConfigError
from osdisco.mesh import (
    EndpointState,
    LeastRequestLoadBalancer,
    PoolSettings,
    RoundRobinLoadBalancer,
    SlowStart,
    Subsetting,
    ZoneAwareLoadBalancer,
)


def zoned(near: int, far: int, ill: int = 0, **options: Any) -> Fleet:
    """A fleet in two zones, of which so many of the near ones are ill; this process is in zone a."""
    fleet = Fleet(balancer=ZoneAwareLoadBalancer("a", **options), settings=PoolSettings(panic=0))
    fleet.set(*(endpoint(number, zone="a", status=UNHEALTHY if number < ill else HEALTHY) for number in range(near)))
    fleet.set(*(endpoint(100 + number, zone="b") for number in range(far)))
    return fleet


def stay(fleet: Fleet, times: int = 4000) -> float:
    return sum(fleet.pick().endpoint.zone == "a" for _ in range(times)) / times


@pytest.mark.parametrize(("ill", "share"), [(0, 1), (2, 1), (3, 0.98), (5, 0.7), (9, 0.14), (10, 0)])
def test_calls_stay_while_71_per_cent_of_the_zone_are_fit_and_then_in_proportion(ill: int, share: float) -> None:
    assert stay(zoned(10, 10, ill)) == pytest.approx(share, abs=0.025)


def test_without_another_zone_all_stay_and_without_the_own_one_all_go() -> None:
    assert stay(zoned(10, 0, 9)) == 1
    assert stay(zoned(0, 3)) == 0


def test_of_a_subset_of_very_many_those_near_are_as_fit_as_all_near_are() -> None:
    fleet = Fleet(balancer=ZoneAwareLoadBalancer("a"), settings=PoolSettings(subsetting=Subsetting()))
    fleet.set(*(endpoint(number, zone="abc"[number % 3]) for number in range(300)))
    assert stay(fleet) == 1
    near = range(0, 300, 3)
    fleet.set(*(endpoint(number, zone="a", status=UNHEALTHY) for number in near[:90]))
    assert stay(fleet) < 0.5


def test_in_a_panic_all_zones_bear_the_calls_and_not_the_dead_own_one() -> None:
    fleet = zoned(10, 10, 10)
    assert stay(fleet) == 0
    fleet = Fleet(balancer=ZoneAwareLoadBalancer("a"))
    fleet.set(*(endpoint(number, zone="a", status=UNHEALTHY) for number in range(10)))
    fleet.set(*(endpoint(10 + number, zone="b", status=HEALTHY if number else UNHEALTHY) for number in range(10)))
    assert stay(fleet) == pytest.approx(0.5, abs=0.05)
    assert fleet.pool.panicking
    assert stay_of(fleet, tried={"e0"}) == pytest.approx(9 / 19, abs=0.05)


def stay_of(fleet: Fleet, times: int = 4000, **options: Any) -> float:
    return sum(fleet.pick(**options).endpoint.zone == "a" for _ in range(times)) / times


def test_those_near_and_those_far_take_turns_of_their_own() -> None:
    fleet = zoned(2, 2, 1, inner=RoundRobinLoadBalancer())
    far = [picked.id for _ in range(400) if (picked := fleet.pick()).endpoint.zone == "b"]
    assert all(one != other for one, other in pairwise(far))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("",), "zone is"),
        ((None,), "zone is"),
        (("a", None, 0.5), "1 or more"),
        (("a", None, "2"), "1 or more"),
        (("a", 5), "inner is LoadBalancer, or None, not 5"),
        (("a", RoundRobinLoadBalancer), "inner is LoadBalancer, or None"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple[Any, ...], why: str) -> None:
    options = dict(zip(("zone", "inner", "overprovisioning"), arguments, strict=False))
    with pytest.raises(ConfigError, match=why):
        ZoneAwareLoadBalancer(**options)


# Subsetting


def chosen(size: int, seed: int, **options: Any) -> set[str]:
    fleet = Fleet(size, PoolSettings(subsetting=Subsetting(**options)), seed=seed)
    return fleet.picked(2000)


def test_of_more_than_100_a_client_calls_20_and_clients_call_others() -> None:
    assert len(chosen(100, 1)) == 100
    mine, yours = chosen(101, 1), chosen(101, 2)
    assert len(mine) == len(yours) == 20
    assert mine != yours


def test_a_client_does_not_call_all_because_one_of_them_is_ill() -> None:
    fleet = Fleet(101, PoolSettings(subsetting=Subsetting()))
    fleet.set(*(endpoint(number, status=UNHEALTHY) for number in range(40)))
    assert len(fleet.picked(2000)) == 20


def test_all_are_called_by_some_about_equally_often() -> None:
    ours = [EndpointState(endpoint(number)) for number in range(200)]
    called = Counter(state.id for client in range(400) for state in Subsetting().chosen(ours, f"client-{client}"))
    assert len(called) == 200
    assert max(called.values()) < 2 * 40
    assert min(called.values()) > 40 / 2


def test_when_one_of_them_is_ill_one_other_takes_its_place() -> None:
    fleet = Fleet(300, PoolSettings(subsetting=Subsetting()))
    before = fleet.picked(2000)
    gone = min(before)
    fleet.set(endpoint(int(gone[1:]), status=UNHEALTHY))
    after = fleet.picked(2000)
    assert (before - after, len(after - before)) == ({gone}, 1)


# Slow start


def test_who_has_become_healthy_gets_its_share_bit_by_bit() -> None:
    fleet = Fleet(9, PoolSettings(slow_start=SlowStart(window=30)))
    fleet.time.at += 100
    fleet.set(endpoint(9))
    shares = []
    for _ in range(7):
        counts = Counter(fleet.pick().id for _ in range(6000))
        shares.append(counts["e9"] / 600)
        fleet.time.at += 6
    assert shares == pytest.approx([0.11, 0.22, 0.43, 0.64, 0.81, 1.0, 1.0], abs=0.12)


def test_aggression_grows_the_weight_faster_at_first() -> None:
    state = EndpointState(endpoint(1), 0.0)
    assert not SlowStart(window=10, aggression=2).warm(state, 2.5)
    assert state.weight == pytest.approx(50)
    assert SlowStart(window=10).warm(state, 10.0)
    assert state.weight == 100


def test_it_begins_when_an_endpoint_becomes_healthy_and_not_with_other_changes() -> None:
    fleet = Fleet(0, PoolSettings(slow_start=SlowStart()))
    fleet.set(endpoint(1, status=STARTING))
    fleet.time.at += 50
    fleet.set(endpoint(1))
    assert fleet.pick().weight == pytest.approx(10)
    fleet.time.at += 50
    fleet.set(endpoint(1, metadata={"a": "b"}, weight=60))
    assert fleet.pick().weight == 60
    fleet.set(endpoint(1, status=DEGRADED))
    fleet.set(endpoint(1))
    assert fleet.pick().weight == pytest.approx(10)


@pytest.mark.parametrize("options", [{"window": 0}, {"aggression": 0}, {"minimum": 0}, {"minimum": 1.5}])
def test_a_slow_start_that_cannot_be_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        SlowStart(**options)


@pytest.mark.parametrize("options", [{"size": 0}, {"above": -1}])
def test_a_subset_that_cannot_be_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Subsetting(**options)


def test_the_inner_balancer_is_least_request() -> None:
    balancer = ZoneAwareLoadBalancer("a", runtime=runtime())
    assert isinstance(balancer.inner, LeastRequestLoadBalancer)
    assert picks(balancer, [EndpointState(endpoint(1, zone="a")), EndpointState(endpoint(2))], 50) == {"e1": 50}
