"""Documents of rules: what is refused, with the field named, and what comes back as it was written."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, strategies as st
from traffic import SUBSETS, document, rules, splits

from osdisco.errors import RulesError
from osdisco.mesh import FailoverTarget, Match, ServiceRules, Split, Text
from osdisco.mesh._documents import plain

BAD: list[tuple[Any, str, str]] = [
    # document, field, what is said
    ([], "the document", "must be an object, not a list"),
    (None, "the document", "must be an object, not null"),
    (document(spilts=[]), "spilts", "did you mean 'splits'"),
    (document(splits=splits(v1=90, v2=5)), "splits", "add up to 95"),
    (document(splits=splits(v1=90, v2=10.5)), "splits", "add up to 100.5"),
    (document(splits=splits(v1=-1, v2=101)), "splits[0].weight", "from 0 to 100"),
    (document(splits=splits(v1=99.999, v2=0.001)), "splits[0].weight", "steps of 0.01"),
    (document(splits=splits(v1=float("nan"), v2=100)), "splits[0].weight", "is nan"),
    (document(splits=splits(v1=True, v2=99)), "splits[0].weight", "must be a number, not a boolean"),
    (document(splits=[{"subset": "v1"}]), "splits[0].weight", "is missing"),
    (document(splits=[{"subset": "v1", "weight": 100, "x": 1}]), "splits[0].x", "there are weight, subset, service"),
    (document(splits=splits(v3=100)), "splits[0].subset", "there are 'v1', 'v2'"),
    (document(splits=[*splits(v1=50), *splits(v1=50)]), "splits[1]", "goes where splits[0] goes"),
    (document(splits={"v1": 100}), "splits", "must be a list of splits, not an object"),
    (document(splits=["v1"]), "splits[0]", "must be an object, not text"),
    (document(splits=splits(v1=100) * 65), "splits", "has 65 splits; 64 are allowed"),
    (document(default_subset="v3"), "default_subset", "is 'v3', which is no subset here"),
    (document(default_subset=""), "default_subset", "is no name"),
    (document(default_subset=7), "default_subset", "must be text, not a number"),
    ({"subsets": []}, "subsets", "must be an object of subsets by name"),
    ({"subsets": {"": {}}}, "subsets", "is no name"),
    ({"subsets": {"v2": {"version": "2"}}}, "subsets['v2'].version", "clauses such as"),
    ({"subsets": {"v2": {"metadata": {"a": 1}}}}, "subsets['v2'].metadata['a']", "must be text"),
    ({"subsets": {"v2": {"only_passing": "yes"}}}, "subsets['v2'].only_passing", "must be true or false, not text"),
    (document(failover={"v3": []}), "failover", "is 'v3', which is no subset here"),
    (document(failover={"*": [{}]}), "failover['*'][0]", "names nowhere to go"),
    (document(failover={"*": [{"subset": "v9"}]}), "failover['*'][0].subset", "is 'v9'"),
    (document(failover={"*": [{"zone": ""}]}), "failover['*'][0].zone", "is empty"),
    (
        document(failover={"v2": [{"service": "b"}, {"subset": "v2"}]}),
        "failover['v2'][1]",
        "goes where the calls come from",
    ),
    ({"subsets": {"v2": {"zone": ""}}}, "subsets['v2'].zone", "is empty"),
    (document(failover={"*": {"subset": "v1"}}), "failover['*']", "must be a list of targets"),
    (document(redirect={"service": "new"}), "redirect", "and there is default_subset, subsets"),
    ({"redirect": {}}, "redirect.service", "is missing"),
    (document(mirror={"percent": 10}), "mirror", "names nowhere to send the copy"),
    (document(mirror={"subset": "v2", "percent": 101}), "mirror.percent", "from 0 to 100"),
    (document(mirror={"subset": "v9"}), "mirror.subset", "is 'v9'"),
    (document(fault={}), "fault", "does nothing"),
    (document(fault={"status": 200}), "fault.status", "from 400 to 599"),
    (document(fault={"delay": -1}), "fault.delay", "from 0 to 3600 seconds"),
    (document(rate_limit={"per_second": 0}), "rate_limit.per_second", "above 0"),
    (document(rate_limit={"per_second": 5, "burst": 1.5}), "rate_limit.burst", "must be a whole number"),
    (document(retry={"attempts": 11}), "retry.attempts", "from 1 to 10"),
    (document(lb={"policy": "fastest"}), "lb.policy", "must be one of least_request"),
    (document(timeout=0), "timeout", "above 0"),
    (document(timeout=10**400), "timeout", "is too large"),
    (document(timeout=-(10**5000)), "timeout", "is too large"),
    (document(match=[{"name": "a"}, {}, {"name": "a"}]), "match[2].name", "an earlier match"),
    (document(timeout=float("inf")), "timeout", "is inf"),
    (document(match=[{"method": {}}]), "match[0].method", "must have one of exact"),
    (document(match=[{"method": {"exact": "a", "prefix": "b"}}]), "match[0].method", "has exact and prefix"),
    (document(match=[{"method": {"regex": ".*"}}]), "match[0].method.regex", "is no field here"),
    (document(match=[{"metadata": {"x": 7}}]), "match[0].metadata['x']", "must be an object, not a number"),
    (document(match=[{"metadata": {"x": {"one_of": "abc"}}}]), "match[0].metadata['x'].one_of", "must be a list"),
    (document(match=[{"headers": {"x": "y"}}]), "match[0].headers", "is no field here"),
    (document(match=[{"subset": "v9"}]), "match[0].subset", "is 'v9'"),
    (document(match=[{"subset": "v1", "splits": splits(v1=100)}]), "match[0].splits", "beside a subset"),
    (document(match=[{"splits": splits(v1=50)}]), "match[0].splits", "add up to 50"),
    (document(match=[{"splits": splits(v1=50, v9=50)}]), "match[0].splits[1].subset", "is 'v9'"),
    (document(match=[{"timeout": -1}]), "match[0].timeout", "above 0"),
    (document(match=[{"name": "\ud800"}]), "match[0].name", "lone surrogate"),
]


@pytest.mark.parametrize(("bad", "field", "said"), BAD, ids=[f"{field}-{said[:20]}" for _, field, said in BAD])
def test_what_cannot_be_is_refused_with_the_field_named_and_what_is_allowed(bad: Any, field: str, said: str) -> None:
    with pytest.raises(RulesError) as told:
        ServiceRules.parse(bad)
    assert told.value.field == field
    assert said in told.value.message
    assert str(told.value).startswith(field)


def test_a_rule_made_in_python_is_refused_as_one_that_is_read() -> None:
    with pytest.raises(RulesError, match="weight is -1"):
        Split(-1, "v1")
    with pytest.raises(RulesError, match="splits have weights that add up to 50"):
        ServiceRules(splits=(Split(50),))
    with pytest.raises(RulesError, match=r"failover\['\*'\]\[0\] must be an object"):
        ServiceRules(failover={"*": ["v2"]})
    with pytest.raises(RulesError, match="splits have weights"):
        evolve(rules(splits=splits(v1=90, v2=10)), splits=(Split(90, "v1"),))


def test_python_and_json_make_the_same() -> None:
    made = ServiceRules(
        subsets=SUBSETS,
        default_subset="v1",
        match=[Match(method=Text(exact="search"), subset="v2")],
        failover={"*": [FailoverTarget("v1")]},
    )
    assert made == rules(match=[{"method": "search", "subset": "v2"}], failover={"*": [{"subset": "v1"}]})


FULL = document(
    match=[
        {"name": "beta", "metadata": {"X-Beta": {"present": True}}, "subset": "v2", "timeout": 1.5},
        {"method": {"one_of": ["a", "b"], "invert": True}, "splits": splits(v1=33.33, v2=66.67)},
        {"method": "index", "service": "ingest", "retry": {"attempts": 1, "timeout": 2}},
    ],
    splits=[{"weight": 90, "subset": "v1"}, {"weight": 10, "service": "other"}],
    failover={"v2": [{"subset": "v1"}], "*": [{"zone": "b"}, {"service": "geo-b"}]},
    mirror={"percent": 1, "service": "shadow"},
    fault={"percent": 0.5, "delay": 2, "status": 503},
    rate_limit={"per_second": 50, "burst": 10},
    lb={"policy": "peak_ewma"},
    retry={"attempts": 2},
    timeout=5,
)


def test_what_was_read_is_written_as_it_was() -> None:
    parsed = ServiceRules.parse(FULL)
    written = json.loads(json.dumps(parsed.document()))
    assert ServiceRules.parse(written) == parsed
    assert written["match"][1] == FULL["match"][1]
    assert written["failover"] == FULL["failover"]
    assert ServiceRules().document() == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, one in inner for found in _paths(one, (*path, key)))]


@given(data=st.data(), junk=JSON)
def test_junk_anywhere_is_refused_as_rules_or_read_as_what_is_written_again(data: st.DataObject, junk: Any) -> None:
    broken = json.loads(json.dumps(FULL))
    path = data.draw(st.sampled_from(_paths(broken)[1:]))
    place = broken
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = junk
    parsed = None
    with suppress(RulesError):
        parsed = ServiceRules.parse(broken)
    assert parsed is None or ServiceRules.parse(plain(parsed)) == parsed
