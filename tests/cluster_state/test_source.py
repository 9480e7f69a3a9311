"""What a source makes of an answer, before anybody takes it apart."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from osdisco.cluster import StateVersion
from osdisco.cluster._body import STEP, BodyError, TooLongError, read_body
from osdisco.cluster._questions import VERSION, search_shards, state
from osdisco.cluster.source import parse_version
from osdisco.errors import ClusterDocumentError, ClusterError, ClusterUnavailableError
from osdisco.testing import run

FIXTURES = Path(__file__).parent / "fixtures"
SAID = {"cluster_name": "logs", "cluster_uuid": "u", "version": 7, "state_uuid": "s"}


def parsed(**changed: Any) -> StateVersion:
    return parse_version(json.dumps({**SAID, **changed}).encode(), "GET /x at os1:9200")


def test_the_version_is_read_and_what_else_stands_there_is_not_minded() -> None:
    assert parsed(more={"a": 1}) == StateVersion("logs", "u", 7, "s")
    fixture = parse_version((FIXTURES / "cluster_state_version.json").read_bytes(), "x")
    assert (fixture.version, fixture.state_uuid) == (172, "stateUUID-172")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", "7"),
        ("version", 7.0),
        ("version", True),
        ("version", None),
        ("version", -1),
        ("cluster_uuid", ""),
        ("cluster_uuid", 7),
        ("state_uuid", ""),
        ("state_uuid", None),
        ("cluster_name", ["logs"]),
    ],
)
def test_a_field_of_another_type_is_no_version(field: str, value: Any) -> None:
    with pytest.raises(ClusterDocumentError, match="GET /x at os1:9200"):
        parsed(**{field: value})


@pytest.mark.parametrize("field", SAID)
def test_a_field_that_is_missing_is_named(field: str) -> None:
    body = json.dumps({name: value for name, value in SAID.items() if name != field}).encode()
    with pytest.raises(ClusterDocumentError, match=field):
        parse_version(body, "GET /x at os1:9200")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff\xfe", b'{"a":1,"a":2}', b"null", b"[" * 60000])
def test_what_is_no_object_is_no_version(body: bytes) -> None:
    with pytest.raises(ClusterDocumentError):
        parse_version(body, "GET /x at os1:9200")


@pytest.mark.parametrize("field", ["cluster_uuid", "state_uuid"])
def test_a_node_that_has_not_learned_of_a_state_is_no_cluster_without_one(field: str) -> None:
    with pytest.raises(ClusterUnavailableError, match="not learned"):
        parsed(**{field: "_na_"})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"<!DOCTYPE html>", "web page"),
        (b"[1]", "no JSON object"),
        (b"null", "no JSON object"),
        (b'{"a":1', "ends before"),
        (b'{"a":1},', "ends before"),
    ],
)
def test_what_cannot_be_a_json_object_is_refused_unread(body: bytes, said: str) -> None:
    with pytest.raises(ClusterDocumentError, match=said):
        VERSION.check(body, "GET /x at os1:9200")


@pytest.mark.parametrize("body", [b"{}", b' {"a":1} \n'])
def test_what_can_be_a_json_object_is_let_through(body: bytes) -> None:
    VERSION.check(body, "GET /x")


@pytest.mark.parametrize("index", ["", "_all", "-logs", "+logs", None])
def test_what_is_no_index_is_not_asked_for(index: Any) -> None:
    with pytest.raises(ClusterError, match="no name of an index"):
        search_shards(index, None)


def test_the_name_of_an_index_stays_one_part_of_the_path() -> None:
    assert search_shards("a/../b?c", "r").path == "/a%2F..%2Fb%3Fc/_search_shards"


def test_nothing_is_left_out_when_nothing_is_to_be() -> None:
    assert state(()).params == {}
    assert state(("metadata.templates",)).params == {"filter_path": "-metadata.templates"}


async def chunks(body: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("size", [1, 7, 65536])
@pytest.mark.parametrize("encoding", ["", "identity", "gzip", " GZIP "])
async def test_a_body_is_what_was_sent(encoding: str, size: int) -> None:
    body = json.dumps({"a": list(range(1000))}).encode()
    packed = gzip.compress(body) if "gzip" in encoding.lower() else body
    assert await read_body(chunks(packed, size), encoding, len(body)) == body


@pytest.mark.parametrize("encoding", ["", "gzip"])
async def test_a_body_of_one_byte_too_many_is_refused(encoding: str) -> None:
    packed = gzip.compress(b"x" * 101) if encoding else b"x" * 101
    with pytest.raises(TooLongError, match="more than 100 bytes"):
        await read_body(chunks(packed), encoding, 100)


async def test_a_bomb_is_refused_before_it_has_grown() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = packer.compress(b"\0" * (64 * STEP)) + packer.flush()
    taken = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal taken
        async for chunk in chunks(bomb, 1024):
            taken += len(chunk)
            yield chunk

    with pytest.raises(TooLongError):
        await read_body(counted(), "gzip", STEP)
    assert taken < len(bomb) / 16, "it was read on"


async def test_one_chunk_of_a_bomb_is_not_unpacked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzip.compress(b"\0" * (8 * STEP))
    sizes: list[int] = []
    real = zlib.decompressobj(31)

    class Watched:
        def decompress(self, data: bytes, limit: int) -> bytes:
            out = real.decompress(data, limit)
            sizes.append(len(out))
            return out

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    monkeypatch.setattr("osdisco.cluster._body.zlib.decompressobj", lambda wbits: Watched())
    with pytest.raises(TooLongError):
        await read_body(chunks(bomb, len(bomb)), "gzip", 3 * STEP)
    assert max(sizes) <= STEP
    assert sum(sizes) <= 4 * STEP


@pytest.mark.parametrize(
    ("packed", "said"),
    [
        (gzip.compress(b"{}" * 1000, mtime=0)[:-9], "ends before its gzip does"),
        (gzip.compress(b"{}", mtime=0) + b"more", "goes on behind"),
        (gzip.compress(b"{}", mtime=0) + gzip.compress(b"{}", mtime=0), "goes on behind"),
        (b"{}", "is not"),
        (b"", "ends before its gzip does"),
    ],
)
async def test_a_gzip_that_is_none_is_refused(packed: bytes, said: str) -> None:
    for size in (1, 65536):
        with pytest.raises(BodyError, match=said):
            await read_body(chunks(packed, size), "gzip", 1000_000)


@given(
    st.binary()
    | st.dictionaries(st.text(), st.none() | st.integers() | st.text()).map(lambda o: json.dumps(o).encode())
)
def test_whatever_is_answered_is_a_version_or_an_error_that_says_of_what(body: bytes) -> None:
    try:
        version = parse_version(body, "GET /x at os1:9200")
    except ClusterError as exc:
        told = str(exc)
    else:
        told = f"GET /x at os1:9200: {version}"
        assert version.cluster_uuid
        assert version.version >= 0
    assert told.startswith("GET /x at os1:9200: ")


@given(st.binary(), st.binary(), st.integers(1, 64), st.sampled_from(["", "gzip"]))
def test_whatever_is_sent_is_a_short_body_or_an_error(body: bytes, noise: bytes, size: int, encoding: str) -> None:
    sent = (gzip.compress(body) if encoding else body) + noise
    try:
        read = run(read_body(chunks(sent, size), encoding, 64))
    except BodyError:
        return
    assert len(read) <= 64
    assert read == (body if encoding else sent)


async def test_a_packing_that_was_not_asked_for_is_refused() -> None:
    with pytest.raises(BodyError, match="'br'"):
        await read_body(chunks(b"{}"), "br", 100)
