"""Who mirrors, as everybody else sees it: without a mirror nobody knows how the cluster is."""

from __future__ import annotations

from typing import Final

from osdisco._feed import Change
from osdisco._follower import Follower
from osdisco.backend import Item
from osdisco.client import Client
from osdisco.cluster._places import Places
from osdisco.coordination import Leader


class Lead:
    """Follows the election of the mirror.

    Attributes:
        leader: who mirrors; None while nobody does.
        away: what the mirror says of a cluster that it cannot reach; None while it can.
        missing_since: by this process's clock, when it was first seen that nobody mirrors; None while somebody does.
        away_since: the same for `away`.
    """

    def __init__(self, client: Client, places: Places) -> None:
        self.leader: Leader | None = None
        self.away: str | None = None
        self.missing_since: float | None = None
        self.away_since: float | None = None
        self._now = client.runtime.clock.now
        self._board = places.board
        self._items: dict[str, Item] = {}
        self.follower: Final[Follower] = client._follow(places.board.prefix, self._take)

    def _take(self, change: Change, first: bool) -> None:
        if first:
            self._items.clear()
        for key in change.deletes:
            self._items.pop(key, None)
        self._items.update(change.puts)
        self._see(self._board.shown(self._items))

    def _see(self, leader: Leader | None) -> None:
        said = leader.info.get("away") if leader is not None else None
        self.leader, self.away = leader, None if said is None else str(said)
        self.missing_since = _since(self.missing_since, leader is None, self._now())
        self.away_since = _since(self.away_since, said is not None, self._now())


def _since(before: float | None, holds: bool, now: float) -> float | None:
    if not holds:
        return None
    return now if before is None else before
