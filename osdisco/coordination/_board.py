"""What an election looks like in the store: its keys and records, who leads, and who is next.

Under `election/<name>/`: `q/N` (leased) stands for each candidate, `leader` (leased) names the N that leads, `heir`
names the N that is to lead next, `said/N` (leased) is what the leader proclaims. All but the last are written once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, TypeVar

from attrs import field, frozen

from osdisco._entries import TOMBSTONES
from osdisco._keys import Keyspace
from osdisco._records import decode
from osdisco.backend import Item
from osdisco.coordination._handle import token_of
from osdisco.errors import RecordError

T = TypeVar("T")

log = logging.getLogger("osdisco")


@frozen
class Leader:
    """Who leads. `info` is what it proclaimed last, at first what it campaigned with.

    `since` is seconds since the epoch, by the leader's clock. `candidate_id` is empty when the key is not osdisco's.
    """

    candidate_id: str
    info: Mapping[str, Any]
    token: int
    since: float | None = None


@frozen
class Candidacy:
    """What `q/N` holds. The candidate with the highest priority leads next."""

    id: str
    priority: int = 0
    owner: str = ""
    info: Mapping[str, Any] = field(factory=dict)


@frozen
class Leadership:
    """What `leader` holds. It names its entry, because several candidates may share a session."""

    entry: str
    id: str = ""
    since: float | None = None
    epoch: int = 0
    info: Mapping[str, Any] = field(factory=dict)


@frozen
class Said:
    """What `said/N` holds."""

    info: Mapping[str, Any]


class Board:
    """The keys of one election, and what the items under `prefix` say."""

    def __init__(self, keys: Keyspace, name: str) -> None:
        self.name: Final = name
        self.prefix: Final = keys.join("election", name) + "/"
        self.leader: Final = f"{self.prefix}leader"
        self.heir: Final = f"{self.prefix}heir"
        self.queue: Final = f"{self.prefix}q/"
        keys.join(TOMBSTONES, "election", name, "said", "0" * 32)  # refuses now the names that are too long for a key

    def said(self, entry: str) -> str:
        """Return the key of what the leader of that entry proclaims."""
        return f"{self.prefix}said/{entry}"

    def leads(self, item: Item | None, entry: str) -> bool:
        """Return whether `leader` names that entry."""
        record = _read(item.value, Leadership) if item else None
        return record is not None and record.entry == entry

    def in_order(self, items: Mapping[str, Item]) -> list[Item]:
        """Return the candidates' entries, who is next first; what can never lead is left out."""
        named = items.get(self.heir)
        heir = self.queue + named.value.decode(errors="replace") if named else ""
        candidates = [(item, record) for item in items.values() if (record := self.candidacy(item)) is not None]
        candidates.sort(key=lambda one: (one[0].key != heir, -one[1].priority, one[0].created, one[0].key))
        return [item for item, _ in candidates]

    def candidacy(self, item: Item) -> Candidacy | None:
        """Read a candidate's entry; None for other keys, and for an entry of nobody who could take the lead."""
        if not item.key.startswith(self.queue) or item.lease is None:
            return None
        return _read(item.value, Candidacy)

    def shown(self, items: Mapping[str, Item]) -> Leader | None:
        """Return who leads, as others see it."""
        item = items.get(self.leader)
        if item is None:
            return None
        record = _read(item.value, Leadership) or Leadership("")
        proclaimed = items.get(self.said(record.entry))
        said = _read(proclaimed.value, Said) if proclaimed else None
        return Leader(record.id, dict((said or record).info), token_of(record.epoch, item.created), record.since)


@lru_cache(256)  # every candidate of a process looks at the same entries, after every change
def _read(value: bytes, kind: type[T]) -> T | None:
    try:
        return decode(value, kind)
    except RecordError as exc:
        log.warning("an election holds a key that is no %s of osdisco and is left out: %s", kind.__name__.lower(), exc)
        return None
