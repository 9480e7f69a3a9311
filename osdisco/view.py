"""Views and watches: the present state under a prefix, and its changes, as users see them.

Losing the store never empties a view: it keeps the last known good, and says how old it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from types import TracebackType

from osdisco._connection import Connection
from osdisco._feed import Change, Feed, Feeds, merge
from osdisco._follower import Follower
from osdisco._keys import Keyspace, renamed
from osdisco.backend import Item
from osdisco.errors import ClosedError, DeniedError, OsdiscoError

log = logging.getLogger("osdisco")

QUEUE_MAX = 1024
"""Changes that a slow reader of a watch may be behind before they are merged into one."""


class View(Follower, Mapping[str, Item]):
    """A live, read-only Mapping of names to items. Enter or await it; it survives outages of the store."""

    def __init__(self, feeds: Feeds, connection: Connection, keys: Keyspace, target: str) -> None:
        super().__init__(feeds, connection, target, self._show)
        self._keys = keys
        self._items: dict[str, Item] = {}  # under their names, as the store has them until somebody looks at them
        self._listeners: dict[object, Callable[[Change], None]] = {}

    def __getitem__(self, name: str) -> Item:
        item = self._items[name]
        if item.key != name:
            item = self._items[name] = renamed(item, name)
        return item

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"<View of {self._target}: {len(self)} items, {'stale' if self.stale else 'fresh'}>"

    async def until(self, predicate: Callable[[Mapping[str, Item]], object], timeout: float | None = None) -> None:
        """Wait until `predicate(view)` is true; it is asked again at every change.

        Raises:
            TimedOutError: `timeout` seconds are over.
            ClosedError: the view was closed.
        """
        await self._wait(lambda: predicate(self), timeout)

    def add_listener(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Call `listener(change)` for every change, in order; returns a function that removes it.

        It must be quick and not raise; to do work, hand the change to a task of your own.
        """
        token = object()
        self._listeners[token] = listener
        return lambda: self._listeners.pop(token, None) and None

    def _show(self, change: Change, first: bool) -> None:
        puts = self._keys.by_name(change.puts)
        if first:  # what a view showed before it was closed is over
            self._items = puts
        else:
            for gone in self._keys.names(change.deletes):
                if gone is not None:
                    self._items.pop(gone, None)
            self._items.update(puts)
        named = _named(change, self._keys) if self._listeners else change
        for listener in list(self._listeners.values()):
            try:
                listener(named)
            except Exception:
                log.exception("a listener of the view of %s failed; the others go on", self._target)


class Watch(AsyncIterator[Change]):
    """`async with client.watch(prefix) as changes`: an iterator of Change, subscribed at entry, closed at exit."""

    def __init__(self, feeds: Feeds, keys: Keyspace, target: str) -> None:
        self._feeds = feeds
        self._keys = keys
        self._target = target
        self._queue: deque[Change] = deque()
        self._error: OsdiscoError | None = None
        self._wake = asyncio.Event()
        self._feed: Feed | None = None

    async def __aenter__(self) -> AsyncIterator[Change]:
        self._feed = self._feeds.subscribe(self._target, self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (feed := self._feed) is not None:
            self._feed = None
            self._wake.set()
            await self._feeds.unsubscribe(feed, self)

    async def __anext__(self) -> Change:
        return _named(await self._next(), self._keys)

    async def _next(self) -> Change:
        """Return the next change in the store's own keys."""
        while not self._queue or self._feed is None:
            if self._feed is None:
                raise StopAsyncIteration
            if self._error is not None:
                raise self._error
            self._wake.clear()
            await self._wake.wait()
        return self._queue.popleft()

    def on_change(self, change: Change) -> None:
        """Queue a difference; merge the queue into one when its reader is too slow."""
        if self._error is not None:
            return
        self._queue.append(change)
        if len(self._queue) > QUEUE_MAX:
            merged = merge(self._queue)
            self._queue.clear()
            self._queue.append(merged)
        self._wake.set()

    def on_trouble(self, error: OsdiscoError) -> None:
        """Lost permission and a closed client end the iterator; everything else is bridged."""
        if isinstance(error, DeniedError | ClosedError):
            self._error = error
            self._wake.set()


def _named(change: Change, keys: Keyspace) -> Change:
    """Turn the store's keys into names; foreign writers' keys are left out."""
    return Change(
        keys.items(change.puts.values()),
        keys.items(change.deletes.values()),
        change.revision,
        change.resync,
        keys.items(change.replaced.values()),
    )
