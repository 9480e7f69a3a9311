"""Bodies of answers, unpacked no further than they may be long: a bomb is refused before it has grown."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterable
from typing import Final

STEP: Final = 1 << 20
"""Bytes that are unpacked before others have their turn."""

_GZIP: Final = 16 + zlib.MAX_WBITS


class BodyError(Exception):
    """A body that cannot be taken, and why."""


class TooLongError(BodyError):
    """A body of more bytes than are allowed."""


async def read_body(chunks: AsyncIterable[bytes], encoding: str, body_max: int) -> bytes:
    """Return a body without its encoding.

    Args:
        chunks: as they come.
        encoding: of the header `Content-Encoding`; gzip or none.
        body_max: bytes that it may have, unpacked.

    Raises:
        BodyError: longer, cut short, or packed by something else.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return await _plain(chunks, body_max)
    if encoding in ("gzip", "x-gzip"):
        return await _unzipped(chunks, body_max)
    raise BodyError(f"the answer is packed by {encoding!a:.40}, which was not asked for")


async def _plain(chunks: AsyncIterable[bytes], body_max: int) -> bytes:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        _check(body, body_max)
    return bytes(body)


async def _unzipped(chunks: AsyncIterable[bytes], body_max: int) -> bytes:
    body, unzip = bytearray(), zlib.decompressobj(_GZIP)
    try:
        async for chunk in chunks:
            rest = chunk
            while rest and not unzip.eof:
                body += unzip.decompress(rest, STEP)
                _check(body, body_max)
                if rest := unzip.unconsumed_tail:
                    await asyncio.sleep(0)
            if rest or unzip.unused_data:
                raise BodyError("the answer goes on behind the end of its gzip")
        body += unzip.flush()  # at most what one step had left over
        _check(body, body_max)
    except zlib.error:
        raise BodyError("the answer says that it is gzip, and is not") from None
    if not unzip.eof:
        raise BodyError("the answer ends before its gzip does")
    return bytes(body)


def _check(body: bytearray, body_max: int) -> None:
    if len(body) > body_max:
        raise TooLongError(f"the answer has more than {body_max} bytes")
