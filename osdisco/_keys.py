"""What a client writes, as the store has it: keys under a root, the way from names to keys and back, and values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from osdisco._checks import check_key
from osdisco.backend import Item, Limits
from osdisco.errors import InvalidCommitError, InvalidNameError
from osdisco.names import are_plain, escape, escape_key, escape_prefix, unescape_key


class Keyspace:
    """Names under `root`, which is escaped and ends in `/` (or is empty)."""

    __slots__ = ("limits", "root")

    def __init__(self, root: str, limits: Limits) -> None:
        self.root = root
        self.limits = limits

    def key(self, name: str) -> str:
        """Return the store's key for a name of any segments. Raises InvalidNameError."""
        key = self.root + escape_key(name)
        if len(key) > self.limits.key_max:
            check_key(key, self.limits)
        return key

    def prefix(self, name: str) -> str:
        """Return the store's prefix for a name that ends in `/` or is empty. Raises InvalidNameError."""
        prefix = self.root + escape_prefix(name)
        check_key(prefix, self.limits)
        return prefix

    def join(self, *segments: str) -> str:
        """Return the store's key of segments that are one each, whatever they hold. Raises InvalidNameError."""
        key = f"{self.root}{_path(segments[:-1])}{escape(segments[-1])}"
        check_key(key, self.limits)
        return key

    def name(self, key: str) -> str | None:
        """Return the name of a store's key; None for a foreign writer's key that is no escaped name."""
        try:
            return unescape_key(key[len(self.root) :])
        except InvalidNameError:
            return None

    def names(self, keys: Iterable[str]) -> list[str | None]:
        """Return the names of many keys, in order; None as above."""
        start = len(self.root)
        keys = list(keys)
        rests = [key[start:] for key in keys]
        return list(rests) if are_plain(rests) else [self.name(key) for key in keys]

    def by_name(self, items: Mapping[str, Item]) -> dict[str, Item]:
        """Return items that are given by key, by name; foreign writers' left out. In them the key stays."""
        named = dict(zip(self.names(items), items.values(), strict=True))
        named.pop(None, None)
        return named  # type: ignore[return-value] # None is out

    def items(self, items: Iterable[Item]) -> dict[str, Item]:
        """Return items by name and under it, foreign writers' left out."""
        items = list(items)
        names = self.names([item.key for item in items])
        return {name: renamed(item, name) for name, item in zip(names, items, strict=True) if name is not None}

    def deeper(self, name: str) -> Keyspace:
        """Return the key space below a name of any segments. Raises InvalidNameError."""
        return Keyspace(self.key(name) + "/", self.limits)


def renamed(item: Item, name: str) -> Item:
    """Return an item under its name."""
    return Item(name, item.value, item.created, item.revision, item.lease)


@lru_cache(1024)
def _path(segments: tuple[str, ...]) -> str:
    """Return escaped segments, each with its `/`. Kept, because of a queue's keys only the end differs."""
    return "".join([f"{escape(segment)}/" for segment in segments])


def as_bytes(value: bytes) -> bytes:
    """Return a value. Raises InvalidCommitError when it is not bytes, which no type checker stops in untyped code."""
    if isinstance(value, bytes):
        return value
    raise InvalidCommitError(f"a value is bytes, not {type(value).__name__}; encode it first")
