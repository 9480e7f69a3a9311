"""The live table of records below one place: one watch and one decoding for all in this process who use it.

Those who look at it, as views do, join it. Those who have a record of their own in it attend their id, and are woken
when something may be different there. It follows the store as long as there is any of either.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

from osdisco._feed import Change
from osdisco._folded import Folded, Kind, place_of
from osdisco._follower import Follower
from osdisco._protection import Pairs
from osdisco._staleness import Staleness
from osdisco.client import Client
from osdisco.errors import ClosedError, DeniedError, OsdiscoError
from osdisco.names import escape

R = TypeVar("R")

log = logging.getLogger("osdisco")

Wake = Callable[[], None]


class Onlooker(Protocol[R]):
    """Who shows the table to somebody."""

    def _on_pairs(self, pairs: Pairs[R]) -> None:
        """Take what was and what is; nothing when the store was seen for the first time, and is empty."""

    def _on_stale(self, stale: bool) -> None:
        """Learn that the table is stale, or fresh again."""

    def _on_end(self, error: OsdiscoError) -> None:
        """Learn that the client was closed, or that its permission is lost."""


class Roster(Follower, Generic[R]):
    """The table of the records below `place`, which are segments. Get it by `of`: all share it.

    Args:
        kind: returns what the table holds; it may keep the roster, which knows when the store last spoke.
    """

    def __init__(self, client: Client, kind: Callable[[Follower], Kind[R]], *place: str) -> None:
        self.table: Final[Folded[R]] = Folded(kind(self), client._keys, *place)
        self.staleness: Final = Staleness(self, self._tell_stale)
        self.users = 0
        self._onlookers: dict[int, Onlooker[R]] = {}  # by identity: two views that show the same are two
        self._places: dict[str, list[Wake]] = {}  # by the escaped id
        super().__init__(client._feeds, client._connection, self.table.target, self._take_in)

    @staticmethod
    def of(client: Client, kind: Callable[[Follower], Kind[R]], *place: str) -> Roster[R]:
        """Return the roster of a place. Raises InvalidNameError."""
        rosters = client._connection.companion(_Rosters, _Rosters)
        target = client._keys.join(*place)
        roster = rosters.get(target)
        if roster is None:
            roster = rosters[target] = Roster(client, kind, *place)
        return roster

    def join(self, onlooker: Onlooker[R]) -> None:
        """Tell somebody what changes from now on. Raises ClosedError."""
        self._begin()
        self._onlookers[id(onlooker)] = onlooker

    async def leave(self, onlooker: Onlooker[R]) -> None:
        """Tell somebody no more; may be called again."""
        if self._onlookers.pop(id(onlooker), None) is not None:
            await self._let_go()

    def attend(self, id_: str | None, wake: Wake) -> None:
        """Call `wake` when something stands anew, or no longer, at an id, and whenever all may be different.

        That is when the store is seen for the first time, when the table turns stale or fresh, and when the client is
        closed. Without an id only then. Raises ClosedError.
        """
        self._begin()
        self._places.setdefault(_segment(id_), []).append(wake)

    async def forgo(self, id_: str | None, wake: Wake) -> None:
        """Wake somebody no more; may be called again."""
        wakes = self._places.get(segment := _segment(id_), [])
        if wake in wakes:
            wakes.remove(wake)
            if not wakes:
                del self._places[segment]
            await self._let_go()

    def _begin(self) -> None:
        """Follow the store with the first who uses it. What was known to those before is over."""
        if not self.users:
            self.table.clear()
            self.start()
            self.staleness.look()
        self.users += 1

    async def _let_go(self) -> None:
        self.users -= 1
        if not self.users:
            self.staleness.forget()
            await self.aclose()

    def on_trouble(self, error: OsdiscoError) -> None:
        """Learn that the watch was interrupted."""
        super().on_trouble(error)
        if isinstance(error, ClosedError):
            self.staleness.stop()
        else:
            self.staleness.look()
        if isinstance(error, ClosedError | DeniedError):
            self._tell(lambda onlooker: onlooker._on_end(error))
        if isinstance(error, ClosedError):
            self._wake(list(self._places))

    def _take_in(self, change: Change, first: bool) -> None:
        try:
            self.staleness.look()  # first that it is fresh again, then what is new
            pairs = self.table.apply(change)
            if pairs or first:
                self._tell(lambda onlooker: onlooker._on_pairs(pairs))
        finally:
            self._wake(list(self._places) if first else self._touched(change))

    def _tell(self, tell: Callable[[Onlooker[R]], None]) -> None:
        """Tell all onlookers; a mistake in one is not the others'."""
        for onlooker in list(self._onlookers.values()):
            try:
                tell(onlooker)
            except Exception:
                log.exception("%r could not take what happened under %s", onlooker, self._target)

    def _touched(self, change: Change) -> set[str]:
        return {place_of(key, self._target) for key in (*change.deletes, *change.puts)} & self._places.keys()

    def _wake(self, places: Iterable[str]) -> None:
        for place in places:
            for wake in list(self._places.get(place, ())):
                wake()

    def _tell_stale(self, stale: bool) -> None:
        self._tell(lambda onlooker: onlooker._on_stale(stale))
        self._wake(list(self._places))  # a record that was put meanwhile may be missing in what is shown now


class _Rosters(WeakValueDictionary[str, Roster[Any]]):
    """The rosters of a connection that somebody uses, by what they follow."""


def _segment(id_: str | None) -> str:
    """Return the segment of keys at which an id is; of none one that is at no key."""
    return "" if id_ is None else escape(id_)
