"""What stands in the store: rules under `routes/<service>`, earlier ones under `routes-history/<service>/<version>`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from attrs import frozen

from osdisco._keys import Keyspace
from osdisco._records import RECORD_MAX, parse
from osdisco.backend import Item
from osdisco.errors import InvalidNameError, RecordError, RulesError
from osdisco.mesh import _documents as doc
from osdisco.mesh._canary import CanaryState
from osdisco.mesh._documents import plain, refuse, structure
from osdisco.mesh.rules import ServiceRules
from osdisco.names import unescape

PLACE: Final = "routes"
HISTORY: Final = "routes-history"

STEPS_ROOM: Final = 4096
"""Bytes that a document must leave when a canary begins: names and reasons of its steps may be longer, and one that
could not be written would keep it from its rollback."""


@frozen
class RulesVersion:
    """The rules of a service, as they stood or stand.

    Args:
        version: rises by one with every change.
        previous: the version to which a rollback returns; 0 when there is none.
        by: the name of the process that wrote it.
        at: when, in seconds since the epoch by its clock.
        why: what made the change.
        canary: where the canary stands that these rules belong to.
    """

    version: int = doc.whole(1, 2**53)
    rules: ServiceRules = doc.required(ServiceRules)
    previous: int = doc.whole(0, 2**53, default=0)
    by: str = doc.text(default="")
    at: float = doc.number(0, 1e12, default=0.0)
    why: str = doc.text(default="")
    canary: CanaryState | None = doc.one(CanaryState, lenient=True)

    @property
    def is_step(self) -> bool:
        """Whether a canary made it on its way: such versions are not kept."""
        return self.canary is not None and self.canary.running and self.canary.checks > 0


def encode(version: RulesVersion) -> bytes:
    """Turn a version into JSON. Raises RulesError when it is too large."""
    data = json.dumps(plain(version), separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    begins = version.canary is not None and version.canary.running and not version.is_step
    allowed = RECORD_MAX - STEPS_ROOM if begins else RECORD_MAX
    if len(data) > allowed:
        why = f"; {STEPS_ROOM} more are for the steps of the canary" if begins else ""
        raise refuse("the document", f"takes {len(data)} bytes as JSON; {allowed} are allowed{why}")
    return data


def decode(data: bytes) -> RulesVersion:
    """Read a version. Raises RulesError that says what is wrong."""
    try:
        return structure(RulesVersion, parse(data), lenient=True)
    except RecordError as exc:
        raise refuse("the document", f"cannot be read: {exc}") from None
    except RulesError as exc:
        raise exc if exc.field else refuse("the document", exc.message) from None


class Shelf:
    """The keys of all rules."""

    def __init__(self, keys: Keyspace) -> None:
        self.target: Final = keys.join(PLACE) + "/"
        self._keys = keys

    def document(self, service: str) -> str:
        """Return the key of a service's rules. Raises InvalidNameError."""
        return self._keys.join(PLACE, service)

    def service(self, key: str) -> str | None:
        """Return the service whose rules stand at a key; None when it is none that osdisco writes."""
        segment = key[len(self.target) :]
        try:
            return unescape(segment) if segment and "/" not in segment else None
        except InvalidNameError:
            return None

    def history(self, service: str) -> str:
        """Return the prefix of what was set before. Raises InvalidNameError."""
        return self._keys.join(HISTORY, service) + "/"

    def past(self, service: str, version: int) -> str:
        """Return the key of a version."""
        return self._keys.join(HISTORY, service, f"{version:016d}")


def good(item: Item) -> RulesVersion | None:
    """Return the version that an item holds; None when it cannot be read."""
    try:
        return decode(item.value)
    except RulesError:
        return None


def good_of(items: Iterable[Item]) -> list[RulesVersion]:
    """Return the versions that can be read, the newest first."""
    found = [one for one in map(good, items) if one is not None]
    return sorted(found, key=lambda one: one.version, reverse=True)
