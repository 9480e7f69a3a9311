"""Strictness of every kind of record, by hypothesis: no value of a wrong type passes, and what passes comes back."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs
import pytest
from hypothesis import given, settings, strategies as st

from osdisco._records import decode, encode
from osdisco.cluster._head import Head, Journal
from osdisco.coordination._contend import EntryRecord
from osdisco.coordination._revoke import RevocationRecord
from osdisco.coordination.barrier import BarrierRecord
from osdisco.coordination.double_barrier import _Member, _Roster
from osdisco.coordination.group import Member, _Record
from osdisco.coordination.partition import OwnerRecord
from osdisco.discovery import EndpointInfo, ExtensionInfo
from osdisco.discovery.findings import Finding, FindingState, ProberMember
from osdisco.discovery.registration import Registration
from osdisco.errors import RecordError
from osdisco.mesh._histogram import SIZE
from osdisco.mesh.canary_figures import CallRecord, Counts
from osdisco.names import escape
from osdisco.registry import ServiceEndpoint
from osdisco.registry.record import Record

GEO = ExtensionInfo("a", "geo", "1.0", "h", 1, ["c"], {"rest": EndpointInfo("http", 1)}, {"zone": "a"})
GOOD: list[Any] = [
    Registration(GEO, 3),
    Record(ServiceEndpoint("a", "10.0.0.7:1", {"z": "a"}, "http://h/", 1, "a", "1"), 3),
    EntryRecord("me", 1.5, 2, {"a": [1, None]}),
    RevocationRecord("me", 1.0, 2.0),
    BarrierRecord("me", 1.0, "x"),
    OwnerRecord("me", 3, "x"),
    _Member("me", 2),
    _Roster({"a": 1}, {"a": "me"}),
    _Record(Member("a", 2, {"z": "b"}), 3),
    Finding("a", "me", "http://h/", FindingState.PASSING, "fine", 1.5),
    ProberMember("p", "me", "a"),
    CallRecord("me", {"a": Counts(3, 1, (1,) * SIZE)}),
    Head(1, 2, 3, "s", 4, "name", "uuid", "n1", 1.5, {"nodes": {"ab": (1, 2, 3)}}),
    Journal(1, 2, {"nodes": {"ab": (1, 0)}}, {"blocks": {"cd": (2, 7)}}),
]
"""One of each class that is read from a store, with something in each field."""

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 70_000)
    | st.sampled_from(
        [0, 1, 2**70, 0.0, 1.5, -0.0, "", "a", "1", "true", "null", "healthy", "http", "é", "10.0.0.7:1"]
    ),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "rest", "z", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to all values within a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, inner in items for place in places(inner, (*path, name)))]


def changed(value: Any, path: tuple[Any, ...], new: object) -> Any:
    """Return a JSON value with another one at a path; `...` takes it away."""
    if not path:
        return new
    first, *rest = path
    items = dict(value) if isinstance(value, dict) else list(value)
    if new is ... and not rest:
        del items[first]
    else:
        items[first] = changed(items[first], tuple(rest), new)
    return items


def fits(value: Any, hint: Any) -> bool:
    """Return whether a JSON value is of the type that a field says, without any conversion."""
    if hint is Any:
        return True
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inside)
    if origin in (Mapping, dict) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return type(value) is dict and all(fits(one, inside[1]) for one in value.values())
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return type(value) is list and all(fits(one, inside[0]) for one in value)
    if attrs.has(hint):
        hints = get_type_hints(hint)
        fields = {field.name: hints[field.name] for field in attrs.fields(hint) if field.init}
        return type(value) is dict and all(fits(value[name], fields[name]) for name in fields.keys() & value.keys())
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return type(value) is str and value in [one.value for one in hint]
    if hint is float:
        return type(value) in (int, float)
    return type(value) is (NoneType if hint is None else hint)


@pytest.mark.parametrize("good", GOOD, ids=lambda good: type(good).__name__)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_no_value_of_a_wrong_type_passes_and_what_passes_comes_back(good: Any, data: st.DataObject) -> None:
    written = json.loads(encode(good))
    assert fits(written, type(good))
    for _ in range(data.draw(st.integers(1, 2))):
        places_now = places(written)[1:]
        if places_now:
            written = changed(written, data.draw(st.sampled_from(places_now)), data.draw(VALUES | st.just(...)))
    try:
        record = decode(json.dumps(written).encode(), type(good))
    except RecordError:
        return
    assert fits(written, type(good)), "a value of another type was taken"
    assert decode(encode(record), type(good)) == record


@pytest.mark.parametrize("good", GOOD, ids=lambda good: type(good).__name__)
def test_each_place_of_each_record_refuses_each_other_type(good: Any) -> None:
    """What chance might miss: every field with one value of every other type."""
    written, taken = json.loads(encode(good)), []
    for place in places(written)[1:]:
        for other in (None, True, 7, 1.5, "text", [], {}, ["a"], {"a": "b"}, [1], {"a": 1}):
            record = changed(written, place, other)
            try:
                decode(json.dumps(record).encode(), type(good))
            except RecordError:
                continue
            if not fits(record, type(good)):
                taken.append((place, other))
    assert not taken


SEGMENTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.lists(SEGMENTS, min_size=2, max_size=6, unique=True))
@settings(deadline=None)
def test_no_two_names_share_a_key_and_none_means_anything_in_a_path(names: list[str]) -> None:
    escaped = [escape(name) for name in names]
    assert len(set(escaped)) == len(names)
    assert not {"", ".", ".."} & set(escaped)
    assert not any(char in segment for segment in escaped for char in "/%?#\\ ")


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=6))
@settings(deadline=None)
def test_names_that_are_plain_keep_their_order(numbers: list[int]) -> None:
    """Places in queues end in numbers of one width: what sorts as a name must sort as a key."""
    names = [f"{number:010d}" for number in numbers]
    assert sorted(map(escape, names)) == [escape(name) for name in sorted(names)]
