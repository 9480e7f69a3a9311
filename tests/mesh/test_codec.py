"""Requests and results as JSON: nothing is taken for something else, and nothing is lost on the way."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from attrs import field, frozen
from hypothesis import given, strategies as st

from osdisco.mesh.codec import CodecError, check_kind, decode, encode


class Colour(enum.Enum):
    RED = "red"


@frozen
class Point:
    x: float
    y: float = 0.0


@dataclass
class Plain:
    name: str
    tags: list[str]


@frozen
class Shape:
    points: tuple[Point, ...]
    colour: Colour = Colour.RED
    plain: Plain | None = None
    by_name: Mapping[str, Point] = field(factory=dict)
    pair: tuple[int, str] = (1, "a")
    names: frozenset[str] = frozenset()
    anything: Any = None


SHAPE = Shape(
    (Point(1.5), Point(2, 3)), Colour.RED, Plain("é", ["a"]), {"p": Point(0.1)}, (7, "b"), frozenset({"n"}), [None]
)


def test_what_attrs_classes_hold_comes_back() -> None:
    assert decode(encode(SHAPE), Shape) == SHAPE
    assert decode(encode({"a": [SHAPE]}), dict[str, list[Shape]]) == {"a": [SHAPE]}


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


@given(plain)
def test_what_json_has_comes_back(value: Any) -> None:
    assert decode(encode(value)) == value


@given(st.binary())
def test_bytes_of_any_kind_are_decoded_or_refused(data: bytes) -> None:
    for kind in (None, int, Shape, list[Point]):
        try:
            decode(data, kind)
        except CodecError:
            continue


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (object(), "an attrs class, a dataclass, an enum nor a set"),
        (b"x", "a bytes is neither JSON"),
        (math.nan, "JSON cannot hold it"),
        (math.inf, "JSON cannot hold it"),
        ("\ud800", "lone surrogate"),
        ({"\udfff": 1}, "lone surrogate"),
        ({(1, 2): 3}, "JSON cannot hold it"),
        (len, "is neither JSON"),
        ({1, object()}, "is neither JSON"),
    ],
)
def test_what_json_cannot_hold_is_refused(value: object, said: str) -> None:
    with pytest.raises(CodecError, match=said):
        encode(value)


def test_what_holds_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for value in (circle, deep):
        with pytest.raises(CodecError):
            encode(value)
    while deep:  # or its end would take as many frames
        deep = deep[0]


@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        (b'{"x": "1"}', Point, "must be a float, not str @ $.x"),
        (b'{"x": true}', Point, "must be a float, not bool @ $.x"),
        (b"{}", Point, "required field 'x' is missing"),
        (b'"x"', Point, "must be a dict, not str"),
        (b'"abc"', list[str], "must be a list, not str"),
        (b"1.5", int, "must be a int, not float"),
        (b'"1"', int, "must be a int, not str"),
        (b"null", str, "must be a str, not NoneType"),
        (b'[1, "a", 2]', tuple[int, str], "must have 2 items, not 3"),
        (b'["a", 1]', tuple[int, str], "must be a int"),
        (b'"blue"', Colour, "not a Colour"),
        (b'"ab"', frozenset[str], "must be a list, not str"),
        (b'"x"', Plain, "must be a dict, not str"),
        (b'"\\ud800"', str, "lone surrogate"),
        (b"", None, "not JSON"),
        (b"{", None, "not JSON"),
        (b"NaN", None, "NaN is not JSON"),
        (b"-Infinity", None, "-Infinity is not JSON"),
        (b"[1e999]", list[float], "too large"),
        (b"[1e999]", None, "too large"),
        (b'{"a": -1E+400}', None, "too large"),
        (b"-1E+400", float, "too large"),
        (b"1" * 400 + b".5", float, "too large"),
        (b"1" * 5000, None, "not JSON"),
        ('{"a": 1}'.encode("utf-16"), None, "not JSON"),
        (b"\xed\xa0\x80", None, "not JSON"),
        (b"[" * 200_000, None, "not JSON"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_place_and_without_its_value(data: bytes, kind: Any, said: str) -> None:
    with pytest.raises(CodecError) as caught:
        decode(data, kind)
    assert said in str(caught.value)


def test_unknown_fields_are_ignored_and_whole_numbers_are_numbers() -> None:
    assert decode(b'{"x": 1, "z": []}', Point) == Point(1.0)


def test_a_class_that_refuses_its_values_says_so() -> None:
    def positive(_: object, __: object, value: int) -> None:
        if value < 0:
            raise ValueError("secret value")

    @frozen
    class Positive:
        number: int = field(validator=positive)

    with pytest.raises(CodecError) as caught:
        decode(b'{"number": -1}', Positive)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kind", [None, Any, int, Shape, list[Point], Point | None, dict[str, int], tuple[int, ...]])
def test_types_that_can_be_read_into(kind: Any) -> None:
    check_kind(kind)


@pytest.mark.parametrize("kind", ["Point", 7, object(), len])
def test_types_that_cannot_are_refused(kind: Any) -> None:
    with pytest.raises(CodecError, match="no type that JSON can be read into"):
        check_kind(kind)
