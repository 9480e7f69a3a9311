"""The router: where calls go by match, weight and failover; that keys stay; and that it always ends."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, given, strategies as st
from traffic import SUBSETS, document, endpoint, router, rules, splits

from osdisco.discovery import ExtensionStatus
from osdisco.errors import RulesError
from osdisco.mesh import Router, ServiceRules, Subset, SubsetRule, Target
from osdisco.mesh.router import PLACES, place_of
from osdisco.runtime import Runtime

KEYS = [f"user-{number}" for number in range(100_000)]
PLACED = Counter(place_of("geo", key) for key in KEYS)


def goes(
    documents: dict[str, Any], service: str = "geo", method: str = "", key: str | None = "k", **metadata: str
) -> str:
    return str(router(documents).route(service, method, metadata, key).targets[0])


# Where calls go


def test_without_rules_calls_go_to_all_endpoints() -> None:
    route = router({}).route("geo", "search", {"a": "b"}, "key")
    assert (route.service, route.subset, route.targets, route.reason) == ("geo", None, (Target("geo"),), "no rules")


def test_all_goes_to_the_default_subset() -> None:
    route = router({"geo": document()}).route("geo")
    assert route.subset == Subset("v1", version=">=1,<2")


MATCHES = document(
    match=[
        {"metadata": {"X-User": "ann"}, "subset": "v2"},
        {"method": {"prefix": "get"}, "metadata": {"beta": {"present": True}}, "subset": "v2"},
        {"method": {"one_of": ["put", "post"]}, "service": "ingest"},
        {"metadata": {"old": {"exact": "yes", "invert": True}, "tier": {"suffix": "old"}}, "subset": "v2"},
        {"method": "gone", "metadata": {"a": {"present": False}}, "service": "attic"},
    ]
)


@pytest.mark.parametrize(
    ("method", "metadata", "there"),
    [
        ("search", {}, "geo/v1"),
        ("search", {"x-user": "ann"}, "geo/v2"),
        ("search", {"X-USER": "ann"}, "geo/v2"),
        ("search", {"X-User": "Ann"}, "geo/v1"),
        ("get_all", {"beta": ""}, "geo/v2"),
        ("get_all", {}, "geo/v1"),
        ("set_all", {"beta": "1"}, "geo/v1"),
        ("put", {}, "ingest"),
        ("putt", {}, "geo/v1"),
        ("post", {"x-user": "ann"}, "geo/v2"),  # the first that fits counts
        ("search", {"tier": "is-old"}, "geo/v2"),
        ("search", {"tier": "is-old", "old": "yes"}, "geo/v1"),
        ("gone", {}, "attic"),
        ("gone", {"a": ""}, "geo/v1"),
    ],
)
def test_calls_are_matched_by_method_and_metadata(method: str, metadata: dict[str, str], there: str) -> None:
    assert goes({"geo": MATCHES}, method=method, **metadata) == there


def test_a_match_without_a_place_only_treats_its_calls_in_another_way() -> None:
    match = {"name": "slow", "method": "slow", "timeout": 30, "retry": {"attempts": 1}}
    one = router({"geo": document(match=[match], splits=splits(v1=0, v2=100), timeout=2)})
    assert (one.route("geo").timeout, one.route("geo", "slow").timeout) == (2, 30)
    assert str(one.route("geo", "slow").targets[0]) == "geo/v2"
    assert one.route("geo", "slow").reason == "slow of geo, 100 %"


def test_a_match_may_have_splits_of_its_own_instead_of_those_of_the_service() -> None:
    match = {"method": "a", "splits": splits(v2=100)}
    assert goes({"geo": document(match=[match], splits=splits(v1=100))}, method="a") == "geo/v2"


def test_splits_to_other_services_are_split_there_again_and_redirects_followed() -> None:
    documents = {
        "geo": {"splits": [{"weight": 100, "service": "maps"}]},
        "maps": document(splits=splits(v1=0, v2=100)),
        "old": {"redirect": {"service": "geo"}},
        "older": {"redirect": {"service": "maps", "subset": "v1"}},
    }
    assert [goes(documents, name) for name in ("geo", "old", "older")] == ["maps/v2", "maps/v2", "maps/v1"]


def test_what_fails_over_goes_where_its_subset_says_or_else_the_star() -> None:
    failover = {"v2": [{"subset": "v1"}], "*": [{"zone": "b"}, {"service": "maps", "zone": "c"}, {"service": "maps"}]}
    documents = {"geo": document(failover=failover, splits=splits(v1=100)), "maps": {"subsets": SUBSETS}}
    assert goes({"geo": document(failover=failover, default_subset="v2")}) == "geo/v2"
    one = router({"geo": document(failover=failover, default_subset="v2")}).route("geo")
    assert [str(target) for target in one.failover] == ["geo/v1"]
    route = router(documents).route("geo")
    same = Subset("v1", version=">=1,<2", zone="b")
    assert route.failover == (Target("geo", same), Target("maps", Subset("zone c", zone="c")), Target("maps"))


def test_a_subset_that_a_service_does_not_have_is_empty_and_not_everything() -> None:
    documents = {"geo": {"splits": [{"weight": 100, "service": "maps", "subset": "v9"}]}}
    route = router(documents).route("geo")
    assert route.subset is not None
    assert not route.subset(endpoint())
    assert "maps has no subset 'v9'" in route.reason


def test_the_balancer_is_that_of_where_a_call_ends_and_the_rest_that_of_where_it_was_made() -> None:
    documents = {
        "geo": {"splits": [{"weight": 100, "service": "maps"}], "lb": {"policy": "random"}, "timeout": 3},
        "maps": {"lb": {"policy": "rendezvous"}, "timeout": 9},
    }
    route = router(documents).route("geo")
    assert (route.lb, route.timeout, route.service) == ("rendezvous", 3, "maps")


# Subsets


SUBSET_CASES = [
    ({"version": ">=2,<3"}, {"version": "2.1.0"}, {"version": "3.0.0"}),
    ({"zone": "a"}, {"zone": "a"}, {"zone": "b"}),
    ({"metadata": {"shard": "3"}}, {"metadata": {"shard": "3", "x": "y"}}, {"metadata": {"shard": "4"}}),
    ({"only_passing": True}, {}, {"status": ExtensionStatus.DEGRADED}),
    ({}, {"status": ExtensionStatus.DEGRADED}, None),
]


@pytest.mark.parametrize(("rule", "inside", "outside"), SUBSET_CASES)
def test_endpoints_belong_to_a_subset_when_they_are_all_of_what_is_asked_for(
    rule: dict[str, Any], inside: dict[str, Any], outside: dict[str, Any] | None
) -> None:
    subset = Subset.of("s", SubsetRule(**rule))
    assert subset(endpoint(**inside))
    assert outside is None or not subset(endpoint(**outside))


def test_two_subsets_that_ask_for_the_same_are_one_key() -> None:
    one, two = (Subset.of("s", SubsetRule(metadata={"b": "2", "a": "1"})) for _ in range(2))
    assert {one: 1}[two] == 1
    assert Subset.of("s", SubsetRule(zone="b")) != Subset.of("s", SubsetRule(zone="a"))


# Weights and keys

WEIGHTS = (
    st.lists(st.integers(0, PLACES), min_size=1, max_size=4)
    .map(sorted)
    .map(lambda cuts: [high - low for low, high in zip([0, *cuts], [*cuts, PLACES], strict=True)])
)
NAMES = ("b", "a", "d", "c", "e")


def with_weights(weights: list[int], service: str = "geo") -> dict[str, Any]:
    named = dict(zip(NAMES, weights, strict=False))
    subsets: dict[str, Any] = {name: {} for name in named}
    return {service: {"subsets": subsets, "splits": splits(**{name: one / 100 for name, one in named.items()})}}


def shares(weights: list[int]) -> dict[int, str]:
    """Which subset each of the 10,000 places belongs to, told by keys that lie there."""
    one = router(with_weights(weights))
    fork = one._forks["geo"]
    assert fork is not None
    return {place: fork.at(place).subset or "" for place in range(PLACES)}


@given(weights=WEIGHTS)
def test_weights_hold_within_half_a_point_over_100_000_keys(weights: list[int]) -> None:
    there = shares(weights)
    counted: Counter[str] = Counter()
    for place, keys in PLACED.items():
        counted[there[place]] += keys
    for name, weight in zip(NAMES, weights, strict=False):
        assert abs(counted[name] / 1000 - weight / 100) <= 0.5


def test_the_places_of_keys_are_those_that_routes_go_by() -> None:
    one = router(with_weights([9000, 1000]))
    there = shares([9000, 1000])
    for key in KEYS[:2000]:
        route = one.route("geo", key=key)
        assert route.subset is not None
        assert route.subset.name == there[place_of("geo", key)]


@given(weights=WEIGHTS, data=st.data())
def test_a_weight_that_alone_rises_keeps_every_key_that_it_had(weights: list[int], data: st.DataObject) -> None:
    assume(len(weights) > 1)
    rising = data.draw(st.integers(0, len(weights) - 1))
    raised = list(weights)
    for other in range(len(weights)):
        if other != rising:
            taken = data.draw(st.integers(0, raised[other]))
            raised[other] -= taken
            raised[rising] += taken
    before, after = shares(weights), shares(raised)
    left = [place for place, name in before.items() if name == NAMES[rising] != after[place]]
    assert left == []


@given(weights=WEIGHTS, order=st.permutations(range(5)))
def test_the_order_in_which_splits_are_written_moves_nobody(weights: list[int], order: list[int]) -> None:
    documents = with_weights(weights)
    written = documents["geo"]["splits"]
    documents["geo"]["splits"] = [written[place] for place in order if place < len(written)]
    turned = router(documents)._forks["geo"]
    assert turned is not None
    assert {place: turned.at(place).subset for place in range(0, PLACES, 7)} == {
        place: name for place, name in shares(weights).items() if place % 7 == 0
    }


def test_a_key_goes_the_same_way_in_every_process_and_one_without_by_chance() -> None:
    documents = with_weights([5000, 5000])
    ways = [[router(documents, seed).route("geo", key=key).subset for key in KEYS[:50]] for seed in range(3)]
    assert ways[0] == ways[1] == ways[2]
    one = router(with_weights([9000, 1000]))
    counted = Counter(str(one.route("geo").targets[0]) for _ in range(100_000))
    assert abs(counted["geo/a"] / 1000 - 10) <= 0.5
    assert counted.total() == counted["geo/a"] + counted["geo/b"]


def test_the_splits_of_two_services_are_independent() -> None:
    documents = {
        "geo": {"splits": [{"weight": 50, "service": "maps"}, {"weight": 50, "service": "other"}]},
        **with_weights([5000, 5000], "maps"),
    }
    one = router(documents)
    ends = Counter(str(one.route("geo", key=key).targets[0]) for key in KEYS[:10_000])
    assert 2300 < ends["maps/a"] < 2700
    assert 2300 < ends["maps/b"] < 2700


# It always ends


def test_splits_in_a_circle_stop_and_say_so() -> None:
    documents = {
        "a": {"splits": [{"weight": 100, "service": "b"}]},
        "b": {"splits": [{"weight": 100, "service": "a"}]},
    }
    assert router(documents).route("a").reason == "rules of a, the splits do not end: stopped at a"


def test_splits_through_too_many_services_stop() -> None:
    documents = {f"s{n}": {"splits": [{"weight": 100, "service": f"s{n + 1}"}]} for n in range(20)}
    assert router(documents).route("s0").service == "s8"


SERVICES = ["a", "b", "c"]


@st.composite
def any_rules(draw: st.DrawFn) -> dict[str, Any]:
    """Rules that lead to any of a few services, in circles as it comes."""
    if draw(st.integers(0, 4)) == 0:
        return {"redirect": {"service": draw(st.sampled_from(SERVICES))}}
    ends = draw(
        st.sets(st.tuples(st.sampled_from(SERVICES), st.sampled_from([None, "v1", "v9"])), min_size=1, max_size=3)
    )
    weights = [100.0, *[0.0] * (len(ends) - 1)] if draw(st.booleans()) else [round(100 / len(ends), 2)] * len(ends)
    weights[0] = round(100 - sum(weights[1:]), 2)
    split = [{"weight": w, "service": s, "subset": n} for w, (s, n) in zip(weights, sorted(ends, key=str), strict=True)]
    match = [{"method": "m", "service": draw(st.sampled_from(SERVICES))}]
    failover = {"*": [{"service": draw(st.sampled_from(SERVICES)), "subset": draw(st.sampled_from([None, "v1"]))}]}
    return {"subsets": SUBSETS, "splits": split, "match": match, "failover": failover}


@given(
    documents=st.dictionaries(st.sampled_from(SERVICES), any_rules()),
    service=st.sampled_from(SERVICES),
    method=st.sampled_from(["m", "other"]),
    key=st.none() | st.text(max_size=3),
)
def test_a_route_comes_of_any_documents(documents: dict[str, Any], service: str, method: str, key: str | None) -> None:
    one = router(documents)
    route = one.route(service, method, {}, key)
    assert route.service in SERVICES
    assert len(route.failover) <= 1
    if key is not None:
        assert one.route(service, method, {}, key) == route


# Faults, mirrors and limits


def test_a_part_of_the_calls_is_mirrored_and_a_part_fails() -> None:
    one = router({"geo": document(mirror={"subset": "v2", "percent": 25}, fault={"percent": 10, "status": 503})})
    routes = [one.route("geo") for _ in range(10_000)]
    mirrored = [route for route in routes if route.mirror is not None]
    failing = [route for route in routes if route.fault is not None]
    assert 2200 < len(mirrored) < 2800
    assert 850 < len(failing) < 1150
    assert {str(route.mirror) for route in mirrored} == {"geo/v2"}


def test_a_copy_goes_to_the_service_whose_rules_say_so_wherever_the_call_goes() -> None:
    there = router({"geo": document(splits=[{"weight": 100, "service": "maps"}], mirror={"subset": "v2"}), "maps": {}})
    route = there.route("geo")
    assert (str(route.targets[0]), str(route.mirror)) == ("maps", "geo/v2")
    assert route.mirror is not None
    assert route.mirror.subset is not None
    assert route.mirror.subset.known


def test_rules_of_json_are_read_and_bad_ones_change_nothing() -> None:
    there = Router(Runtime(), {"geo": document()})
    with pytest.raises(RulesError, match="spilts"):
        there.update({"geo": document(spilts=[])})
    assert str(there.route("geo").targets[0]) == "geo/v1"


def test_a_change_of_one_service_works_out_no_other_anew() -> None:
    all_ = {f"s{number}": rules(splits=splits(v1=90, v2=10)) for number in range(5)}
    there = Router(Runtime(), all_)
    before = dict(there._forks)
    there.update({**all_, "s3": rules(splits=splits(v1=100)), "s9": rules(splits=splits(v1=50, v2=50))})
    assert [name for name in before if there._forks[name] is not before[name]] == ["s3"]
    assert (str(there.route("s3").targets[0]), set(there._forks)) == ("s3/v1", {*before, "s9"})
    there.update({})
    assert there._forks == {}


def test_what_fails_over_goes_nowhere_twice() -> None:
    there = router({"geo": document(failover={"*": [{"subset": "v1"}, {"subset": "v2"}]})})
    assert list(map(str, there.route("geo").targets)) == ["geo/v1", "geo/v2"]


def test_rules_that_change_are_followed_and_a_limit_that_stays_goes_on_counting() -> None:
    one = router({"geo": document(rate_limit={"per_second": 1})})
    limit = one.route("geo").limit
    assert limit is not None
    assert limit.take() == 0
    one.update({"geo": rules(rate_limit={"per_second": 1}, default_subset="v2")})
    route = one.route("geo")
    assert str(route.targets[0]) == "geo/v2"
    assert route.limit is limit
    one.update({"geo": rules(rate_limit={"per_second": 2})})
    assert one.route("geo").limit is not limit
    one.update({})
    assert one.route("geo").limit is None


def test_a_match_has_a_limit_of_its_own() -> None:
    match = {"method": "a", "rate_limit": {"per_second": 1}}
    one = router({"geo": document(match=[match], rate_limit={"per_second": 5})})
    assert one.route("geo", "a").limit is not one.route("geo", "b").limit is not None


def test_rules_of_python_are_taken_as_well() -> None:
    one = router({})
    one.update({"geo": ServiceRules(default_subset="x", subsets={"x": SubsetRule(zone="a")})})
    assert one.route("geo").subset == Subset("x", zone="a")
