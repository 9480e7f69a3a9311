"""Packs: the parts of a component dealt into a few texts, so that a change costs one small blob and not all.

    packs = pack(parts, previous.k)                     # the writer: parts by name, as `cut_state` gives them
    for one in packs.packs:
        put(one.sha, compress(one.text))                # cut into pieces by whoever writes; the head keeps both sizes
    text = expand(data, size, sha)                      # the reader, of all pieces of one blob
    state = builder.build(header, {component: [(sha, text), …]})

A pack is lines `<name as JSON>\\t<canonical JSON>\\n`, sorted by name. Its address is the SHA-256 of that text, not of
the compressed bytes: another version of zlib compresses otherwise, and the same content must stay where it is. A part
is in pack `crc32(name as JSON) & (2**k - 1)`, so one that changes leaves all other packs as they are.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Final

from attrs import frozen

from osdisco.cluster._json import canonical
from osdisco.errors import ClusterDocumentError

PACK_BYTES: Final = 64 * 1024
"""How much text a pack is to have: small enough to be sent for one moved shard, large enough to compress well."""
PACKS_MAX: Final = 64
"""Packs of one component: the head names all, and must stay small."""
TEXT_MAX: Final = 64 * 1024 * 1024
"""Bytes of one pack's text: what a reader is ready to make of a blob, whatever its head says."""
LEVEL: Final = 6

_K_MAX: Final = PACKS_MAX.bit_length() - 1


@frozen
class Pack:
    """A text, and its address."""

    sha: str
    text: bytes


@frozen
class Packs:
    """A component in packs. `k`: they are dealt by so many bits; give it to the next `pack` of this component."""

    k: int
    packs: tuple[Pack, ...]


def pack(parts: Mapping[str, bytes], previous_k: int | None = None) -> Packs:
    """Deal parts into packs; empty ones are left out, so a component without parts has none.

    Args:
        parts: canonical JSON by name.
        previous_k: what the last call gave for this component. It is kept while packs are neither far too small nor too
            large: another k moves all parts. A new leader, who knows only the head, takes `k_of(number of its packs)`.

    Raises:
        ClusterDocumentError: a pack over TEXT_MAX, or a name that UTF-8 cannot hold.
    """
    k = _chosen(sum(map(len, parts.values())), previous_k)
    dealt: dict[int, list[bytes]] = {}
    for name in sorted(parts):
        encoded = _encoded(name)
        dealt.setdefault(zlib.crc32(encoded) & (1 << k) - 1, []).append(b"%b\t%b\n" % (encoded, parts[name]))
    return Packs(k, tuple(_packed(dealt[number]) for number in sorted(dealt)))


def k_of(packs: int) -> int:
    """Return the k by which a component of so many packs was most likely dealt: most often none of them is empty."""
    return max(packs - 1, 0).bit_length()


def compress(text: bytes) -> bytes:
    """Return what is stored of a text. The interpreter is free meanwhile: worth a thread."""
    return zlib.compress(text, LEVEL)


def expand(data: bytes, size: int, sha: str) -> bytes:
    """Return the text of a blob, all of whose pieces were joined. Makes no more than `size` bytes of it.

    Raises:
        ClusterDocumentError: no zlib, cut short, with something behind it, another size, or not what its address says.
    """
    if not 0 < size <= TEXT_MAX:
        raise ClusterDocumentError(f"a pack of {size} bytes; from 1 to {TEXT_MAX} are allowed")
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(data, size + 1)
    except zlib.error:
        raise ClusterDocumentError("a pack that zlib cannot expand") from None
    if len(text) > size:
        raise ClusterDocumentError(f"a pack that is larger than the {size} bytes that its head says")
    if not stream.eof or stream.unused_data:
        raise ClusterDocumentError("a pack that is cut short, or with something behind its end")
    if len(text) != size:
        raise ClusterDocumentError(f"a pack of {len(text)} bytes, of which its head says {size}")
    if sha256(text).hexdigest() != sha:
        raise ClusterDocumentError("a pack that is not what its address says")
    return text


def lines(text: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield names and canonical JSON of the parts of a pack.

    Raises:
        ClusterDocumentError: a line without a name, names that are not sorted or come twice, or a last line cut short.
    """
    if not text.endswith(b"\n"):
        raise ClusterDocumentError("a pack whose last line has no end")
    last: str | None = None
    for line in text[:-1].split(b"\n"):
        encoded, tab, part = line.partition(b"\t")
        name = _decoded(encoded)
        if not tab or (last is not None and name <= last):
            raise ClusterDocumentError("a pack whose lines are not parts sorted by name")
        last = name
        yield name, part


def _chosen(size: int, previous_k: int | None) -> int:
    """Return k: the one before, as long as its packs have a quarter to twice of what they are to have."""
    if previous_k is not None and 0 <= previous_k <= _K_MAX:
        wanted = PACK_BYTES << previous_k
        if (size >= wanted // 4 or previous_k == 0) and (size <= wanted * 2 or previous_k == _K_MAX):
            return previous_k
    return min(max(size - 1, 0) // PACK_BYTES, PACKS_MAX - 1).bit_length()


def _packed(ends: list[bytes]) -> Pack:
    text = b"".join(ends)
    if len(text) > TEXT_MAX:
        raise ClusterDocumentError(f"a pack of {len(text)} bytes; {TEXT_MAX} are allowed")
    return Pack(sha256(text).hexdigest(), text)


def _encoded(name: str) -> bytes:
    try:
        return canonical(name)
    except ValueError:
        raise ClusterDocumentError(f"{name!a} holds a lone surrogate") from None


def _decoded(encoded: bytes) -> str:
    try:
        name = json.loads(encoded.decode())
    except (ValueError, RecursionError):
        name = None
    if not isinstance(name, str):
        raise ClusterDocumentError("a pack with a line that has no name")
    return name
