"""JSON that others wrote, read a piece at a time and strictly.

A state may be 100 MB: `json.loads` of it would hold the interpreter, and so the event loop, for a second even from a
thread. `Walker` goes down to where the pieces are and decodes one at a time; between them other threads run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from osdisco._records import finite, no_constant
from osdisco.errors import ClusterDocumentError, RecordError


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RecordError("an object names a field twice")
    return found


_SPACE: Final = re.compile(r"[ \t\n\r]*")
_DECODE: Final = json.JSONDecoder(
    object_pairs_hook=_no_twice, parse_float=finite, parse_constant=no_constant
).raw_decode

_ENCODE: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")).encode


def canonical(value: Any) -> bytes:
    """Return the one text that a value has: the same value is always the same bytes.

    Raises:
        ValueError: a lone surrogate. RecursionError: nested too deeply.
    """
    return _ENCODE(value).encode()


def parse(data: bytes, place: str) -> Any:
    """Read one small piece. Raises ClusterDocumentError."""
    walker = Walker(data, place)
    value = walker.value(place)
    walker.end()
    return value


class Walker:
    """A place in a text of JSON, which moves on as it is read.

    Args:
        data: UTF-8.
        name: what it is, for errors.

    Raises:
        ClusterDocumentError: it is empty, a page of HTML, or no UTF-8.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self._name: Final = name
        self._text: Final = _text(data, name)
        self._at = self._skip(0)

    def members(self, place: str) -> Iterator[str]:
        """Yield the names of the object that begins here. Before the next one, its value must have been read.

        Raises:
            ClusterDocumentError: no object, a name that comes twice, or the text ends.
        """
        self._take("{", place, "must be an object")
        seen: set[str] = set()
        while not self._take_if("}"):
            if seen:
                self._take(",", place)
            name = self._member(place)
            if name in seen:
                raise ClusterDocumentError(f"{place}: an object names a field twice")
            seen.add(name)
            yield name

    def value(self, place: str) -> Any:
        """Decode what begins here, and go behind it. Raises ClusterDocumentError."""
        try:
            value, end = _DECODE(self._text, self._at)
        except json.JSONDecodeError as exc:
            raise self._malformed(place, exc) from None
        except RecordError as exc:
            raise ClusterDocumentError(f"{place}: {exc}") from None
        except RecursionError:
            raise ClusterDocumentError(f"{place} is nested too deeply") from None
        except ValueError:  # of thousands of digits
            raise ClusterDocumentError(f"{place}: a number that is too large") from None
        self._at = self._skip(end)
        return value

    def piece(self, place: str) -> bytes:
        """Return what begins here as the one text that it has, and go behind it. Raises ClusterDocumentError."""
        return encoded(self.value(place), place)

    def end(self) -> None:
        """Raise ClusterDocumentError unless nothing is left."""
        if self._at != len(self._text):
            raise ClusterDocumentError(f"{self._name}: something follows the end of the document")

    def _member(self, place: str) -> str:
        """Read a name and the colon behind it."""
        self._check('"', place)
        name = str(self.value(place))
        self._take(":", place)
        return name

    def _take(self, sign: str, place: str, otherwise: str = "is not JSON") -> None:
        self._check(sign, place, otherwise)
        self._at = self._skip(self._at + 1)

    def _check(self, sign: str, place: str, otherwise: str = "is not JSON") -> None:
        if self._at >= len(self._text):
            raise self._ended(place)
        if not self._text.startswith(sign, self._at):
            raise ClusterDocumentError(f"{place} {otherwise}")

    def _take_if(self, sign: str) -> bool:
        found = self._text.startswith(sign, self._at)
        if found:
            self._at = self._skip(self._at + 1)
        return found

    def _skip(self, at: int) -> int:
        """Return where the next thing begins that is no white space."""
        match = _SPACE.match(self._text, at)
        return match.end() if match else at

    def _malformed(self, place: str, exc: json.JSONDecodeError) -> ClusterDocumentError:
        """Return the error for a mistake in the syntax: most often the rest of the body never came."""
        cut_short = exc.msg.startswith("Unterminated") or not exc.doc[exc.pos : exc.pos + 64].strip()
        return self._ended(place) if cut_short else ClusterDocumentError(f"{place} is not JSON")

    def _ended(self, place: str) -> ClusterDocumentError:
        return ClusterDocumentError(f"{self._name} ends too early, after {len(self._text)} characters, in {place}")


def encoded(value: Any, place: str) -> bytes:
    """Return the one text that a value has. Raises ClusterDocumentError, naming the place."""
    try:
        return canonical(value)
    except RecursionError:
        raise ClusterDocumentError(f"{place} is nested too deeply") from None
    except ValueError:
        raise ClusterDocumentError(f"{place} holds a lone surrogate") from None


def _text(data: bytes, name: str) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ClusterDocumentError(f"{name} is not UTF-8") from None
    begin = text[:64].lstrip()[:1]
    if begin == "<":
        raise ClusterDocumentError(f"{name} is a page of HTML or XML, not JSON")
    if not begin and not text.strip():
        raise ClusterDocumentError(f"{name} is empty")
    return text
