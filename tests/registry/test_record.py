"""Two readers of one record agree: the quick one for what osdisco writes, and the strict one for everything."""

from __future__ import annotations

import json
import string
from typing import Any

import attrs
import pytest
from hypothesis import given, settings, strategies as st
from services import found

from osdisco._records import decode, encode
from osdisco.discovery import ExtensionStatus
from osdisco.errors import RecordError
from osdisco.registry import ServiceEndpoint
from osdisco.registry.record import Record, read, read_quickly

TEXT = st.text(max_size=5).filter(lambda text: text.isascii() or _encodes(text))
NAME = TEXT.filter(bool)
LABEL = st.text(string.ascii_lowercase, min_size=1, max_size=5)
HOST = st.ip_addresses(v=4, network="10.0.0.0/8").map(str) | LABEL | st.sampled_from(["[fd00::7]", "223.255.0.1"])
ENDPOINTS = st.builds(
    ServiceEndpoint,
    extension_id=NAME,
    address=st.builds("{}:{}".format, HOST, st.integers(1, 65_535)),
    metadata=st.dictionaries(NAME, TEXT, max_size=3),
    health_check_url=st.none() | st.builds("http://{}/{}".format, LABEL, LABEL),
    weight=st.integers(0, 65_535),
    zone=st.none() | NAME,
    version=NAME,
    status=st.sampled_from(ExtensionStatus),
)


def _encodes(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def strictly(value: bytes) -> object:
    try:
        record = decode(value, Record)
    except RecordError as exc:
        return str(exc)
    return record.endpoint, record.incarnation


def agree(value: bytes) -> None:
    try:
        got: object = read(value)
    except RecordError as exc:
        got = str(exc)
    assert got == strictly(value)


@given(ENDPOINTS, st.integers(0, 2**63))
@settings(max_examples=50)
def test_what_osdisco_writes_is_read_as_it_was(endpoint: ServiceEndpoint, incarnation: int) -> None:
    value = encode(Record(endpoint, incarnation))
    assert read(value) == (endpoint, incarnation) == strictly(value)


@pytest.mark.parametrize("address", ["10.0.0.7:9700", "geo:65535", "[fd00::7]:80", "255.0.0.1:1"])
def test_what_osdisco_writes_is_read_the_quick_way(address: str) -> None:
    endpoint = found(address=address, zone="a b", metadata={"é": ""}, health_check_url="http://geo/")
    assert read_quickly(encode(Record(endpoint, 7))) == (endpoint, 7)


GOOD = Record(found(zone="a", metadata={"a": "b"}, health_check_url="http://geo/"), 5)
PLACES = [
    *[("endpoint", field.name) for field in attrs.fields(ServiceEndpoint)],
    ("incarnation",),
    ("endpoint",),
    ("endpoint", "metadata", "a"),
    ("endpoint", "new"),
]
JSON = (
    st.none()
    | st.booleans()
    | st.integers(-1, 70_000)
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(
        [[], {}, ["a"], {"a": 1}, "10.0.0.7", "0.0.0.0:1", "224.0.0.1:1", "01.2.3.4:1", "1.2.3.4:0", "x" * 300]
    )
)


@given(st.sampled_from(PLACES), JSON | st.just(...))
@settings(max_examples=150)
def test_records_of_others_are_read_as_the_strict_reader_does(place: tuple[Any, ...], value: object) -> None:
    """`...` takes the field away."""
    record = json.loads(encode(GOOD))
    *path, last = place
    there = record
    for step in path:
        there = there[step]
    if value is ...:
        there.pop(last, None)
    else:
        there[last] = value
    agree(json.dumps(record).encode())


PIECES = [
    b'"zone":"b",',
    b'"weight":1,',
    b"\\u0041",
    b"\\ud800",
    b"\xed\xa0\x80",
    b" ",
    b"\n",
    b'\\"',
    b"1",
    b"NaN",
    b"",
]


@given(st.data())
@settings(max_examples=150)
def test_bytes_that_others_put_between_are_read_as_the_strict_reader_does(data: st.DataObject) -> None:
    value = bytearray(encode(GOOD))
    at = data.draw(st.integers(0, len(value)))
    value[at : at + data.draw(st.integers(0, 3))] = data.draw(st.sampled_from(PIECES))
    agree(bytes(value))


def test_a_field_twice_is_found_whatever_hides_it() -> None:
    good = encode(GOOD)
    for twice in (b'"weight" :1,"weight"', b'"weight"\n:1,"weight"', b'"a\\"b":1,"weight":1,"weight"'):
        with pytest.raises(RecordError):
            read(good.replace(b'"weight"', twice, 1))
