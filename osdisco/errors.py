"""The exception tree. Every error says what happened, to what, and what to do.

An operation that failed has one of three outcomes, and the type tells which:

* *not applied*: `ConflictError`, `UnavailableError`, `DeniedError`, `LimitError`, `LeaseExpiredError`;
* *unknown*: `IndeterminateError`, and nothing in this library retries it blindly;
* *applied*: no error.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final


class OsdiscoError(Exception):
    """Base of all errors that osdisco raises on purpose."""


class ConfigError(OsdiscoError, ValueError):
    """A URL, option, file or argument that cannot be used as it stands."""


class InvalidNameError(OsdiscoError, ValueError):
    """A key, name or prefix that no store can hold: empty, too long, or not encodable text."""


class InvalidCommitError(OsdiscoError, ValueError):
    """A commit that contradicts itself, or puts a leased key without a guard. Nothing was sent."""


class ConflictError(OsdiscoError):
    """A condition of a commit did not hold. Nothing was applied; read again and decide anew."""


class LeaseExpiredError(OsdiscoError):
    """The lease is unknown to the store: expired or revoked. Nothing was applied and nothing under it can be again."""


class UnavailableError(OsdiscoError):
    """The store could not be asked, or answered that it did nothing. Not applied: safe to try again."""


class IndeterminateError(OsdiscoError):
    """The request was sent and its answer is missing: it may apply, now or later. Read before trying again."""


class DeniedError(OsdiscoError):
    """The store refused these credentials, or they lack the permission. Not applied."""


class LimitError(OsdiscoError):
    """Too large, too many, or out of the range that the store grants. Not applied."""


class ClosedError(OsdiscoError):
    """Used after it was closed."""


class TimedOutError(OsdiscoError, TimeoutError):
    """The caller's own time ran out while waiting for something that had not come yet."""


class LostError(OsdiscoError):
    """Ownership is gone. `reason` says why; what was done under it since may have overlapped with a new owner."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class StaleTokenError(OsdiscoError):
    """A fencing token older than one already admitted: its owner has lost the lock."""


class RecordError(OsdiscoError):
    """A record in the store that is not what it should be. Readers skip and report it."""


class DiscoveryError(OsdiscoError):
    """A registration or lookup of an extension that cannot be done."""


class ClusterError(OsdiscoError):
    """The search cluster, or what is known of it, does not give what was asked for."""


class ClusterUnavailableError(ClusterError):
    """The search cluster could not be asked, or has no state to give yet.

    `retry_after` is how many seconds it asked to be left alone, or None.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class ClusterDeniedError(ClusterError):
    """The search cluster refused these credentials, or they lack the privilege."""


class ClusterDocumentError(ClusterError):
    """What the search cluster answered is not what it should be. Names the place, never shows a value."""


class CoordinationError(OsdiscoError):
    """A recipe (lock, election, barrier) found its state in the store unusable."""


class BarrierBrokenError(CoordinationError):
    """A member of a double barrier died inside: what it was to do there may not be done."""


class ServiceMeshError(OsdiscoError):
    """A call of a service that failed. It says where, why, and whether calling again could repeat anything.

    Attributes:
        service, method: what was called.
        endpoint: `host:port` of the last attempt; None when there was none.
        attempt: its number, from 1; 0 when there was none.
        sent: whether a handler may have run. When False nothing was done anywhere: it is safe to call again.
        reason: why nobody was picked, as `osdisco.mesh.Refused`, to decide by; None when somebody was.
    """

    reason: object = None

    def __init__(
        self,
        message: str,
        *,
        service: str | None = None,
        method: str | None = None,
        endpoint: str | None = None,
        attempt: int = 0,
        sent: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.service = service
        self.method = method
        self.endpoint = endpoint
        self.attempt = attempt
        self.sent = sent

    def __str__(self) -> str:
        where = ".".join(part for part in (self.service, self.method) if part)
        where += f" at {self.endpoint}" if self.endpoint else ""
        where += f", attempt {self.attempt}" if self.attempt > 1 else ""
        return f"{where}: {self._said()}" if where else self._said()

    def _said(self) -> str:
        return self.message


class ServiceNotFoundError(ServiceMeshError):
    """No instance of the service is registered, as far as the store is known. Nothing was sent."""


class NoHealthyEndpointsError(ServiceMeshError):
    """There are instances, and none may be called: `reason` says why. Nothing was sent."""

    def __init__(self, reason: object, **place: Any) -> None:
        super().__init__(str(reason), **place)
        self.args = (reason,)
        self.reason = reason


class CircuitOpenError(NoHealthyEndpointsError):
    """All instances that could be called failed so often that they are left alone for a while. Nothing was sent."""


class DeadlineExceededError(ServiceMeshError, TimeoutError):
    """The time of the call ran out, all attempts included. When it was `sent`, the handler may run all the same."""


class EndpointUnreachableError(ServiceMeshError):
    """No connection to the endpoint. Nothing was sent: it is safe to call again."""


class CallInterruptedError(ServiceMeshError):
    """The connection ended before any answer. Whether the handler ran is unknown; look before calling again."""


_THERE: Final = "; look there for why"


class RemoteError(ServiceMeshError):
    """The handler failed. `type` and `message` are its words, `status` is as in HTTP; its traceback stays there.

    A handler raises it to choose them: from 400 to 499 the caller is at fault, and it is neither tried again nor held
    against the endpoint. When there is no such method, the type is `MethodNotFoundError`, and nothing ran.
    """

    def __init__(self, type: str, message: str, status: int = 500, **place: Any) -> None:
        super().__init__(message, **{"sent": True, **place})
        self.args = (type, message, status)
        self.type = type
        self.status = status

    def _said(self) -> str:
        said = f"{self.type}: {self.message}"
        return said if self.status < 500 or said.endswith(_THERE) else said + _THERE


class OverloadedError(ServiceMeshError):
    """Too much at once, here or at the endpoint. `retry_after` is in seconds, if it was said; negative is never.

    An endpoint of osdisco took nothing then; when it was `sent`, a proxy said so, and what it did is unknown.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, **place: Any) -> None:
        super().__init__(message, **place)
        self.retry_after = retry_after


class RequestError(ServiceMeshError):
    """A request that cannot be encoded, is too large, or that the endpoint cannot read. No handler ran."""


class ResponseError(ServiceMeshError):
    """What came is no answer: garbage, half of one, too much, or not of its type. The handler may have run."""


class RulesError(ServiceMeshError, ValueError):
    """Rules for traffic that cannot be so. `field` is the path of what is wrong, such as `splits[1].weight`."""

    def __init__(self, field: str, why: str, **place: Any) -> None:
        super().__init__(why, **place)
        self.args = (field, why)
        self.field = field

    def _said(self) -> str:
        return f"{self.field} {self.message}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the closest known word, or an empty string."""
    from difflib import get_close_matches

    match = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {match[0]!r}?" if match else ""
