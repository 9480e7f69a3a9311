"""Records: what others wrote into the store is read strictly, and a bad one is one error that shows no value."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from attrs import field, frozen
from hypothesis import given, strategies as st

from osdisco._records import RECORD_MAX, decode, encode
from osdisco.errors import RecordError


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@frozen
class Door:
    port: int
    path: str = "/"


@frozen
class Lamp:
    watts: int = 60


@frozen
class House:
    name: str
    port: int = 0
    area: float = 0.0
    healthy: bool = True
    owner: str | None = None
    color: Color = Color.RED
    tags: tuple[str, ...] = ()
    rooms: list[int] = field(factory=list)
    floors: Sequence[str] = ()
    doors: Mapping[str, Door] = field(factory=dict)
    notes: Mapping[str, str] = field(factory=dict)
    lamp: Lamp = field(factory=Lamp)
    front: Door | None = None


def house(**fields: object) -> bytes:
    return json.dumps({"name": "h", **fields}).encode()


SECRET = "s3cr3t"

WRONG_TYPE: list[tuple[str, Any, str]] = [
    ("healthy", "false", "must be a bool, not str"),
    ("healthy", 0, "must be a bool, not int"),
    ("healthy", None, "must be a bool, not NoneType"),
    ("name", None, "must be a str, not NoneType"),
    ("name", 7, "must be a str, not int"),
    ("name", [SECRET], "must be a str, not list"),
    ("port", "9200", "must be a int, not str"),
    ("port", 9200.0, "must be a int, not float"),
    ("port", True, "must be a int, not bool"),
    ("port", None, "must be a int, not NoneType"),
    ("area", "1.5", "must be a float, not str"),
    ("area", False, "must be a float, not bool"),
    ("area", 10**400, "not a float"),
    ("owner", 3, "must be a str, not int"),
    ("color", SECRET, "not a Color"),
    ("color", [], "not a Color"),
    ("color", None, "not a Color"),
    ("tags", "abc", "must be a list, not str"),
    ("tags", {"a": 1}, "must be a list, not dict"),
    ("tags", None, "must be a list, not NoneType"),
    ("tags", ["a", 1], "must be a str, not int"),
    ("tags", [["a"]], "must be a str, not list"),
    ("rooms", "123", "must be a list, not str"),
    ("rooms", ["1"], "must be a int, not str"),
    ("floors", "abc", "must be a list, not str"),
    ("floors", {"a": 1}, "must be a list, not dict"),
    ("doors", [], "must be a dict, not list"),
    ("doors", "abc", "must be a dict, not str"),
    ("doors", {"a": SECRET}, "must be a dict, not str"),
    ("doors", {"a": {}}, "required field 'port' is missing"),
    ("doors", {"a": {"port": "1"}}, "must be a int, not str"),
    ("notes", {"a": None}, "must be a str, not NoneType"),
    ("notes", [["a", "b"]], "must be a dict, not list"),
    ("lamp", SECRET, "must be a dict, not str"),
    ("lamp", [], "must be a dict, not list"),
    ("lamp", None, "must be a dict, not NoneType"),
    ("front", [], "must be a dict, not list"),
]


@pytest.mark.parametrize(("name", "value", "said"), WRONG_TYPE)
def test_a_value_of_the_wrong_type_is_refused_with_its_field_and_not_shown(name: str, value: Any, said: str) -> None:
    with pytest.raises(RecordError, match=re.escape(said)) as caught:
        decode(house(**{name: value}), House)
    assert f"$.{name}" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__


NO_RECORD = [
    (b"", "not JSON"),
    (b"{", "not JSON"),
    (b'{"name":"h"}x', "not JSON"),
    (b"\xff\xfe", "not JSON"),
    (b'{"name":"\xff"}', "not JSON"),
    (b'{"name":"h", "port": ' + b"9" * 5000 + b"}", "not JSON"),
    (b'{"name":' + b"[" * 30_000 + b"]" * 30_000 + b"}", "not JSON"),
    (b'{"name":"h","new":' + b"[" * 30_000 + b"]" * 30_000 + b"}", "not JSON"),
    (b"[]", "must be a JSON object, not list"),
    (b"null", "must be a JSON object, not NoneType"),
    (b'"name"', "must be a JSON object, not str"),
    (b"{}", "required field 'name' is missing"),
    (b'{"name":"h","area":NaN}', "NaN is not JSON"),
    (b'{"name":"h","area":-Infinity}', "-Infinity is not JSON"),
    (b'{"name":"h","new":Infinity}', "Infinity is not JSON"),
    (b'{"name":"h","area":1e400}', "too large"),
    (b'{"name":"h","new":[-1e400]}', "too large"),
    (b'{"name":"h","name":"i"}', "names a field twice"),
    (b'{"name":"h","doors":{"a":{"port":1,"port":2}}}', "names a field twice"),
    (b'{"name":"h","new":{"a":1,"a":1}}', "names a field twice"),
    (b'{"name":"\\ud800"}', "lone surrogate"),
    (b'{"name":"\xed\xa0\x80"}', "not JSON: UnicodeDecodeError"),
    (b'{"name":"h","tags":["a\\udfff"]}', "lone surrogate"),
    (b'{"name":"h","notes":{"\\ud800":"a"}}', "lone surrogate"),
]


@pytest.mark.parametrize(("data", "said"), NO_RECORD, ids=range(len(NO_RECORD)))
def test_what_is_no_record_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(RecordError, match=said):
        decode(data, House)


def test_the_size_is_looked_at_before_anything_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = house(name="x" * (RECORD_MAX - len(house(name=""))))
    assert len(largest) == RECORD_MAX
    assert decode(largest, House).name.startswith("xxx")
    monkeypatch.setattr(json, "loads", lambda *_, **__: pytest.fail("parsed"))
    with pytest.raises(RecordError, match="65537 bytes; 65536 are allowed"):
        decode(largest + b" ", House)


def test_fields_that_are_not_known_yet_are_ignored() -> None:
    assert decode(house(new={"deep": [1, None, "x"]}, lamp={"watts": 1, "new": 2}), House) == House("h", lamp=Lamp(1))


def test_an_integer_is_a_float_where_a_float_is_wanted() -> None:
    area = decode(house(area=2), House).area
    assert area == 2.0
    assert type(area) is float


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(RecordError) as caught:
        decode(house(port="1", healthy=1), House)
    assert "$.port" in str(caught.value)
    assert "$.healthy" in str(caught.value)


@pytest.mark.parametrize("name", ["\ud800", "a\udc00b"])
def test_a_record_that_no_reader_would_take_is_not_written(name: str) -> None:
    for record in (House(name), House("h", tags=(name,)), House("h", notes={name: "x"})):
        with pytest.raises(RecordError, match="House holds what JSON cannot"):
            encode(record)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object(), b"x"])
def test_what_json_cannot_hold_is_not_written(value: Any) -> None:
    with pytest.raises(RecordError, match="House holds what JSON cannot"):
        encode(House("h", area=value))


def test_a_record_that_is_too_large_is_not_written() -> None:
    with pytest.raises(RecordError, match="65536 are allowed"):
        encode(House("x" * RECORD_MAX))


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
doors = st.builds(Door, st.integers(), text)
houses = st.builds(
    House,
    text,
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none() | text,
    st.sampled_from(Color),
    st.lists(text, max_size=3).map(tuple),
    st.lists(st.integers(), max_size=3),
    st.lists(text, max_size=3).map(tuple),
    st.dictionaries(text, doors, max_size=2),
    st.dictionaries(text, text, max_size=2),
    st.builds(Lamp, st.integers()),
    st.none() | doors,
)


@given(houses)
def test_a_record_comes_back_as_it_was_written(record: House) -> None:
    assert decode(encode(record), House) == record


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from([attribute.name for attribute in House.__attrs_attrs__])


@given(st.dictionaries(names, json_values, max_size=4) | json_values)
def test_whatever_json_holds_is_a_record_or_one_error(value: Any) -> None:
    try:
        record = decode(json.dumps(value).encode(), House)
    except RecordError as exc:
        str(exc).encode()
        return
    assert decode(encode(record), House) == record


@given(st.binary(max_size=30))
def test_whatever_bytes_are_there_is_a_record_or_one_error(data: bytes) -> None:
    with suppress(RecordError):
        decode(data, House)
