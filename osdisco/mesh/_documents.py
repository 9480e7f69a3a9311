"""Documents that people write: read strictly, and every error names the field by its path, as `splits[1].weight`.

A class of a document is an attrs class whose fields are made here. Each is checked when an instance is made;
`structure` reads plain JSON into it and puts the path before what a field's check says. Unknown fields are refused: to
leave out half of a condition would send calls where nobody wanted them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import attrs

from osdisco.discovery._frozen import FrozenDict
from osdisco.errors import InvalidNameError, RulesError, nearest
from osdisco.names import escape

T = TypeVar("T")

Read = Callable[[Any, str], Any]
"""Turns what stands in JSON at a path into the value of a field. Raises RulesError."""

Check = Callable[[Any], str | None]
"""Returns what is wrong with a value, to be read after the name of its field; None when it is fine."""

TEXT_MAX: Final = 255
"""Characters of a text in a document."""

_KINDS: Final = {type(None): "null", bool: "a boolean", str: "text", list: "a list", tuple: "a list", dict: "an object"}


def refuse(field: str, why: str) -> RulesError:
    """Return the error for a field; `why` is read after its name."""
    return RulesError(field, why)


def kind(value: object) -> str:
    """Return what a value of JSON is called."""
    return _KINDS.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def below(path: str, name: str) -> str:
    """Return the path of a field below another one."""
    return f"{path}.{name}" if path and name and not name.startswith("[") else path + name


def structure(cls: type[T], value: object, path: str = "", *, lenient: bool = False) -> T:
    """Turn plain JSON into an instance of a document's class; an instance stays as it is.

    Args:
        path: where it stands in the document, for errors.
        lenient: ignore unknown fields, because a newer version of osdisco may have written them.

    Raises:
        RulesError: naming the field, what is wrong with it and what is allowed.
    """
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        raise refuse(path, f"must be an object, not {kind(value)}")
    fields = {one.name: one for one in attrs.fields(cls)}  # type: ignore[arg-type]  # all are attrs classes
    for name in value:
        if name not in fields and not lenient:
            raise refuse(below(path, str(name)), f"is no field here{nearest(str(name), fields)}; {_allowed(fields)}")
    for name, field in fields.items():
        if name not in value and field.default is attrs.NOTHING:
            raise refuse(below(path, name), "is missing")
    try:
        return cls(**{name: one for name, one in value.items() if name in fields})
    except RulesError as exc:
        raise refuse(below(path, exc.field), exc.message) from None


def _allowed(fields: Mapping[str, Any]) -> str:
    return f"there are {', '.join(fields)}"


def plain(value: Any) -> Any:
    """Return a document as JSON has it, without the fields that say nothing."""
    if isinstance(value, enum.Enum):
        return value.value
    if attrs.has(type(value)):
        said = ((one, getattr(value, one.name)) for one in attrs.fields(type(value)) if one.init)
        return {one.name: plain(given) for one, given in said if given != _default(one)}
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    return value


def _default(field: attrs.Attribute[Any]) -> Any:
    default: Any = field.default
    return default.factory() if hasattr(default, "factory") else default


# Fields


def checked(check: Check, *, read: Read | None = None, optional: bool = False, **options: Any) -> Any:
    """Return a field of attrs that refuses what `check` finds wrong.

    Args:
        read: makes of plain JSON, and of what it stands for, what the field holds.
        optional: None is fine, too, as it is when it is the default.
    """
    optional = optional or ("default" in options and options["default"] is None)

    def validate(_: object, attribute: Any, value: object) -> None:
        why = None if optional and value is None else check(value)
        if why is not None:
            raise refuse(attribute.name, why)

    if read is not None:
        options["converter"] = attrs.Converter(_reading(read, optional=optional), takes_field=True)
    return attrs.field(validator=validate, **options)


def _reading(read: Read, *, optional: bool) -> Callable[[Any, Any], Any]:
    return lambda value, field: None if optional and value is None else read(value, field.name)


def text(**options: Any) -> Any:
    """Return a field of text."""
    return checked(wrong_text, **options)


def label(**options: Any) -> Any:
    """Return a field of text that is not empty."""
    return checked(lambda value: wrong_text(value) or (None if value else "is empty"), **options)


def name(**options: Any) -> Any:
    """Return a field of a name that can be one segment of a key."""
    return checked(wrong_name, **options)


def flag(default: bool = False) -> Any:
    """Return a field of true or false."""
    return checked(wrong_flag, default=default)


def number(low: float, high: float, *, what: str = "", above: bool = False, **options: Any) -> Any:
    """Return a field of a number from `low` (or, with `above`, above it) to `high`; `what` says in which unit."""
    return checked(lambda value: wrong_number(value, low, high, what, above=above), **options)


def whole(low: int, high: int, **options: Any) -> Any:
    """Return a field of a whole number."""

    def check(value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return f"must be a whole number, not {kind(value)}"
        return wrong_number(value, low, high)

    return checked(check, **options)


def percent(**options: Any) -> Any:
    """Return a field of a percentage, in steps of 0.01."""
    return checked(wrong_percent, **options)


def one(cls: type[T], *, lenient: bool = False) -> Any:
    """Return a field of another class of documents; None when it lacks."""
    return checked(lambda _: None, read=reader(cls, lenient=lenient), default=None)


def required(cls: type[T], *, lenient: bool = False) -> Any:
    """Return a field of another class of documents, which must be there."""
    return checked(lambda _: None, read=reader(cls, lenient=lenient))


def many(read: Read, most: int, what: str) -> Any:
    """Return a field of a list of at most so many of `what`, which `read` takes one by one."""
    return checked(lambda _: None, read=lambda value, path: several(read, value, path, most, what), default=())


def several(read: Read, value: Any, path: str, most: int, what: str) -> tuple[Any, ...]:
    """Read a list. Raises RulesError."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise refuse(path, f"must be a list of {what}, not {kind(value)}")
    if len(value) > most:
        raise refuse(path, f"has {len(value)} {what}; {most} are allowed")
    return tuple(read(one, f"{path}[{number}]") for number, one in enumerate(value))


def named(read: Read, most: int, what: str, *, names: Check | None = None) -> Any:
    """Return a field of an object of at most so many of `what` by name, which `read` takes one by one."""
    wrong = names or wrong_name

    def each(value: Any, path: str) -> Any:
        if not isinstance(value, Mapping):
            raise refuse(path, f"must be an object of {what} by name, not {kind(value)}")
        if len(value) > most:
            raise refuse(path, f"has {len(value)} {what}; {most} are allowed")
        for name in value:
            if why := wrong(name):
                raise refuse(path, f"has the name {name!a}, which {why}")
        return FrozenDict((name, read(one, f"{path}[{name!a}]")) for name, one in value.items())

    return checked(lambda _: None, read=each, factory=FrozenDict)


def reader(cls: type[T], *, lenient: bool = False) -> Read:
    """Return what reads one of a class of documents."""
    return lambda value, path: structure(cls, value, path, lenient=lenient)


# Checks


def wrong_flag(value: object) -> str | None:
    """Return what is wrong with a truth value."""
    return None if isinstance(value, bool) else f"must be true or false, not {kind(value)}"


def wrong_text(value: object) -> str | None:
    """Return what is wrong with a text."""
    if not isinstance(value, str):
        return f"must be text, not {kind(value)}"
    if len(value) > TEXT_MAX:
        return f"has {len(value)} characters; {TEXT_MAX} are allowed"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "holds a lone surrogate"
    return None


def wrong_name(value: object) -> str | None:
    """Return what is wrong with a name of a service or a subset."""
    if not isinstance(value, str):
        return f"must be text, not {kind(value)}"
    try:
        escape(value)
    except InvalidNameError as exc:
        return f"is no name: {exc}"
    return None


def wrong_number(value: object, low: float, high: float, what: str = "", *, above: bool = False) -> str | None:
    """Return what is wrong with a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"must be a number, not {kind(value)}"
    if not low <= value <= high or (above and value == low):  # what is no number is not between them
        least = f"above {low:g}, at most" if above else f"from {low:g} to"
        shown = f"{value!r}" if isinstance(value, float) or abs(value) < 10**18 else "too large"
        return f"is {shown}; {least} {high:g}{what and f' {what}'} is allowed"
    return None


def wrong_percent(value: object) -> str | None:
    """Return what is wrong with a percentage. Consul's weights have these steps, too."""
    why = wrong_number(value, 0, 100)
    if why is None and hundredths(value) is None:  # type: ignore[arg-type]  # it is a number by now
        why = f"is {value!r}; steps of 0.01 are allowed"
    return why


def hundredths(percentage: float) -> int | None:
    """Return a percentage in steps of 0.01; None when it is none of them."""
    steps = round(percentage * 100)
    return steps if abs(percentage * 100 - steps) < 1e-6 else None
