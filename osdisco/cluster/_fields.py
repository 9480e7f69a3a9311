"""The fields of one JSON object: what is missing is lenient, what is there must be of its type.

Between 1.x and 3.x fields came and went, so nothing depends on one that another version lacks; but a number where text
belongs means that the answer is not what it seems to be. `null` counts as missing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

from osdisco.errors import ClusterDocumentError

T = TypeVar("T")

_DEPTH: Final = 64
"""Dots in the name of a setting."""


class Fields:
    """Reads an object. `place` says in errors where it was: the value itself is never shown.

    Raises:
        ClusterDocumentError: it is no object; from all methods: a field of another type.
    """

    __slots__ = ("_given", "_place")

    def __init__(self, given: Any, place: str) -> None:
        if not isinstance(given, dict):
            raise ClusterDocumentError(f"{place} must be an object, not {kind(given)}")
        self._given: Final[dict[str, Any]] = given
        self._place: Final = place

    def text(self, name: str) -> str:
        """Return text; empty when it is missing."""
        return self._get(name, str, "text") or ""

    def optional(self, name: str) -> str | None:
        """Return text, or None when it is missing."""
        return self._get(name, str, "text")

    def name(self, name: str) -> str | None:
        """Return text that many objects have, such as a node's id: all of them have the same object."""
        found = self._get(name, str, "text")
        return None if found is None else sys.intern(found)

    def whole(self, name: str, default: int = 0) -> int:
        """Return a whole number."""
        found = self._given.get(name)
        if found is None:
            return default
        if type(found) is not int:
            raise self.wrong(name, "a whole number", found)
        return found

    def flag(self, name: str) -> bool:
        """Return True or False; False when it is missing."""
        return bool(self._get(name, bool, "true or false"))

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts; empty when it is missing."""
        found = self._get(name, list, "a list") or ()
        for one in found:
            if not isinstance(one, str):
                raise self.wrong(name, "a list of texts", one, "one that holds ")
        return tuple(map(sys.intern, found))

    def has(self, name: str) -> bool:
        """Return whether a field is there, and not null."""
        return self._given.get(name) is not None

    def inside(self, name: str) -> Fields:
        """Return the object in a field; an empty one when it is missing."""
        found = self._given.get(name)
        return Fields({} if found is None else found, self.place(name))

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yield all fields, as they are."""
        return iter(self._given.items())

    def entries(self, name: str) -> Iterator[Fields]:
        """Yield the objects in a list."""
        for number, value in enumerate(self._get(name, list, "a list") or ()):
            yield Fields(value, f"{self.place(name)}[{number}]")

    def raw(self) -> Mapping[str, Any]:
        """Return the object itself."""
        return self._given

    def place(self, name: str) -> str:
        """Return where a field is."""
        return f"{self._place}.{shown(name)}"

    def at(self, key: str) -> str:
        """Return where a value is that has a name of its own, such as an index."""
        return within(self._place, key)

    def wrong(self, name: str, allowed: str, found: object, which: str = "") -> ClusterDocumentError:
        """Return the error that says which field is wrong, and what is allowed there."""
        return ClusterDocumentError(f"{self.place(name)} must be {allowed}, not {which}{kind(found)}")

    def _get(self, name: str, expected: type[T], allowed: str) -> T | None:
        found = self._given.get(name)
        if found is not None and not isinstance(found, expected):
            raise self.wrong(name, allowed, found)
        return found


def flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str | tuple[str, ...]]]:
    """Return settings by their full names, whether they were given nested or flat; null ones are left out.

    Raises:
        ClusterDocumentError: nested deeper than any setting is.
    """
    if prefix.count(".") > _DEPTH:
        raise ClusterDocumentError("settings are nested too deeply")
    found: list[tuple[str, str | tuple[str, ...]]] = []
    for name, value in settings.items():
        if isinstance(value, dict):
            found += flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            found.append((prefix + name, tuple(map(_setting, value))))
        elif value is not None:
            found.append((prefix + name, _setting(value)))
    return found


def _setting(value: object) -> str:
    """Return the text of a setting: other versions write numbers and flags as what they are."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def numbered(name: str, place: str) -> int:
    """Return the number that a name is, as shards and blocks have it. Raises ClusterDocumentError."""
    if not (name.isascii() and name.isdigit() and len(name) < 10):
        raise ClusterDocumentError(f"{place}: the name must be a number")
    return int(name)


def within(place: str, key: str) -> str:
    """Return where something is that has a name of its own."""
    return f"{place}[{shown(key)}]"


def shown(name: str) -> str:
    """Return a name as it may be shown: it comes from others, and no control character of it may get into a log."""
    return name if name.isprintable() and len(name) <= 255 else ascii(name[:255])


def kind(value: object) -> str:
    """Return what JSON calls the type of a value."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
