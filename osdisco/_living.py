"""The entries that this process has in the store, so that those of one queue can wait for each other without it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from osdisco._connection import Connection
    from osdisco._entries import Entry

PLACE: Final = attrgetter("created", "key")
"""What entries are ordered by in a queue; etcd's own tools do it so."""


class Living:
    """Entries by key, and those under one prefix in the order of the queue."""

    def __init__(self) -> None:
        self._by_key: dict[str, Entry] = {}
        self._queues: dict[str, list[Entry]] = {}

    def get(self, key: str) -> Entry | None:
        """Return the entry with a key, also while it is being made."""
        return self._by_key.get(key)

    def has_any(self, prefix: str) -> bool:
        """Return whether any entry that was made stands under a prefix."""
        return prefix in self._queues

    def is_followed(self, entry: Entry) -> bool:
        """Return whether any stands behind an entry under its prefix."""
        queue = self._queues.get(_prefix(entry))
        return queue is not None and queue[-1] is not entry

    def before(self, entry: Entry) -> Iterator[Entry]:
        """Return those that stand before an entry under its prefix, the nearest first."""
        queue = self._queues.get(_prefix(entry), [])
        for place in range(bisect_left(queue, PLACE(entry), key=PLACE) - 1, -1, -1):
            yield queue[place]

    def add(self, entry: Entry) -> None:
        """Take in an entry that is being made."""
        self._by_key[entry.key] = entry

    def place(self, entry: Entry) -> None:
        """Put an entry that was made into its queue, unless it is over already."""
        if self._by_key.get(entry.key) is entry:
            queue = self._queues.setdefault(_prefix(entry), [])
            place = bisect_left(queue, PLACE(entry), key=PLACE)
            if queue[place : place + 1] != [entry]:
                queue.insert(place, entry)

    def remove(self, entry: Entry) -> None:
        """Forget an entry; one that is not known is no error."""
        if self._by_key.get(entry.key) is not entry:
            return
        del self._by_key[entry.key]
        queue = self._queues.get(_prefix(entry), [])
        place = bisect_left(queue, PLACE(entry), key=PLACE)
        if queue[place : place + 1] == [entry]:
            del queue[place]
        if not queue:
            self._queues.pop(_prefix(entry), None)


_LIVING: Final[WeakKeyDictionary[Connection, Living]] = WeakKeyDictionary()


def living(connection: Connection) -> Living:
    """Return the entries of one connection."""
    found = _LIVING.get(connection)
    if found is None:
        found = _LIVING[connection] = Living()
    return found


def _prefix(entry: Entry) -> str:
    return entry.key[: entry.key.rindex("/") + 1]
