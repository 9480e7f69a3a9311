"""Fields of checks: each refuses what cannot be, saying which field it is and what is allowed there."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, Final

from osdisco.errors import ConfigError

DAY: Final = 86_400.0
METHODS: Final = ("GET", "HEAD")

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_VALUE = re.compile(r"[\x20-\x7e\x80-\U0010ffff]*\Z")


def _refuse(instance: object, attribute: Any, value: object, allowed: str) -> None:
    raise ConfigError(f"{type(instance).__name__}.{attribute.name} must be {allowed}, not {value!a}")


def _is_number(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def text(instance: object, attribute: Any, value: Any) -> None:
    """Take text."""
    if not isinstance(value, str):
        _refuse(instance, attribute, value, "text")


def flag(instance: object, attribute: Any, value: Any) -> None:
    """Take True or False."""
    if not isinstance(value, bool):
        _refuse(instance, attribute, value, "True or False")


def seconds(instance: object, attribute: Any, value: Any) -> None:
    """Take a time from a hundredth of a second to a day."""
    if not _is_number(value, 0.01, DAY):
        _refuse(instance, attribute, value, "seconds from 0.01 to 86400")


def seconds_from_zero(instance: object, attribute: Any, value: Any) -> None:
    """Take a time from nothing to a day."""
    if not _is_number(value, 0, DAY):
        _refuse(instance, attribute, value, "seconds from 0 to 86400")


def share(instance: object, attribute: Any, value: Any) -> None:
    """Take a share of up to a half."""
    if not _is_number(value, 0, 0.5):
        _refuse(instance, attribute, value, "a share from 0 to 0.5")


def times(instance: object, attribute: Any, value: Any) -> None:
    """Take a number of times in a row."""
    if not _is_number(value, 1, 1000) or not isinstance(value, int):
        _refuse(instance, attribute, value, "a whole number from 1 to 1000")


def method(instance: object, attribute: Any, value: Any) -> None:
    """Take a method that changes nothing."""
    if value not in METHODS:
        _refuse(instance, attribute, value, " or ".join(METHODS))


def context(instance: object, attribute: Any, value: Any) -> None:
    """Take what says whom to trust."""
    if value is not None and not isinstance(value, ssl.SSLContext):
        _refuse(instance, attribute, value, "an ssl.SSLContext or None")


def statuses(value: int | Iterable[int]) -> tuple[int, ...]:
    """Return statuses of HTTP, one or several."""
    found = (value,) if isinstance(value, int) else tuple(value) if isinstance(value, Iterable) else (value,)
    if not all(_is_number(one, 100, 599) and isinstance(one, int) for one in found):
        raise ConfigError(f"expected must be statuses from 100 to 599, not {value!a}")
    return found


def headers(value: Mapping[str, str]) -> dict[str, str]:
    """Return headers. No message shows their values, which may be secrets."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"HttpCheck.headers must be text by name, not {type(value).__name__}")
    for name, content in value.items():
        if not isinstance(name, str) or not _TOKEN.match(name):
            raise ConfigError(f"HttpCheck.headers: {name!a} is no name of a header")
        if not isinstance(content, str) or not _VALUE.match(content):
            raise ConfigError(f"HttpCheck.headers: {name} must be text on one line, without control characters")
    return dict(value)
