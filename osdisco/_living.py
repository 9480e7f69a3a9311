"""The entries that this process has in the store, so that those of one queue can wait for each other without it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from osdisco._connection import Connection
    from osdisco._entries import Entry

PLACE: Final = attrgetter("created", "key")
"""What entries are ordered by in a queue; etcd's own tools do it so."""


class Living:
    """Entries by prefix and key, and those that were made in the order of the queue."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Entry]] = {}  # by prefix and key, also those that are being made
        self._queues: dict[str, list[Entry]] = {}

    def get(self, key: str) -> Entry | None:
        """Return the entry with a key, also while it is being made."""
        return self._known.get(_prefix(key), {}).get(key)

    def under(self, prefix: str) -> Iterable[Entry]:
        """Return those right under a prefix, also while they are being made."""
        return self._known.get(prefix, {}).values()

    def before(self, entry: Entry) -> Iterator[Entry]:
        """Return those that stand before an entry under its prefix, the nearest first."""
        queue = self._queues.get(_prefix(entry.key), [])
        for place in range(bisect_left(queue, PLACE(entry), key=PLACE) - 1, -1, -1):
            yield queue[place]

    def add(self, entry: Entry) -> None:
        """Take in an entry that is being made."""
        self._known.setdefault(_prefix(entry.key), {})[entry.key] = entry

    def place(self, entry: Entry) -> None:
        """Put an entry that was made into its queue, unless it is over already."""
        if self.get(entry.key) is entry:
            queue = self._queues.setdefault(_prefix(entry.key), [])
            place = bisect_left(queue, PLACE(entry), key=PLACE)
            if queue[place : place + 1] != [entry]:
                queue.insert(place, entry)

    def remove(self, entry: Entry) -> None:
        """Forget an entry; one that is not known is no error."""
        if self.get(entry.key) is not entry:
            return
        prefix = _prefix(entry.key)
        queue = self._queues.get(prefix, [])
        place = bisect_left(queue, PLACE(entry), key=PLACE)
        if queue[place : place + 1] == [entry]:
            del queue[place]
        if not queue:
            self._queues.pop(prefix, None)
        del self._known[prefix][entry.key]
        if not self._known[prefix]:
            del self._known[prefix]


def living(connection: Connection) -> Living:
    """Return the entries of one connection."""
    return connection.companion(Living, Living)


def _prefix(key: str) -> str:
    return key[: key.rindex("/") + 1]
