"""Views and watches: the present state under a prefix, and its changes, as users see them.

Losing the store never empties a view: it keeps the last known good, and says how old it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from types import TracebackType
from typing import Self

from osdisco._connection import Connection
from osdisco._feed import Change, Feed, Feeds, merge
from osdisco._keys import Keyspace
from osdisco._signal import Signal
from osdisco.backend import WATCH_SILENCE, Item
from osdisco.errors import ClosedError, DeniedError, OsdiscoError, TimedOutError, UnavailableError

log = logging.getLogger("osdisco")

QUEUE_MAX = 1024
"""Changes that a slow reader of a watch may be behind before they are merged into one."""


class View(Mapping[str, Item]):
    """A live, read-only Mapping of names to items. Enter or await it; it survives outages of the store."""

    def __init__(self, feeds: Feeds, connection: Connection, keys: Keyspace, target: str) -> None:
        self._feeds = feeds
        self._connection = connection
        self._keys = keys
        self._target = target
        self._feed: Feed | None = None
        self._items: dict[str, Item] = {}
        self._known = False
        self._signal = Signal()
        self._listeners: dict[object, Callable[[Change], None]] = {}

    def __getitem__(self, name: str) -> Item:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"<View of {self._target}: {len(self)} items, {'stale' if self.stale else 'fresh'}>"

    @property
    def known(self) -> bool:
        """Whether the store was seen at all; before that the view is empty because nothing is known."""
        return self._known

    @property
    def revision(self) -> int:
        """The revision of the state shown; 0 before anything is known."""
        return 0 if self._feed is None or self._feed.revision is None else self._feed.revision

    @property
    def age(self) -> float:
        """Seconds since the store last spoke on this watch; infinite before it ever did."""
        contact = self._feed.contact if self._feed else None
        return float("inf") if contact is None else self._connection.runtime.clock.now() - contact

    @property
    def error(self) -> OsdiscoError | None:
        """What interrupted the watch last; None while it runs."""
        return self._feed.error if self._feed else None

    @property
    def stale(self) -> bool:
        """Whether the store may hold something else by now: the watch is interrupted or silent for too long."""
        return self._feed is None or self.error is not None or self.age > WATCH_SILENCE

    def start(self) -> None:
        """Begin without waiting for the store: the view is empty and stale until it is reached."""
        if self._feed is None:
            self._known = False
            self._feed = self._feeds.subscribe(self._target, self)

    async def aclose(self) -> None:
        """Stop following. What was shown stays readable, and stale."""
        if (feed := self._feed) is not None:
            self._feed = None
            self._signal.fire()
            await self._feeds.unsubscribe(feed, self)

    def __await__(self) -> Generator[object, None, Self]:
        return self._open().__await__()

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _open(self) -> Self:
        """Start, and wait for the first state as long as one operation may take."""
        self.start()
        try:
            await self._wait(
                lambda: self._known or isinstance(self.error, DeniedError), self._connection.options.timeout
            )
            if not self._known and self.error is not None:
                raise self.error
        except BaseException as exc:
            why = self.error
            await self.aclose()
            if isinstance(exc, TimedOutError):
                raise why or UnavailableError(f"the store did not show {self._target} in time") from None
            raise
        return self

    async def until(self, predicate: Callable[[Mapping[str, Item]], object], timeout: float | None = None) -> None:
        """Wait until `predicate(view)` is true; it is asked again at every change.

        Raises:
            TimedOutError: `timeout` seconds are over.
            ClosedError: the view was closed.
        """
        await self._wait(lambda: predicate(self), timeout)

    async def _wait(self, done: Callable[[], object], timeout: float | None) -> None:
        def closed_or_done() -> object:
            if self._feed is None or isinstance(self.error, ClosedError):
                raise ClosedError(f"the view of {self._target} is closed")
            return done()

        try:
            await self._signal.wait_for(closed_or_done, timeout)
        except TimeoutError:
            raise TimedOutError(f"nothing fitting came under {self._target} within {timeout} s") from None

    def add_listener(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Call `listener(change)` for every change, in order; returns a function that removes it.

        It must be quick and not raise; to do work, hand the change to a task of your own.
        """
        token = object()
        self._listeners[token] = listener
        return lambda: self._listeners.pop(token, None) and None

    def on_change(self, change: Change) -> None:
        """Take a difference from the feed."""
        named = _named(change, self._keys)
        if not self._known:  # the first change holds everything: what a view showed before it was closed is over
            self._items.clear()
        for name in named.deletes:
            self._items.pop(name, None)
        self._items.update(named.puts)
        self._known = True
        for listener in list(self._listeners.values()):
            try:
                listener(named)
            except Exception:
                log.exception("a listener of the view of %s failed; the others go on", self._target)
        self._signal.fire()

    def on_trouble(self, error: OsdiscoError) -> None:
        """Learn that the feed was interrupted."""
        self._signal.fire()


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
        while not self._queue or self._feed is None:
            if self._feed is None:
                raise StopAsyncIteration
            if self._error is not None:
                raise self._error
            self._wake.clear()
            await self._wake.wait()
        return _named(self._queue.popleft(), self._keys)

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
