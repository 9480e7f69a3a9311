"""What client and server say to each other besides the request itself: names of headers, statuses, errors as JSON.

POST /osdisco/v1/<method>            content-type: application/json
x-osdisco-service: geo               refused by who serves something else by now at that address
x-osdisco-timeout-ms: 1870           what is left, not when it ends: clocks differ
x-osdisco-attempt: 2
x-osdisco-metadata: {"tenant":"7"}   ASCII JSON

200 and the result; else {"type": …, "message": …}, with x-osdisco-refused when surely no handler ran.
"""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

from osdisco.errors import (
    DeadlineExceededError,
    EndpointUnreachableError,
    OverloadedError,
    RemoteError,
    RequestError,
    ResponseError,
    ServiceMeshError,
)
from osdisco.mesh.transport import MeshResponse

PATH: Final = "/osdisco/v1/"
SERVICE: Final = "x-osdisco-service"
TIMEOUT: Final = "x-osdisco-timeout-ms"
ATTEMPT: Final = "x-osdisco-attempt"
METADATA: Final = "x-osdisco-metadata"
REFUSED: Final = "x-osdisco-refused"
RETRY_AFTER: Final = "retry-after"

METADATA_MAX: Final = 4096
"""Bytes of all metadata of a call as JSON; HTTP servers take about 8 KiB in a header."""

LOOK: Final = "it may have been done: look before calling again"
"""Advice to who does not know whether a handler ran."""

NO_WORDS: Final = "the answer has no words of an osdisco endpoint; check the address"

MESSAGE_MAX: Final = 1024
"""Characters of a remote message that are kept."""

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}\Z", re.ASCII)
_LONGEST: Final = 9_999_999_999
"""Milliseconds, four months, that a header can say."""

_NUMBER: Final = re.compile(r"-?\d{1,9}(?:\.\d{1,9})?\Z", re.ASCII)


class Refusal(enum.Enum):
    """Why an endpoint took nothing: surely no handler ran."""

    STOPPING = "stopping"
    OVERLOADED = "overloaded"
    OTHER_SERVICE = "other-service"
    BAD_REQUEST = "bad-request"
    TOO_LARGE = "too-large"
    TOO_LATE = "too-late"
    NO_METHOD = "no-method"


STATUS_OF: Final[Mapping[Refusal, int]] = {
    Refusal.STOPPING: 503,
    Refusal.OVERLOADED: 429,
    Refusal.OTHER_SERVICE: 421,
    Refusal.BAD_REQUEST: 400,
    Refusal.TOO_LARGE: 413,
    Refusal.TOO_LATE: 504,
    Refusal.NO_METHOD: 404,
}


def is_method(name: object) -> bool:
    """Return whether something can be the name of a method: letters, digits, `_`, `.` and `-`."""
    return isinstance(name, str) and _NAME.match(name) is not None and name.strip(".") != ""


def refused(why: Refusal, message: str, retry_after: float | None = None) -> MeshResponse:
    """Return the answer that takes nothing."""
    headers = {REFUSED: why.value}
    if retry_after is not None:
        headers[RETRY_AFTER] = f"{retry_after:g}"
    return _failure(STATUS_OF[why], why.value, message, headers, last=why is Refusal.STOPPING)


def failed(status: int, kind: str, message: str) -> MeshResponse:
    """Return the answer of a handler that failed."""
    return _failure(status, kind, message, {})


def _failure(status: int, kind: str, message: str, headers: dict[str, str], *, last: bool = False) -> MeshResponse:
    # `ensure_ascii`, because a message may hold anything, lone surrogates too
    body = json.dumps({"type": kind, "message": message[:MESSAGE_MAX]}).encode()
    return MeshResponse(status, body, headers, last)


def error_of(response: MeshResponse) -> ServiceMeshError:
    """Return what the caller is told of an answer that is no result."""
    said = response.headers.get(REFUSED)
    if said is not None:
        return _refusal(said, response)
    kind, message = _words(response)
    after = retry_after(response.headers)
    if response.status in (429, 503) and kind is None:  # of a proxy, say: it may have passed the request on
        return OverloadedError(f"HTTP {response.status}: {message}", retry_after=after, sent=True)
    if kind is None or response.status < 400:
        return _of_something_else(response.status, message)
    if response.status == 504 and kind == DeadlineExceededError.__name__:
        return DeadlineExceededError(message, sent=True)
    return RemoteError(kind, message, response.status)


def _refusal(said: str, response: MeshResponse) -> ServiceMeshError:
    _, message = _words(response)
    if said == Refusal.NO_METHOD.value:
        return RemoteError("MethodNotFoundError", message, response.status, sent=False)
    if said == Refusal.OVERLOADED.value:
        return OverloadedError(message, retry_after=retry_after(response.headers))
    if said in (Refusal.BAD_REQUEST.value, Refusal.TOO_LARGE.value):
        return RequestError(message)
    if said == Refusal.TOO_LATE.value:
        return DeadlineExceededError(message)
    return EndpointUnreachableError(message)


def _words(response: MeshResponse) -> tuple[str | None, str]:
    """Return type and message as the endpoint said them; no type when it is not one of ours who speaks."""
    try:
        parsed = json.loads(response.body)
        kind, message = parsed["type"], parsed["message"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None, NO_WORDS
    if not isinstance(kind, str) or not isinstance(message, str):
        return None, NO_WORDS
    return kind[:MESSAGE_MAX], message[:MESSAGE_MAX]


def _of_something_else(status: int, message: str) -> ServiceMeshError:
    """Return what an answer means that no endpoint of ours gives."""
    if 300 <= status < 400:
        return ResponseError(f"HTTP {status}: redirects are not followed; is the address right?", sent=True)
    if status < 400:
        return ResponseError(f"HTTP {status} where a result is 200; is it an osdisco endpoint?", sent=True)
    if status in (404, 405):  # else it would be held to be well, and quick
        return ResponseError(f"HTTP {status}: something else listens there; is the address right?", sent=True)
    return RemoteError(f"HTTP {status}", message, status)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds after which to come again: negative for never, None when nothing or a date is said."""
    said = headers.get(RETRY_AFTER, "")
    return float(said) if _NUMBER.match(said) else None


def timeout_of(said: str | None) -> float | None:
    """Read the seconds that a caller has left; None when it said nothing that can be read."""
    if said is None or not said.isascii() or not said.isdigit() or len(said) > 10:
        return None
    return int(said) / 1000


def milliseconds(timeout: float) -> str:
    """Return what is left as a header says it: rounded down, so that nobody has more than there is."""
    return str(max(math.floor(min(timeout * 1000, _LONGEST)), 0))


def pack_metadata(metadata: Mapping[str, str]) -> str:
    """Return metadata as a header. Raises RequestError for what is no text by name, or too much."""
    if not isinstance(metadata, Mapping) or not all(
        isinstance(name, str) and isinstance(value, str) for name, value in metadata.items()
    ):
        raise RequestError("metadata must be text by name")
    packed = json.dumps(dict(metadata), separators=(",", ":"))
    if len(packed) > METADATA_MAX:
        raise RequestError(f"metadata takes {len(packed)} bytes as JSON; {METADATA_MAX} are allowed")
    return packed


def unpack_metadata(said: str | None) -> Mapping[str, str]:
    """Read metadata. Raises ValueError."""
    if said is None:
        return {}
    metadata: Any = json.loads(said)
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("metadata must be a JSON object of texts")
    return metadata
