"""The hash by which a search cluster deals documents to shards (`Murmur3HashFunction`): murmur3 x86_32, seed 0.

https://github.com/aappleby/smhasher/blob/master/src/MurmurHash3.cpp; the text is hashed as UTF-16, low byte first.
"""

from __future__ import annotations

from struct import unpack_from
from typing import Final

_C1: Final = 0xCC9E2D51
_C2: Final = 0x1B873593
_32: Final = 0xFFFFFFFF


def routing_hash(text: str) -> int:
    """Return the hash of an id or a routing value, as the signed number of 32 bits that the cluster computes with."""
    data = text.encode("utf-16-le", "surrogatepass")  # as Java: a lone surrogate is two bytes like any other
    blocks, rest = divmod(len(data), 4)
    found = 0
    for block in unpack_from(f"<{blocks}I", data):
        found ^= _scrambled(block)
        found = _rotated(found, 13) * 5 + 0xE6546B64 & _32
    if rest:  # always two: one unit of UTF-16
        found ^= _scrambled(int.from_bytes(data[-rest:], "little"))
    return signed(_finished(found ^ len(data)))


def signed(number: int) -> int:
    """Return the number of 32 bits that is left of any number, as Java's `int` has it."""
    return (number + 0x80000000 & _32) - 0x80000000


def _scrambled(block: int) -> int:
    return _rotated(block * _C1 & _32, 15) * _C2 & _32


def _rotated(number: int, by: int) -> int:
    return (number << by | number >> 32 - by) & _32


def _finished(found: int) -> int:
    found = (found ^ found >> 16) * 0x85EBCA6B & _32
    found = (found ^ found >> 13) * 0xC2B2AE35 & _32
    return found ^ found >> 16
