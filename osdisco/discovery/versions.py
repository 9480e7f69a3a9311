"""Versions, compared as SemVer with missing parts as zero, and specifiers such as `>=1.2,<2`.

No package fits: `packaging` follows PEP 440, to which `3.0.0-SNAPSHOT` is nothing, and `semver` wants all three parts.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from attrs import field, frozen

from osdisco.errors import DiscoveryError

PARTS_MAX: Final = 4
"""Numbers of a version. SemVer has three; plugins of OpenSearch have a fourth."""

_NUMBER = r"(?:0|[1-9][0-9]{0,17})"
_IDENTIFIER = rf"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(
    rf"(?P<numbers>{_NUMBER}(?:\.{_NUMBER}){{0,{PARTS_MAX - 1}}})"
    rf"(?:-(?P<pre>{_IDENTIFIER}(?:\.{_IDENTIFIER})*))?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)
_CLAUSE = re.compile(r"\s*(?P<sign>>=|<=|==|!=|~=|>|<)\s*(?P<version>[^\s,<>=!~]+)\s*")

_LOWEST: Final[tuple[tuple[int, int, str], ...]] = (
    (0, 0, ""),
)  # the pre-release `0`: no version of its numbers is lower

ALLOWED: Final = "clauses such as '>=1.2,<2', separated by commas, each one of >= <= > < == != ~= and a version"


@frozen(order=True)
class Version:
    """A version's place in the order. Two that differ in build metadata or in zeros at the end are the same."""

    numbers: tuple[int, ...]
    released: bool
    pre: tuple[tuple[int, int, str], ...] = ()
    given: int = field(default=0, eq=False, order=False)
    """How many numbers were written."""


_ORDER: Final[dict[str, Callable[[Version, Version], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@lru_cache(4096)
def parse(text: str) -> Version | None:
    """Return a version; None for what is none."""
    found = _VERSION.fullmatch(text)
    if found is None:
        return None
    numbers = tuple(map(int, found["numbers"].split(".")))
    pre = tuple(map(_identifier, found["pre"].split("."))) if found["pre"] else ()
    return Version(_padded(numbers), not pre, pre, len(numbers))


def _padded(numbers: tuple[int, ...]) -> tuple[int, ...]:
    return numbers + (0,) * (PARTS_MAX - len(numbers))


def _identifier(text: str) -> tuple[int, int, str]:
    """Numbers come before words, and are compared as numbers."""
    return (0, int(text), "") if text.isdigit() else (1, 0, text)


@frozen
class _Clause:
    sign: str
    text: str
    version: Version | None

    def matches(self, text: str, version: Version | None) -> bool:
        same = text == self.text or (version is not None and version == self.version)
        if self.sign == "==":
            return same
        if version is None:
            return False
        if self.sign == "!=":
            return not same
        assert self.version is not None
        if self.sign == "~=":
            return self.version <= version < _next(self.version)
        return _ORDER[self.sign](version, self.version)


def _next(version: Version) -> Version:
    """Return the lowest version that is no longer compatible: with 1.4 it is 2, with 1.4.2 it is 1.5."""
    kept = version.numbers[: version.given - 1]
    return Version(_padded((*kept[:-1], kept[-1] + 1)), False, _LOWEST)


@frozen
class Specifier:
    """Which versions will do: those that match every clause."""

    clauses: tuple[_Clause, ...]

    def matches(self, text: str) -> bool:
        """Return whether a version will do. One that does not parse matches nothing but `==` and the same text."""
        version = parse(text)
        return all(clause.matches(text, version) for clause in self.clauses)


def specifier(text: str) -> Specifier:
    """Read a specifier. Raises DiscoveryError that says what is allowed."""
    if not isinstance(text, str):  # before it is looked for among those that were read: a list cannot be
        raise DiscoveryError(f"a version specifier is text, not {type(text).__name__}: {ALLOWED}")
    return _read(text)


@lru_cache(256)
def _read(text: str) -> Specifier:
    return Specifier(tuple(_clause(part, text) for part in text.split(",")))


def _clause(part: str, whole: str) -> _Clause:
    found = _CLAUSE.fullmatch(part)
    if found is None:
        raise DiscoveryError(f"the version specifier {whole!a} has {part!a} in it; allowed are {ALLOWED}")
    sign, version = found["sign"], parse(found["version"])
    if version is None and sign not in ("==", "!="):
        raise DiscoveryError(
            f"{found['version']!a} in the version specifier {whole!a} is no version such as 1.4.0-rc.1"
        )
    if sign == "~=" and version is not None and version.given < 2:
        raise DiscoveryError(f"{part.strip()!a} in a version specifier needs two numbers at least, such as ~=1.4")
    return _Clause(sign, found["version"], version)
