"""The exception tree. Every error says what happened, to what, and what to do.

An operation that failed has one of three outcomes, and the type tells which:

* *not applied*: `ConflictError`, `UnavailableError`, `DeniedError`, `LimitError`, `LeaseExpiredError`;
* *unknown*: `IndeterminateError`, and nothing in this library retries it blindly;
* *applied*: no error.
"""

from __future__ import annotations

from collections.abc import Iterable


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


class CoordinationError(OsdiscoError):
    """A recipe (lock, election, barrier) found its state in the store unusable."""


class BarrierBrokenError(CoordinationError):
    """A member of a double barrier died inside: what it was to do there may not be done."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the closest known word, or an empty string."""
    from difflib import get_close_matches

    match = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {match[0]!r}?" if match else ""
