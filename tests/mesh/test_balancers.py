"""What balancers pick, counted with seeds: shares by weight, fairness, and what cannot be picked from."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from fleets import Fleet, Time, endpoint, picks, runtime, states

from osdisco import ConfigError, NoHealthyEndpointsError
from osdisco.mesh import (
    EndpointState,
    LeastRequestLoadBalancer,
    LoadBalancer,
    PeakEwmaLoadBalancer,
    PoolSettings,
    RandomLoadBalancer,
    RefusedReason,
    RendezvousLoadBalancer,
    RoundRobinLoadBalancer,
    WeightedRoundRobinLoadBalancer,
    ZoneAwareLoadBalancer,
)
from osdisco.mesh._state import Candidates, Outcome, seed_of
from osdisco.mesh.balancers import two_drawn
from osdisco.mesh.limits import ConcurrencyLimit
from osdisco.mesh.rendezvous import mixed
from osdisco.registry import ServiceEndpoint

KINDS: list[Callable[[], LoadBalancer]] = [
    lambda: RoundRobinLoadBalancer(runtime()),
    lambda: RandomLoadBalancer(runtime()),
    lambda: WeightedRoundRobinLoadBalancer(runtime()),
    lambda: LeastRequestLoadBalancer(runtime()),
    lambda: PeakEwmaLoadBalancer(runtime()),
    lambda: RendezvousLoadBalancer(runtime=runtime()),
    lambda: RendezvousLoadBalancer(1.25, runtime=runtime()),
    lambda: ZoneAwareLoadBalancer("a", runtime=runtime()),
]
every = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: repr(kind()))
but_round_robin = pytest.mark.parametrize("kind", KINDS[1:], ids=lambda kind: repr(kind()))


def near(counts: Counter[str], weights: Sequence[int], times: int) -> bool:
    """Whether each was picked as often as its weight says: within four standard deviations, by these seeds for ever."""
    shares = [weight / sum(weights) for weight in weights]
    return all(
        abs(counts[f"e{number}"] - share * times) <= 4 * (share * (1 - share) * times) ** 0.5
        for number, share in enumerate(shares)
    )


@every
def test_all_get_their_share_when_weights_are_equal(kind: Callable[[], LoadBalancer]) -> None:
    counts = picks(kind(), states([100] * 7), 7000)
    assert near(counts, [1] * 7, 7000)


@but_round_robin
def test_while_nothing_is_under_way_each_gets_what_its_weight_says(kind: Callable[[], LoadBalancer]) -> None:
    weights = [1, 50, 100, 65_535 // 200, 100]
    assert near(picks(kind(), states(weights), 20_000), weights, 20_000)


@every
def test_of_one_it_is_that_one(kind: Callable[[], LoadBalancer]) -> None:
    assert picks(kind(), states([7]), 10) == {"e0": 10}
    assert kind().select([endpoint(3)]) == endpoint(3)


@every
def test_of_none_there_is_none_to_pick(kind: Callable[[], LoadBalancer]) -> None:
    for attempt in (lambda: kind().select([]), lambda: kind().pick([])):
        with pytest.raises(NoHealthyEndpointsError) as caught:
            attempt()
        assert caught.value.reason.reason is RefusedReason.NO_ENDPOINTS  # type: ignore[attr-defined]  # a Refused


@every
def test_what_has_the_weight_0_is_not_selected(kind: Callable[[], LoadBalancer]) -> None:
    chosen = {kind().select([endpoint(0, weight=0), endpoint(1)]).extension_id for _ in range(20)}
    assert chosen == {"e1"}
    with pytest.raises(NoHealthyEndpointsError, match="weight 0"):
        kind().select((endpoint(0, weight=0),))


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
@but_round_robin
def test_weights_that_cannot_be_are_refused(kind: Callable[[], LoadBalancer], weight: float) -> None:
    for wrong in (states([1, 1]), states([5])):
        wrong[0].weight = weight
        with pytest.raises(ConfigError, match="the weight of 'e0' is"):
            kind().pick(wrong)


@every
def test_fresh_ones_are_alike_and_know_nothing_of_each_other(kind: Callable[[], LoadBalancer]) -> None:
    given = kind()
    fresh = given.fresh(runtime(2))
    assert fresh is not given
    assert repr(fresh) == repr(given)
    assert vars(fresh).keys() == vars(given).keys()


@every
def test_the_same_seed_picks_the_same(kind: Callable[[], LoadBalancer]) -> None:
    ours = states([3, 5, 8, 13])
    assert [kind().pick(ours).id for _ in range(3)] == [kind().pick(ours).id for _ in range(3)]


def test_select_follows_what_is_given() -> None:
    balancer = RoundRobinLoadBalancer(runtime())
    for numbers in (range(3), range(5, 9)):
        given = tuple(endpoint(number) for number in numbers)
        assert {balancer.select(given).extension_id for _ in given} == {one.extension_id for one in given}
    changing = [endpoint(1)]
    balancer.select(changing)
    changing[0] = endpoint(2)
    assert balancer.select(changing) == endpoint(2)


# Round robin


def test_round_robin_takes_turns_from_a_random_one_on() -> None:
    ours = states([100, 1, 50])
    balancer = RoundRobinLoadBalancer(runtime())
    turns = [balancer.pick(ours).id for _ in range(9)]
    assert sorted(turns[:3]) == ["e0", "e1", "e2"]
    assert turns == turns[:3] * 3
    firsts = Counter(RoundRobinLoadBalancer(runtime(seed)).pick(ours).id for seed in range(300))
    assert near(firsts, [1, 1, 1], 300)


@pytest.mark.parametrize("full", [False, True])
def test_who_takes_the_place_of_one_that_is_out_takes_turns_too(full: bool) -> None:
    fleet = Fleet(3, PoolSettings(concurrency=1), balancer=RoundRobinLoadBalancer(runtime()))
    if full:
        fleet.pool.begin(fleet.state(0))
    counts: Counter[str] = Counter()
    for _ in range(600):
        picked = fleet.pick()
        counts[fleet.pick(tried={"e0"}).id if picked.id == "e0" else picked.id] += 1
    assert counts == {"e1": 300, "e2": 300}


def test_turns_of_ever_other_numbers_are_not_kept_for_ever() -> None:
    balancer = RoundRobinLoadBalancer(runtime())
    for number in range(1, 300):
        balancer.pick(states([100] * number))
    assert len(balancer._turns) <= 64


def test_smooth_turns_are_those_of_nginx() -> None:
    balancer = WeightedRoundRobinLoadBalancer(runtime())
    names = {"e0": "a", "e1": "b", "e2": "c"}
    ours = states([5, 1, 1])
    assert "".join(names[balancer.pick(ours).id] for _ in range(14)) == "aabacaa" * 2


def test_smooth_turns_go_on_when_somebody_comes_or_goes() -> None:
    balancer = WeightedRoundRobinLoadBalancer(runtime())
    ours = states([2, 1, 1])
    for there, share in ((ours, 1 / 2), (ours[:2], 2 / 3), (ours, 1 / 2)):
        assert picks(balancer, there, 1200)["e0"] == pytest.approx(1200 * share, abs=1)
    for number in range(100):
        balancer.pick([EndpointState(endpoint(number))])
    assert len(balancer._gained) <= 2


# Two choices


@pytest.mark.parametrize("weights", [[100] * 5, [1, 2, 3, 4, 5], [1, 1000], [7, 7]])
def test_two_different_ones_are_drawn_and_the_first_by_weight(weights: list[int]) -> None:
    ours = Candidates(states(weights))
    draw = random.Random(3).random
    pairs = [two_drawn(ours, draw) for _ in range(20_000)]
    assert all(one is not other for one, other in pairs)
    assert near(Counter(one.id for one, _ in pairs), weights, 20_000)
    seconds = Counter(other.id for one, other in pairs if one is ours[0])
    rest = [0, *weights[1:]]
    assert near(seconds, rest, sum(seconds.values()))


@pytest.mark.parametrize("number", [0.0, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("weights", [[1] * 3, [3, 1, 2], [0.1, 0.7], [1e-9, 1e9, 1]])
def test_no_number_draws_what_is_not_there(weights: list[float], number: float) -> None:
    ours = states([1] * len(weights))
    for state, weight in zip(ours, weights, strict=True):
        state.weight = weight
    assert set(two_drawn(Candidates(ours), lambda: number)) <= set(ours)


def begin(state: EndpointState, times: int = 1) -> None:
    for _ in range(times):
        ConcurrencyLimit().begin(state)


def test_of_two_the_less_loaded_is_picked_by_weight() -> None:
    one, other = ours = states([100, 300])
    balancer = LeastRequestLoadBalancer(runtime())
    begin(one, 2)
    begin(other, 5)
    assert picks(balancer, ours, 100) == {"e1": 100}
    begin(other, 2)
    assert picks(balancer, ours, 100) == {"e0": 100}


def test_calls_spread_evenly_over_many_and_by_weight() -> None:
    for weights in ([100] * 20, [50, 100] * 10):
        ours = Candidates(states(weights))
        balancer = LeastRequestLoadBalancer(runtime())
        for _ in range(10 * sum(weights) // 100):
            begin(balancer.pick(ours))
        loads = [state.in_flight / state.weight * 100 for state in ours]
        assert max(loads) - min(loads) <= 8  # at random it were about 12


def test_who_answers_slowly_gets_fewer_calls() -> None:
    time = Time()
    ours = states([100] * 10)
    balancer = PeakEwmaLoadBalancer(runtime(time=time))
    for state in ours:
        state.observe(2.0 if state.id == "e0" else 0.1, time.at, whole=True)
    assert picks(balancer, ours, 1000)["e0"] == 0
    time.at += 60
    assert ours[0].cost(time.at) < 0.1, "it is tried again after a while"


def test_who_never_answered_is_asked_once() -> None:
    ours = states([100, 100])
    balancer = PeakEwmaLoadBalancer(runtime())
    ours[0].observe(5.0, 1000.0, whole=True)
    assert balancer.pick(ours).id == "e1"
    ours[1].in_flight = 1
    assert picks(balancer, ours, 50) == {"e0": 50}


def test_peaks_count_at_once_and_fade_slowly_and_failures_do_not_look_fast() -> None:
    (state,) = states([1])
    state.observe(1.0, 0.0, whole=True)
    state.observe(3.0, 1.0, whole=True)
    assert state.ewma == 3.0
    state.observe(0.001, 2.0, whole=False)
    assert state.ewma == 3.0
    state.observe(1.0, 11.0, whole=True)
    assert state.ewma == pytest.approx(3.0 * 0.3679 + 1.0 * 0.6321, abs=1e-3)
    state.observe(9.0, 12.0, whole=False)
    assert state.ewma == 9.0


# Rendezvous


KEYS = [f"user-{number}" for number in range(3000)]


def homes(balancer: LoadBalancer, ours: Sequence[EndpointState]) -> dict[str, str]:
    return {key: balancer.pick(ours, key).id for key in KEYS}


def test_a_key_stays_where_it_is_whoever_else_comes_or_goes() -> None:
    balancer, ours = RendezvousLoadBalancer(runtime=runtime()), states([100] * 10)
    before = homes(balancer, ours)
    without = homes(RendezvousLoadBalancer(runtime=runtime(9)), ours[:-1])
    assert {key for key in KEYS if before[key] != without[key]} == {key for key in KEYS if before[key] == "e9"}
    assert homes(balancer, list(reversed(ours))) == before


def test_keys_are_shared_out_by_weight() -> None:
    weights = [100, 50, 200, 100, 1]
    counts = Counter(homes(RendezvousLoadBalancer(runtime=runtime()), states(weights)).values())
    assert near(counts, weights, len(KEYS))


def test_a_key_is_at_the_same_place_in_every_process_for_ever() -> None:
    """Fails when the hash changes, by which clients of different versions would disagree."""
    assert seed_of("user-1") == 11145382709976293768
    ours = states([100] * 8)
    balancer = RendezvousLoadBalancer(runtime=runtime())
    assert [balancer.pick(ours, key).id for key in ("user-1", "user-2", "", "\ud800")] == ["e6", "e1", "e2", "e7"]


@pytest.mark.parametrize("bits", [0, 2**64 - 1])
def test_no_key_and_endpoint_are_what_cannot_be_reckoned(bits: int) -> None:
    ours = states([100] * 3)
    before = bits  # what becomes these bits: the finalizer backwards
    for factor in (0xC4CEB9FE1A85EC53, 0xFF51AFD7ED558CCD):
        before ^= before >> 33
        before = before * pow(factor, -1, 2**64) % 2**64
    ours[1]._seed = seed_of("user-7") ^ before ^ before >> 33
    assert mixed(seed_of("user-7"), ours[1].seed) == bits
    assert (RendezvousLoadBalancer(runtime=runtime()).pick(ours, "user-7") is ours[1]) is (bits > 0)


def test_with_a_bound_who_is_full_passes_keys_on_in_the_same_order() -> None:
    ours = states([100] * 5)
    free, bound = RendezvousLoadBalancer(runtime=runtime()), RendezvousLoadBalancer(1.25, runtime=runtime())
    home = free.pick(ours, "user-7")
    assert bound.pick(ours, "user-7") is home
    home.in_flight = 10
    following = free.pick([state for state in ours if state is not home], "user-7")
    assert free.pick(ours, "user-7") is home
    assert bound.pick(ours, "user-7") is following


def test_with_a_bound_nobody_has_more_than_his_share_of_that() -> None:
    ours = states([100, 100, 200, 400])
    bound = RendezvousLoadBalancer(1.25, runtime=runtime())
    for _ in range(400):
        bound.pick(ours, "the same").in_flight += 1
    assert all(state.in_flight <= 1.25 * 400 * state.weight / 800 + 1 for state in ours)


@pytest.mark.parametrize("bound", [0.9, float("inf"), float("nan"), "2", True])
def test_a_bound_that_cannot_be_is_refused(bound: float) -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        RendezvousLoadBalancer(bound)


# One's own


class Last(LoadBalancer):
    """As the specification has it: `select` alone."""

    def select(self, endpoints: Sequence[ServiceEndpoint]) -> ServiceEndpoint:
        return endpoints[-1]


class Foreign(LoadBalancer):
    def select(self, endpoints: Sequence[ServiceEndpoint]) -> ServiceEndpoint:
        return endpoint(99)


def test_a_balancer_of_ones_own_needs_select_alone() -> None:
    ours = states()
    assert Last().pick(ours, "key") is ours[-1]
    assert (last := Last()).fresh(runtime()) is last
    with pytest.raises(ConfigError, match=r"Foreign.select returned .*e99.*none of what it was given"):
        Foreign().pick(ours)


def test_outcomes_have_names() -> None:
    assert {outcome.value for outcome in Outcome} == {"ok", "failed", "timeout", "unsent", "rejected", "cancelled"}
