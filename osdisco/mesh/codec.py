"""Requests and results as JSON: what Python objects become, and back, strictly.

Everything that JSON has goes as it is; attrs classes, dataclasses, enums and sets go as what they hold. A type that is
asked for is met exactly, as with records in the store: `"1"` is no number, a missing field is an error, an unknown one
is ignored so that newer writers do not break older readers.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from osdisco._records import explained, finite, no_constant, strict_converter
from osdisco.errors import RecordError

if TYPE_CHECKING:
    from cattrs import Converter

_JSON: Final = (dict, list, str, int, float, bool, type(None))

_read = json.JSONDecoder(parse_constant=no_constant, parse_float=finite).decode


class CodecError(ValueError):
    """What cannot be encoded or decoded, and why. Its message never holds a value."""


def encode(value: object) -> bytes:
    """Turn an object into JSON. Raises CodecError for what JSON cannot hold."""
    try:
        return _encode(value).encode()
    except (TypeError, ValueError, RecursionError, AttributeError) as exc:
        raise CodecError(_why(exc)) from None


def _why(exc: Exception) -> str:
    if isinstance(exc, UnicodeEncodeError):
        return "it holds a lone surrogate, which is no text"
    return "it is nested too deep" if isinstance(exc, RecursionError) else f"JSON cannot hold it: {exc}"


def _plain(value: object) -> object:
    """Return what JSON knows for an object that it does not."""
    plain: object = _converter().unstructure(value)
    if isinstance(plain, set | frozenset):
        return list(plain)
    if not isinstance(plain, _JSON):
        raise TypeError(f"a {type(value).__qualname__} is neither JSON, an attrs class, a dataclass, an enum nor a set")
    return plain


# not `ensure_ascii`: it would write lone surrogates, which no reader takes
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False, default=_plain).encode


def decode(data: bytes, kind: Any = None) -> Any:
    """Turn JSON into what is asked for.

    Args:
        kind: an attrs class, a dataclass, or a type such as `list[int]`; None takes the JSON as it is.

    Raises:
        CodecError: no JSON, or it does not fit; it names the field and not its value.
    """
    parsed = _parse(data)
    return parsed if kind is None or kind is Any else _structured(parsed, kind)


def _parse(data: bytes) -> Any:
    try:
        return _read(data.decode())  # `json.loads` would take other encodings, and encoded surrogates
    except RecordError as exc:
        raise CodecError(str(exc)) from None
    except (ValueError, RecursionError) as exc:
        raise CodecError(f"it is not JSON: {type(exc).__name__}") from None


def _structured(parsed: Any, kind: Any) -> Any:
    try:
        return _converter().structure(parsed, kind)
    except Exception:  # whatever a constructor or converter of the caller's own class raises
        return _refused(parsed, kind)


def _refused(parsed: Any, kind: Any) -> Any:
    """Structure once more, by the slower way that names the field."""
    try:
        return _converter(detailed=True).structure(parsed, kind)
    except Exception as exc:
        raise CodecError(explained(exc, kind)) from None


def check_kind(kind: Any) -> None:
    """Refuse a type that nothing could be decoded into. Raises CodecError."""
    if kind is None or kind is Any:
        return
    try:
        _converter().get_structure_hook(kind)
    except Exception as exc:
        raise CodecError(f"{kind!r} is no type that JSON can be read into: {exc}") from None


@cache
def _converter(*, detailed: bool = False) -> Converter:
    return strict_converter(detailed=detailed)
