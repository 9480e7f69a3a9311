"""Records in the store: JSON of attrs classes, written by us and by others, and therefore read strictly.

(Default cattrs turns `"false"` into True, null into `"None"`, `"abc"` into a list of letters or a record of defaults.)
Unknown fields are ignored, so that newer writers do not break older readers.
"""

from __future__ import annotations

import collections.abc
import json
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import cache
from math import isinf
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

import attrs

from osdisco.errors import OsdiscoError, RecordError

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")

_SEQUENCES: dict[Any, Any] = {
    tuple: tuple,
    list: list,
    collections.abc.Sequence: tuple,
    set: set,
    frozenset: frozenset,
}
_MAPPINGS: tuple[Any, ...] = (dict, collections.abc.Mapping)

RECORD_MAX = 64 * 1024
"""Bytes of one record; looked at before parsing."""


def encode(record: object) -> bytes:
    """Turn an attrs instance into JSON.

    Raises:
        RecordError: over RECORD_MAX bytes, or holding what JSON cannot.
    """
    try:
        plain = _converter().unstructure(record)
        # not `ensure_ascii`: it would write lone surrogates, which no reader takes
        data = json.dumps(plain, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()
    except (AttributeError, TypeError, ValueError, RecursionError) as exc:  # the first: no Mapping where one belongs
        raise RecordError(f"{type(record).__name__} holds what JSON cannot: {exc}") from None
    if len(data) > RECORD_MAX:
        raise RecordError(f"{type(record).__name__} takes {len(data)} bytes as JSON; {RECORD_MAX} are allowed")
    return data


def encode_readable(record: object) -> bytes:
    """Turn an attrs instance into JSON that `decode` takes: it refuses, for one, two keys that become one as text.

    Raises:
        RecordError: over RECORD_MAX bytes, or holding what JSON cannot.
    """
    data = encode(record)
    decode(data, type(record))
    return data


def decode(data: bytes, cls: type[T]) -> T:
    """Turn JSON into an instance of an attrs class.

    Raises:
        RecordError: saying which field is wrong, without showing its value.
    """
    from cattrs.errors import BaseValidationError

    parsed = parse(data)
    if not isinstance(parsed, dict):
        raise RecordError(f"a record must be a JSON object, not {type(parsed).__name__}")
    try:
        return _converter().structure(parsed, cls)
    except BaseValidationError as exc:
        raise RecordError(explained(exc, cls)) from None


def explained(exc: Exception, whole: Any) -> str:
    """Return which field of what was to be `whole` is wrong, without showing its value."""
    from cattrs import transform_error

    return "; ".join(transform_error(exc, format_exception=lambda part, kind: _shown(part, kind or whole)))


def parse(data: bytes) -> Any:
    """Read JSON of any kind. Raises RecordError when it is none, names a field twice or takes over RECORD_MAX bytes."""
    if len(data) > RECORD_MAX:
        raise RecordError(f"a record of {len(data)} bytes; {RECORD_MAX} are allowed")
    try:
        text = data.decode()  # `json.loads` would take other encodings, and encoded surrogates
        return json.loads(text, parse_constant=no_constant, parse_float=finite, object_pairs_hook=_no_twice)
    except RecordError:
        raise
    except (ValueError, RecursionError) as exc:
        raise RecordError(f"a record that is not JSON: {type(exc).__name__}") from None


def _shown(exc: BaseException, kind: type | None) -> str:
    if isinstance(exc, KeyError):
        return f"required field {exc} is missing"
    return str(exc) if isinstance(exc, _Misfit | OsdiscoError) else f"not a {getattr(kind, '__name__', kind)}"


class _Misfit(ValueError):
    """A value of the wrong type; its message never holds the value."""


def no_constant(name: str) -> Any:
    """Refuse NaN and the like."""
    raise RecordError(f"{name} is not JSON")


def finite(text: str) -> float:
    """Read a number. Raises RecordError for one that is too large."""
    number = float(text)
    if isinf(number):
        raise RecordError("a number that is too large")
    return number


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise RecordError("a JSON object names a field twice")
    return record


@cache
def _converter() -> Converter:
    return strict_converter()


def strict_converter(*, detailed: bool = True) -> Converter:
    """Return a converter that takes nothing for something else.

    Args:
        detailed: whether its errors name the field; without it is faster.
    """
    from cattrs import Converter
    from cattrs.gen import make_dict_structure_fn

    converter = Converter(detailed_validation=detailed)
    for kind, takes in ((bool, bool), (int, int), (float, int | float), (str, str)):
        converter.register_structure_hook(kind, _scalar(kind, takes))

    def sequence(value: Any, kind: Any) -> Any:
        _check_type(value, list)
        kinds = get_args(kind)
        if get_origin(kind) is tuple and kinds[-1] is not Ellipsis:
            _check_length(value, len(kinds))
        else:
            kinds = (kinds[0],) * len(value)
        return _SEQUENCES[get_origin(kind)](map(converter.structure, value, kinds))

    def mapping(value: Any, kind: Any) -> Any:
        _check_type(value, dict)
        key, item = get_args(kind)
        return {converter.structure(k, key): converter.structure(v, item) for k, v in value.items()}

    def record(cls: Any) -> Callable[[Any, Any], Any]:
        structure = make_dict_structure_fn(cls, converter)

        def hook(value: Any, kind: Any) -> Any:
            _check_type(value, dict)
            return structure(value, kind)

        return hook

    converter.register_structure_hook_factory(lambda kind: attrs.has(kind) or is_dataclass(kind), record)
    converter.register_structure_hook_func(lambda t: get_origin(t) in _SEQUENCES, sequence)
    converter.register_structure_hook_func(lambda t: get_origin(t) in _MAPPINGS, mapping)
    return converter


def _check_type(value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise _Misfit(f"must be a {kind.__name__}, not {type(value).__name__}")


def _check_length(value: list[Any], length: int) -> None:
    if len(value) != length:
        raise _Misfit(f"must have {length} items, not {len(value)}")


def _scalar(kind: type, takes: Any) -> Callable[[Any, Any], Any]:
    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, takes) or (isinstance(value, bool) and kind is not bool):
            raise _Misfit(f"must be a {kind.__name__}, not {type(value).__name__}")
        if isinstance(value, str) and not value.isascii():
            _check_text(value)
        if isinstance(value, float) and isinf(value):
            raise _Misfit("a number that is too large")
        return kind(value)

    return hook


def _check_text(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Misfit("holds a lone surrogate") from None
