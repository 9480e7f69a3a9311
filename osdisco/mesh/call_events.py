"""What is told of calls: for which attempt nobody was picked and why, and what failed."""

from __future__ import annotations

from attrs import frozen

from osdisco.mesh._state import Outcome
from osdisco.mesh.refusal import Refused


@frozen
class PickRefused:
    """Nobody was picked for an attempt of a call: `refused` says at which step nobody was left."""

    service: str
    method: str
    attempt: int
    refused: Refused


@frozen
class AttemptFailed:
    """An attempt of a call failed; the call may be tried again.

    Args:
        endpoint: `host:port`.
        outcome: what the endpoint is judged by.
        what: the kind of error, as metrics have it.
        message: its words.
    """

    service: str
    method: str
    attempt: int
    endpoint: str | None
    outcome: Outcome
    what: str
    message: str
