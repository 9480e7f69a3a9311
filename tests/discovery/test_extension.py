"""What an extension may say of itself, how it is read, found, and when it was last seen."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from typing import Any

import attrs
import pytest
from extensions import info, observer, registered
from hypothesis import given, settings, strategies as st
from worlds import World, until

from osdisco._records import decode, encode
from osdisco.discovery import EndpointInfo, ExtensionInfo, ExtensionStatus
from osdisco.discovery.registration import Registration, _read_quickly, read
from osdisco.errors import DiscoveryError, InvalidNameError, RecordError

HEALTHY = ExtensionStatus.HEALTHY

# What is refused, by a message that tells the field and what is allowed

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "port 0": ({"port": 0}, "1 to 65535"),
    "port 65536": ({"port": 65536}, "1 to 65535"),
    "port as text": ({"port": "9700"}, "1 to 65535"),
    "port as truth": ({"port": True}, "1 to 65535"),
    "no name": ({"name": ""}, "name must not be empty"),
    "name of no text": ({"name": None}, "name must be text, not NoneType"),
    "long version": ({"version": "1" * 129}, "version has 129 characters; 128 are"),
    "no host": ({"host": ""}, "host must not be empty"),
    "host with a port": ({"host": "http://a"}, "without spaces, brackets, scheme"),
    "host in brackets": ({"host": "[::1]"}, "such as 10.0.0.7 or ::1"),
    "host with a line": ({"host": "a\nb"}, "such as 10.0.0.7"),
    "10,000 capabilities": ({"capabilities": [f"c{n}" for n in range(10_000)]}, "10000 capabilities; 256 are allowed"),
    "long capability": ({"capabilities": ["c" * 256]}, "capability has 256 characters; 255 are"),
    "empty capability": ({"capabilities": [""]}, "capability must not be empty"),
    "one text": ({"capabilities": "geo.search"}, "list of texts"),
    "no list": ({"capabilities": 5}, "list of texts"),
    "numbers": ({"capabilities": [1]}, "capability must be text, not int"),
    "much metadata": ({"metadata": {str(n): "" for n in range(129)}}, "129 entries in metadata; 128 are"),
    "large metadata": ({"metadata": {"a": "x" * 4097}}, "metadata['a'] has 4097 characters; 4096 are"),
    "number as metadata": ({"metadata": {"a": 1}}, "metadata['a'] must be text, not int"),
    "metadata by number": ({"metadata": {1: "a"}}, "a name in metadata must be text"),
    "metadata of no kind": ({"metadata": [("a", "b")]}, "given by name, not as list"),
    "surrogate": ({"metadata": {"a": "\ud800"}}, "lone surrogate"),
    "many endpoints": ({"endpoints": {str(n): EndpointInfo("http", 1) for n in range(65)}}, "65 endpoints; 64 are"),
    "endpoint of no kind": (
        {"endpoints": {"rest": {"protocol": "http", "port": 1}}},
        "must be an EndpointInfo, not dict",
    ),
    "status as text": ({"status": "healthy"}, "one of ExtensionStatus, not str"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_field_is_refused_and_named(name: str) -> None:
    changes, says = REFUSED[name]
    with pytest.raises(DiscoveryError) as caught:
        info(**changes)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{"port": 0}, {"protocol": ""}, {"protocol": 5}, {"path": None}, {"path": "x" * 2049}]
)
def test_a_wrong_endpoint_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DiscoveryError):
        EndpointInfo(**{"protocol": "http", "port": 9700, **changes})


def test_what_was_given_can_be_changed_without_changing_the_extension() -> None:
    metadata, capabilities = {"zone": "a"}, ["a"]
    extension = info(metadata=metadata, capabilities=capabilities)
    metadata["zone"] = "b"
    capabilities.append("b")
    assert extension == info(metadata={"zone": "a"}, capabilities=["a"])


# The body of OpenSearch

BODY = {
    "name": "anomaly-detection",
    "uniqueId": "ad-extension",
    "hostAddress": "127.0.0.1",
    "port": "4532",
    "version": "1.0",
    "opensearchVersion": "3.0.0",
    "minimumCompatibleVersion": "3.0.0",
    "dependencies": [{"uniqueId": "job-scheduler", "version": "2.0"}],
    "implemented_interfaces": ["Extension", "ActionExtension"],
    "new": 5,
}
READ = ExtensionInfo(
    id="ad-extension",
    name="anomaly-detection",
    version="1.0",
    host="127.0.0.1",
    port=4532,
    capabilities=["Extension", "ActionExtension"],
    metadata={
        "opensearch.version": "3.0.0",
        "opensearch.minimumCompatibleVersion": "3.0.0",
        "opensearch.dependencies.job-scheduler": "2.0",
    },
)


@pytest.mark.parametrize("body", [BODY, json.dumps(BODY), json.dumps(BODY).encode(), {**BODY, "port": 4532}])
def test_the_body_of_opensearch_is_read(body: Any) -> None:
    assert ExtensionInfo.from_extension_json(body) == READ


def test_dependencies_and_interfaces_may_be_missing() -> None:
    body = {name: value for name, value in BODY.items() if name not in ("dependencies", "implemented_interfaces")}
    assert ExtensionInfo.from_extension_json(body).capabilities == ()


NEEDED = ["name", "uniqueId", "hostAddress", "port", "version", "opensearchVersion", "minimumCompatibleVersion"]


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("wrong", [None, 5.5, ["x"], {}, True])
def test_a_field_of_the_body_that_is_missing_or_wrong_is_named(name: str, wrong: object) -> None:
    with pytest.raises(DiscoveryError, match=name):
        ExtensionInfo.from_extension_json({**BODY, name: wrong})
    with pytest.raises(DiscoveryError, match=f"lacks '{name}'"):
        ExtensionInfo.from_extension_json({key: value for key, value in BODY.items() if key != name})


WRONG_BODIES = [
    {**BODY, "port": "0"},
    {**BODY, "port": "65536"},
    {**BODY, "port": "٣"},
    {**BODY, "port": " 80"},
    {**BODY, "port": "9" * 5000},
    {**BODY, "uniqueId": ""},
    {**BODY, "uniqueId": "x" * 256},
    {**BODY, "dependencies": {}},
    {**BODY, "dependencies": ["job-scheduler"]},
    {**BODY, "dependencies": [{"uniqueId": "job-scheduler"}]},
    {**BODY, "dependencies": [{"uniqueId": 5, "version": "1"}]},
    {**BODY, "implemented_interfaces": "Extension"},
    {**BODY, "implemented_interfaces": [1]},
    "",
    "{",
    "[]",
    '{"name": NaN}',
    '{"name": "a", "name": "b"}',
    b"\xff",
    "\ud800",
    None,
    5,
    "[" * 100_000,
]


@pytest.mark.parametrize("body", WRONG_BODIES, ids=lambda body: repr(body)[:40])
def test_a_wrong_body_is_one_discovery_error(body: Any) -> None:
    with pytest.raises(DiscoveryError):
        ExtensionInfo.from_extension_json(body)


# Reading records quickly and strictly

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\\"), min_size=1, max_size=5)
EXTENSIONS = st.builds(
    ExtensionInfo,
    id=TEXT,
    name=TEXT,
    version=TEXT,
    host=st.sampled_from(["a", "::1", "10.0.0.7"]),
    port=st.integers(1, 65535),
    capabilities=st.lists(TEXT, max_size=3),
    endpoints=st.dictionaries(
        TEXT, st.builds(EndpointInfo, protocol=TEXT, port=st.integers(1, 65535), path=TEXT), max_size=2
    ),
    metadata=st.dictionaries(TEXT, TEXT, max_size=3),
    status=st.sampled_from(ExtensionStatus),
)


def outcome(value: bytes) -> tuple[ExtensionInfo, int] | str:
    try:
        registration = decode(value, Registration)
    except RecordError as exc:
        return str(exc)
    return registration.extension, registration.incarnation


@given(EXTENSIONS, st.integers(0, 2**63))
@settings(deadline=None)
def test_what_osdisco_writes_is_read_as_it_was(extension: ExtensionInfo, incarnation: int) -> None:
    value = encode(Registration(extension, incarnation))
    assert read(value) == (extension, incarnation) == outcome(value)


def test_what_osdisco_writes_is_read_the_quick_way() -> None:
    extension = info(
        capabilities=["geo.search"], endpoints={"rest": EndpointInfo("http", 9700)}, metadata={"zone": "a b", "é": ""}
    )
    assert _read_quickly(encode(Registration(extension, 7))) == (extension, 7)


JSON = (
    st.none() | st.booleans() | st.integers(-1, 70_000) | st.floats() | st.text(max_size=3) | st.sampled_from([[], {}])
)
PLACES = [
    *[("extension", field.name) for field in attrs.fields(ExtensionInfo)],
    ("incarnation",),
    ("extension",),
    ("extension", "capabilities", 0),
    ("extension", "metadata", "zone"),
    ("extension", "endpoints", "rest"),
    *[("extension", "endpoints", "rest", field.name) for field in attrs.fields(EndpointInfo)],
    ("extension", "new"),
]
GOOD = Registration(
    info(capabilities=["a"], endpoints={"rest": EndpointInfo("http", 1)}, metadata={"zone": "a"}, status=HEALTHY), 5
)


@given(st.sampled_from(PLACES), JSON | st.just(...))
@settings(max_examples=200, deadline=None)
def test_records_of_others_are_read_as_the_strict_reader_does(place: tuple[Any, ...], value: object) -> None:
    """`...` takes the field away."""
    record = json.loads(encode(GOOD))
    *path, last = place
    there = record
    for step in path:
        there = there[step]
    if value is ...:
        there.pop(last) if last != "new" else None
    else:
        there[last] = value
    _agree(json.dumps(record).encode())


PIECES = [b'"zone":"b",', b'"id":"x",', b"\\u0041", b"\\ud800", b"\xed\xa0\x80", b" ", b"\n", b'\\"', b"1", b"NaN", b""]


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_bytes_that_others_put_between_are_read_as_the_strict_reader_does(data: st.DataObject) -> None:
    value = bytearray(encode(GOOD))
    at = data.draw(st.integers(0, len(value)))
    pieces = [
        b'"zone":"b",',
        b'"id":"x",',
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
    value[at : at + data.draw(st.integers(0, 3))] = data.draw(st.sampled_from(pieces))
    _agree(bytes(value))


def _agree(value: bytes) -> None:
    try:
        got: object = read(value)
    except RecordError as exc:
        got = str(exc)
    assert got == outcome(value)


def test_a_field_twice_is_found_whatever_hides_it() -> None:
    good = encode(GOOD)
    for twice in (b'"port" :1,"port"', b'"port"\n:1,"port"', b'"a\\"b":1,"port":1,"port"', b'"port":1,"po\\u0072t"'):
        with pytest.raises(RecordError):
            read(good.replace(b'"port"', twice, 1))
    for part in (b'"zone":"a"', b'"protocol":"http"', b'"rest":{"protocol":"http","port":1,"path":"/"}'):
        name, _, value = part.partition(b":")
        for gap in (b"", b" ", b"\n", b"\t", b"\r"):
            with pytest.raises(RecordError, match="twice"):
                read(good.replace(part, part + b"," + name + gap + b":" + value))


# Found


async def test_find_takes_what_is_all_of_what_is_asked_for(world: World) -> None:
    seer = await observer(world.process())
    client = world.process()
    await registered(client, "a", version="1.4.0", metadata={"zone": "a"}, status=HEALTHY, capabilities=["x", "y"])
    await registered(client, "b", version="2.0.0", metadata={"zone": "b"}, capabilities=["x"])
    await registered(client, "c", name="knn", version="nightly", metadata={"zone": "a", "gpu": "1"})
    await until(lambda: len(seer.extensions) == 3)

    def found(**asked: Any) -> str:
        assert seer.find(**asked) == seer.extensions.find(**asked)
        return "".join(sorted(extension.id for extension in seer.find(**asked)))

    assert found() == "abc"
    assert (found(name="geo"), found(name="knn"), found(name="none")) == ("ab", "c", "")
    assert (found(version=">=1.2,<2"), found(version="==nightly"), found(version="!=1.4")) == ("a", "c", "b")
    assert (found(status=HEALTHY), found(capability="x"), found(capability="y", name="geo")) == ("a", "ab", "a")
    assert (found(zone="a"), found(metadata={"zone": "a", "gpu": "1"}), found(metadata={})) == ("ac", "c", "abc")
    assert found(name="geo", version=">=1", status=HEALTHY, capability="x", metadata={"zone": "a"}, zone="a") == "a"
    assert found(name="knn", capability="x") == ""


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"version": "1.2"}, ">=1.2,<2"),
        ({"status": "healthy"}, "ExtensionStatus"),
        ({"capability": ["x"]}, "text"),
        ({"name": 5}, "text"),
        ({"metadata": {"a": 1}}, "text"),
        ({"metadata": "zone"}, "by name"),
        ({"metadata": []}, "by name"),
        ({"zone": 1}, "text"),
        ({"zone": []}, "text"),
        ({"version": []}, ">=1.2,<2"),
        ({"status": []}, "STARTING, HEALTHY"),
    ],
)
async def test_find_refuses_what_can_match_nothing(world: World, asked: dict[str, Any], says: str) -> None:
    seer = await observer(world.process())
    with pytest.raises(DiscoveryError, match=says):
        seer.find(**asked)


async def test_the_indexes_follow_every_change(world: World) -> None:
    seer = await observer(world.process())
    discovery = await registered(world.process(), "a", capabilities=["x", "y"])
    await discovery.update(capabilities=["y", "z"], name="knn")
    await until(lambda: seer.find_by_capability("z"))
    assert [one.name for one in seer.find_by_capability("y")] == ["knn"]
    assert seer.find_by_capability("x") == seer.find(name="geo") == []
    assert seer.find(name="knn") == seer.find_by_capability("z") == [discovery.extension]
    await discovery.stop()
    await until(lambda: not seer.extensions)
    assert seer.find_by_capability("y") == seer.find(name="knn") == []
    assert not seer.extensions._index.capable


# Last seen


async def test_last_seen_is_when_the_store_last_spoke_of_it(world: World) -> None:
    client, wall = world.process(), world.clock.wall
    seer = await observer(client)
    service = world.process()
    discovery = await registered(service)
    await until(lambda: seer.extensions)
    extension = seer.extensions["geo"]
    assert extension.last_seen == pytest.approx(wall(), abs=1)
    assert discovery.extension.last_seen is None
    await asyncio.sleep(60)
    assert wall() - extension.last_seen <= 15
    client.backend.faults.outage()
    began = wall()
    await asyncio.sleep(60)
    assert began - 16 <= extension.last_seen <= began
    world.kill(service)
    await asyncio.sleep(2 * world.ttl)
    client.backend.faults.clear()
    await until(lambda: not seer.extensions, 30)
    assert extension.last_seen <= began, "it was not seen again, it was seen to be gone"
    (found,) = await registered_alone(world)
    assert found.last_seen == pytest.approx(wall(), abs=1)


async def registered_alone(world: World) -> list[ExtensionInfo]:
    return await (await registered(world.process(), "other")).discover_extensions()


async def test_last_seen_stays_when_the_service_stops(world: World) -> None:
    seer = await observer(world.process())
    await registered(world.process())
    await until(lambda: seer.extensions)
    extension = seer.extensions["geo"]
    await seer.stop()
    at = extension.last_seen
    await asyncio.sleep(10)
    assert extension.last_seen == at == pytest.approx(world.clock.wall() - 10, abs=1)


async def test_last_seen_is_in_neither_equality_nor_json_nor_copies(world: World) -> None:
    seer = await observer(world.process())
    discovery = await registered(world.process())
    await until(lambda: seer.extensions)
    seen = seer.extensions["geo"]
    assert seen == discovery.extension
    assert seen.last_seen is not None
    assert encode(Registration(seen)) == encode(Registration(discovery.extension))
    assert "seen" not in str(attrs.asdict(seen)) + repr(seen)
    for same in (pickle.loads(pickle.dumps(seen)), copy.deepcopy(seen), attrs.evolve(seen)):
        assert same == seen
        assert same.last_seen is None


def test_an_id_that_cannot_be_a_name_is_refused_in_a_record() -> None:
    with pytest.raises(InvalidNameError):
        info("")
    with pytest.raises(RecordError, match="must not be empty"):
        read(encode(GOOD).replace(b'"id":"geo"', b'"id":""'))
