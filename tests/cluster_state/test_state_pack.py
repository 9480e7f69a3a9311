"""Packs: the same content is the same text at the same address, a change touches one, and no blob is believed."""

from __future__ import annotations

import random
import zlib
from hashlib import sha256

import pytest
from hypothesis import given, settings, strategies as st

from osdisco.cluster._json import canonical
from osdisco.cluster._pack import PACK_BYTES, PACKS_MAX, TEXT_MAX, Packs, compress, expand, k_of, lines, pack
from osdisco.errors import ClusterDocumentError

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PARTS = st.dictionaries(NAMES, st.integers().map(canonical), max_size=40)


def many(count: int, size: int = 1000) -> dict[str, bytes]:
    return {f"index/logs-{number:06}": canonical("x" * size) for number in range(count)}


def content(packs: Packs) -> dict[str, bytes]:
    return {name: part for one in packs.packs for name, part in lines(one.text)}


@settings(deadline=None)
@given(PARTS, st.none() | st.integers(0, 6))
def test_packs_hold_all_parts_each_once_whatever_their_names(parts: dict[str, bytes], k: int | None) -> None:
    packs = pack(parts, k)
    assert content(packs) == parts
    assert sum(len(list(lines(one.text))) for one in packs.packs) == len(parts)
    for one in packs.packs:
        assert one.sha == sha256(one.text).hexdigest()
        assert expand(compress(one.text), len(one.text), one.sha) == one.text


@settings(deadline=None)
@given(PARTS, st.randoms())
def test_the_order_of_parts_does_not_matter(parts: dict[str, bytes], dice: random.Random) -> None:
    mixed = list(parts.items())
    dice.shuffle(mixed)
    assert pack(dict(mixed)) == pack(parts)


def test_a_component_without_parts_has_no_packs() -> None:
    assert pack({}).packs == ()


def test_one_changed_part_changes_one_pack() -> None:
    before = pack(many(1000))
    after = pack(many(1000) | {"index/logs-000500": canonical("moved")}, before.k)
    assert 10 < len(before.packs) <= 16
    assert len({one.sha for one in before.packs} - {one.sha for one in after.packs}) == 1


def test_packs_stay_as_they_are_while_a_component_grows_and_shrinks_a_little() -> None:
    k = pack(many(1000)).k
    ks = {k := pack(many(count), k).k for count in [*range(1000, 1900, 50), *range(1900, 300, -50)]}
    assert len(ks) == 1


def test_packs_become_more_when_they_are_too_large_and_never_too_many() -> None:
    k = pack(many(1)).k
    assert k == 0
    sizes = []
    for count in (100, 1000, 4000, 10_000, 20_000):
        packs = pack(many(count), k)
        k = packs.k
        assert len(packs.packs) <= PACKS_MAX
        sizes.append(max(len(one.text) for one in packs.packs))
    assert all(size < 3 * PACK_BYTES for size in sizes[:3])
    assert k == 6


def test_a_new_leader_tells_from_the_number_of_packs_how_they_were_dealt() -> None:
    for count in (1, 70, 300, 1000, 4000):
        packs = pack(many(count))
        assert k_of(len(packs.packs)) == packs.k
    assert k_of(0) == 0


@pytest.mark.parametrize("k", [-1, 7, 1000])
def test_a_k_that_cannot_be_is_chosen_anew(k: int) -> None:
    assert pack(many(1000), k) == pack(many(1000))


def test_a_name_that_no_store_could_hold_is_refused() -> None:
    with pytest.raises(ClusterDocumentError, match="lone surrogate"):
        pack({"index/\ud800": b"1"})


TEXT = b'"a"\t1\n"b"\t2\n'
SHA = sha256(TEXT).hexdigest()
DATA = compress(TEXT)


@pytest.mark.parametrize(
    ("data", "size", "sha", "says"),
    [
        (DATA, len(TEXT) - 1, SHA, "larger than the 11 bytes"),
        (DATA, len(TEXT) + 1, SHA, "a pack of 12 bytes, of which its head says 13"),
        (DATA, 0, SHA, "from 1 to"),
        (DATA, -1, SHA, "from 1 to"),
        (DATA, TEXT_MAX + 1, SHA, "from 1 to"),
        (DATA[:-1], len(TEXT), SHA, "cut short"),
        (DATA + b"x", len(TEXT), SHA, "something behind its end"),
        (DATA + DATA, len(TEXT), SHA, "something behind its end"),
        (b"", len(TEXT), SHA, "cut short"),
        (TEXT, len(TEXT), SHA, "zlib cannot expand"),
        (compress(TEXT.replace(b"1", b"3")), len(TEXT), SHA, "not what its address says"),
        (DATA, len(TEXT), SHA.upper(), "not what its address says"),
    ],
)
def test_a_blob_that_is_not_what_its_head_says_is_refused(data: bytes, size: int, sha: str, says: str) -> None:
    with pytest.raises(ClusterDocumentError, match=says):
        expand(data, size, sha)


def test_a_bomb_is_defused_before_it_is_expanded() -> None:
    """100 MB of zeros take 100 kB; of them no more is made than the head admits to."""
    bomb = zlib.compress(bytes(100_000_000))
    made: list[int] = []
    original = zlib.decompressobj

    class Counting:
        def __init__(self) -> None:
            self._stream = original()

        def decompress(self, data: bytes, most: int) -> bytes:
            text = self._stream.decompress(data, most)
            made.append(len(text))
            return text

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zlib, "decompressobj", Counting)
        with pytest.raises(ClusterDocumentError, match="larger than the 64000 bytes"):
            expand(bomb, 64_000, SHA)
    assert made == [64_001]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b'"a"\t1',
        b'"a" 1\n',
        b"a\t1\n",
        b"1\t1\n",
        b'"a"\t1\n\n',
        b'"a"\t1\n"a"\t2\n',
        b'"b"\t1\n"a"\t2\n',
        b'"\xff"\t1\n',
        b"[" * 100_000 + b"\t1\n",
    ],
)
def test_a_text_that_is_no_pack_is_refused(text: bytes) -> None:
    with pytest.raises(ClusterDocumentError):
        list(lines(text))
