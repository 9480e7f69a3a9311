"""Fields of settings: each refuses what cannot be, by its name, and says what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, Final

from attrs import Attribute, field

from osdisco.errors import ConfigError

ANY: Final = "*"
"""The name under which settings by service have those of all services that are not named."""


def number(default: float | None, what: str, fits: Callable[[float], bool], *, optional: bool = False) -> Any:
    """Return a field of a number that fits, or None if it is `optional`; `what` says which are allowed."""
    allowed = f"{what}, or None" if optional else what

    def check(instance: object, attribute: Attribute[Any], value: object) -> None:
        if value is None and optional:
            return
        if isinstance(value, bool) or not isinstance(value, int | float) or not fits(value):
            raise ConfigError(f"{attribute.name} is {allowed}, not {value!a}")

    return field(default=default, validator=check)


def part(kind: type) -> Callable[[object, Attribute[Any], object], None]:
    """Return what checks a field of further settings, or None."""
    return lambda _, attribute, value: checked(attribute.name, value, kind)


def checked(name: str, given: Any, kind: type, word: str = "") -> Any:
    """Return what was given: one of a kind, or None. Raises ConfigError."""
    if given is not None and not isinstance(given, kind):
        raise ConfigError(f"{name} is {word or kind.__name__}, or None, not {given!a}")
    return given


def is_factor(value: object) -> bool:
    """Return whether it is a number of 1 or more."""
    return not isinstance(value, bool) and isinstance(value, int | float) and 1 <= value < inf


def share(default: float) -> Any:
    """Return a field of a share, above 0 and at most 1."""
    return number(default, "a share above 0 and at most 1", lambda value: 0 < value <= 1)


def seconds(default: float | None, *, optional: bool = False) -> Any:
    """Return a field of a time."""
    return number(default, "a number of seconds above 0", lambda value: 0 < value < inf, optional=optional)


def count(default: int, *, optional: bool = False) -> Any:
    """Return a field of a whole number from 1."""
    fits = lambda value: isinstance(value, int) and value >= 1  # noqa: E731 - it is an argument
    return number(default, "a whole number from 1", fits, optional=optional)
