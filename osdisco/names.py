"""Names of callers become keys of a store here, and nowhere else.

A key is segments joined by `/`. Each segment is escaped injectively to `[A-Za-z0-9_.-]` and `=HH`, so that no name can
step out of its place: `..`, `/`, `%2F`, spaces and letters of any script are only text. (A lock named
`job/../../agent/leave` once shut a Consul agent down through a client that followed redirects.)
"""

from __future__ import annotations

import re
from collections.abc import Collection

from osdisco.errors import InvalidNameError

SEGMENT_MAX = 255
"""Bytes of one segment in UTF-8, before escaping."""

_PLAIN = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9_.-]{1,255}\Z")
_PLAIN_KEY = re.compile(r"(?:(?!\.{1,2}(?:/|\Z))[A-Za-z0-9_.-]{1,255}/)*(?!\.{1,2}\Z)[A-Za-z0-9_.-]{1,255}\Z")
_ESCAPED = re.compile(r"(?:[A-Za-z0-9_.-]|=[0-9A-F]{2})+\Z")
_PLAIN_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"
_ENCODED = {byte: f"={byte:02X}" for byte in range(256)}
_ENCODED |= {byte: chr(byte) for byte in _PLAIN_BYTES}


def escape(segment: str) -> str:
    """Escape one segment.

    Raises:
        InvalidNameError: empty, over 255 bytes in UTF-8, or not encodable (a lone surrogate).
    """
    if isinstance(segment, str) and _PLAIN.match(segment):
        return segment
    raw = _bytes_of(segment)
    if raw in (b".", b".."):  # the only segments of dots that mean something in a path
        return "=2E" * len(raw)
    return "".join([_ENCODED[byte] for byte in raw])


def _bytes_of(segment: str) -> bytes:
    if not isinstance(segment, str):
        raise InvalidNameError(f"a name is text, not {type(segment).__name__}")
    if not segment:
        raise InvalidNameError(
            "a name must not be empty, nor may a key have an empty segment ('//' or a '/' at an end)"
        )
    try:
        raw = segment.encode()
    except UnicodeEncodeError:
        raise InvalidNameError(f"the name {segment!a} holds a lone surrogate and has no UTF-8 form") from None
    if len(raw) > SEGMENT_MAX:
        raise InvalidNameError(f"the name {segment[:40]!a}… has {len(raw)} bytes; {SEGMENT_MAX} are allowed")
    return raw


def unescape(escaped: str) -> str:
    """Turn an escaped segment back into the name.

    Raises:
        InvalidNameError: not something that `escape` writes (a foreign writer's key).
    """
    if _PLAIN.match(escaped):
        return escaped
    if not _ESCAPED.match(escaped):
        raise InvalidNameError(f"{escaped!a} is not an escaped name")
    try:
        name = re.sub(rb"=([0-9A-F]{2})", lambda m: bytes([int(m[1], 16)]), escaped.encode()).decode()
    except UnicodeDecodeError:
        raise InvalidNameError(f"{escaped!a} does not hold UTF-8") from None
    if escape(name) != escaped:
        raise InvalidNameError(f"{escaped!a} is not the canonical form of {name!a}")
    return name


def escape_key(key: str) -> str:
    """Escape a key, segment by segment. Raises InvalidNameError."""
    if isinstance(key, str) and _PLAIN_KEY.match(key):
        return key
    if not isinstance(key, str):
        raise InvalidNameError(f"a key is text, not {type(key).__name__}")
    return "/".join([escape(segment) for segment in key.split("/")])


def unescape_key(escaped: str) -> str:
    """Turn an escaped key back. Raises InvalidNameError for a foreign writer's key."""
    if _PLAIN_KEY.match(escaped):
        return escaped
    return "/".join([unescape(segment) for segment in escaped.split("/")])


def are_plain(keys: Collection[str]) -> bool:
    """Return whether all these escaped keys are their own names; at a small part of what asking for each would cost.

    False says nothing: one of them may be another writer's, escaped, or merely long.
    """
    whole = f"/{'/'.join(keys)}/"
    return (
        whole.isascii()
        and not whole.encode().translate(None, _PLAIN_BYTES + b"/")
        and not ("//" in whole or "/./" in whole or "/../" in whole)
        and len(max(keys, key=len)) <= SEGMENT_MAX
    )


def escape_prefix(prefix: str) -> str:
    """Escape a prefix: empty, or segments ending in `/`.

    Raises:
        InvalidNameError: it does not end in `/`, or one of its segments cannot be a name.
    """
    if not isinstance(prefix, str) or (prefix and not prefix.endswith("/")):
        raise InvalidNameError(f"the prefix {prefix!a} must end in '/' (or be empty for everything)")
    return escape_key(prefix[:-1]) + "/" if prefix else ""
