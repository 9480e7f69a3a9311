"""The one boundary at which what etcd or a driver said becomes an error of osdisco, for both transports.

etcd's answers have the same text in gRPC and JSON, so one table of texts decides; status codes come second.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from attrs import frozen

from osdisco.errors import (
    DeniedError,
    IndeterminateError,
    InvalidCommitError,
    LeaseExpiredError,
    LimitError,
    OsdiscoError,
    UnavailableError,
)

OUT_OF_TIME: Final = 4
"""gRPC's DEADLINE_EXCEEDED."""


@frozen
class Failure:
    """What went wrong, in words that both transports share.

    `code` is a gRPC status code, None when no answer of etcd was there to have one. `sent` is False only when the
    request provably never left this process.
    """

    text: str
    code: int | None = None
    sent: bool = True


class Refused(Exception):
    """Carries a Failure up to the boundary, where a driver has no exception of its own for it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.failure = failure


class LeaseExistsError(LimitError):
    """The id of a grant is in use: with 63 random bits that is the same grant, delivered twice."""


class Verdict(Enum):
    """What a failure means."""

    UNAVAILABLE = "not applied; another endpoint, or the same one later, may do it"
    UNKNOWN = "sent, and nobody said what became of it"
    STALE_TOKEN = "not applied; a new token will help"  # nosec B105 # noqa: S105
    AUTH_OFF = "the server has no users"
    DENIED = "not applied, for want of permission"
    LEASE_GONE = "not applied; the lease is over"
    LEASE_EXISTS = "the lease was granted before"
    LIMIT = "not applied; beyond what the server takes"
    INVALID = "not applied; the server finds the request wrong"
    FULL = "not applied; the server has no room"
    COMPACTED = "the revision is gone"


_TEXTS: Final = (
    ("invalid auth token", Verdict.STALE_TOKEN),
    ("revision of auth store is old", Verdict.STALE_TOKEN),
    ("user name is empty", Verdict.STALE_TOKEN),
    ("authentication is not enabled", Verdict.AUTH_OFF),
    ("authentication failed", Verdict.DENIED),
    ("permission denied", Verdict.DENIED),
    ("requested lease not found", Verdict.LEASE_GONE),
    ("lease already exists", Verdict.LEASE_EXISTS),
    ("too large lease ttl", Verdict.LIMIT),
    ("request is too large", Verdict.LIMIT),
    ("too many operations in txn", Verdict.LIMIT),
    ("received message larger than max", Verdict.LIMIT),
    ("database space exceeded", Verdict.FULL),
    ("too many requests", Verdict.UNAVAILABLE),  # refused before it was proposed
    ("required revision has been compacted", Verdict.COMPACTED),
    ("etcdserver: no leader", Verdict.UNAVAILABLE),  # said by the `hasleader` check, which comes before the request
    ("not supported for learner", Verdict.UNAVAILABLE),
    ("etcdserver: not capable", Verdict.UNAVAILABLE),
    ("etcdserver: corrupt cluster", Verdict.UNAVAILABLE),
)

_CODES: Final = {
    3: Verdict.INVALID,
    7: Verdict.DENIED,
    16: Verdict.DENIED,
}

_TYPES: Final[dict[Verdict, tuple[type[OsdiscoError], str]]] = {
    Verdict.UNAVAILABLE: (UnavailableError, "not applied; check that etcd runs there, and the TLS options"),
    Verdict.STALE_TOKEN: (DeniedError, "not applied; give the user and password of an etcd user"),
    Verdict.AUTH_OFF: (DeniedError, "the server has authentication switched off"),
    Verdict.DENIED: (DeniedError, "not applied; check user and password, and the user's role on this key range"),
    Verdict.LEASE_GONE: (LeaseExpiredError, "not applied; the lease expired or was revoked: open a new one"),
    Verdict.LEASE_EXISTS: (LeaseExistsError, "not applied; the lease id is taken"),
    Verdict.LIMIT: (LimitError, "not applied; make it smaller"),
    Verdict.INVALID: (InvalidCommitError, "not applied; the request is one that etcd never takes"),
    Verdict.FULL: (
        UnavailableError,
        "not applied; the store is full: compact and defragment it, then run `etcdctl alarm disarm`",
    ),
    Verdict.COMPACTED: (UnavailableError, "read again instead of resuming"),
}


def verdict_on(failure: Failure) -> Verdict:
    """Say what a failure means. Whatever is not known to prove otherwise may have been applied."""
    if not failure.sent:
        return Verdict.UNAVAILABLE
    if failure.code is None:
        return Verdict.UNKNOWN
    text = failure.text.lower()
    for fragment, verdict in _TEXTS:
        if fragment in text:
            return verdict
    return _CODES.get(failure.code, Verdict.UNKNOWN)


def error_for(failure: Failure, *, what: str, endpoint: str, mutates: bool) -> OsdiscoError:
    """Build the error for a failure; the caller raises it `from` the driver's own.

    Args:
        failure: what went wrong.
        what: the request, for the message, such as `Put of 'ns/key'`.
        endpoint: where it was sent.
        mutates: the request changes something, so that an unknown outcome is Indeterminate.
    """
    verdict = verdict_on(failure)
    said = f"etcd at {endpoint}: {what}: {failure.text}"
    if verdict is Verdict.UNKNOWN:
        if mutates:
            return IndeterminateError(f"{said}; it may have been applied: read before trying again")
        return UnavailableError(f"{said}; check that an etcd v3 server answers there")
    cls, advice = _TYPES[verdict]
    return cls(f"{said}; {advice}")
