"""Views and watches: the present state under a prefix, kept by one watch per process and fanned out to all that look.

A feed folds the frames of a backend's watch into state and true differences, and reopens the watch for ever. Losing
the store never empties a view: it keeps the last known good, and says how old it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Protocol, Self

from attrs import field, frozen

from osdisco._connection import Connection, backoff
from osdisco._keys import Keyspace
from osdisco._loss import Loss
from osdisco._tasks import cancel
from osdisco.backend import WATCH_SILENCE, Batch, Item, Snapshot
from osdisco.errors import ClosedError, DeniedError, OsdiscoError, TimedOutError, UnavailableError

log = logging.getLogger("osdisco")

QUEUE_MAX = 1024
"""Changes that a slow reader of a watch may be behind before they are merged into one."""


@frozen
class Change:
    """A true difference: `deletes` (as they last were) went, then `puts` came. A key in both was made anew.

    `replaced` is what those puts overwrote that changed a key in place, so that old and new can be compared.
    `resync` tells that states in between may be missing, and is set on the first change, which holds what is there.
    """

    puts: Mapping[str, Item]
    deletes: Mapping[str, Item]
    revision: int
    resync: bool = False
    replaced: Mapping[str, Item] = field(factory=dict)


class _Subscriber(Protocol):
    def on_change(self, change: Change) -> None: ...

    def on_trouble(self, error: OsdiscoError) -> None: ...


class Feed:
    """The one watch of a target. Keys here are the store's own."""

    def __init__(self, connection: Connection, target: str) -> None:
        self.target = target
        self.items: dict[str, Item] = {}
        self.revision: int | None = None  # of the last frame; None before the first
        self.contact: float | None = None
        self.error: OsdiscoError | None = None
        self._connection = connection
        self._subscribers: dict[int, _Subscriber] = {}
        self._task: asyncio.Task[None] | None = None

    def subscribe(self, subscriber: _Subscriber) -> None:
        """Begin to tell a subscriber; it is told at once what is known."""
        self._subscribers[id(subscriber)] = subscriber
        if self.revision is not None:
            subscriber.on_change(Change(dict(self.items), {}, self.revision, resync=True))
        if self._task is None:
            self._task = self._connection.supervisor.spawn(self._follow(), f"watch {self.target}")

    def unsubscribe(self, subscriber: _Subscriber) -> bool:
        """Stop telling a subscriber; returns whether it was the last."""
        self._subscribers.pop(id(subscriber), None)
        return not self._subscribers

    async def aclose(self) -> None:
        """End the watch."""
        if self._task is not None:
            await cancel(self._task)

    async def _follow(self) -> None:
        failures = 0
        while True:
            try:
                frames = self._connection.backend.watch(self.target, after=self.revision)
                async with aclosing(frames):
                    async for frame in frames:
                        failures = 0
                        self._fold(frame)
                raise UnavailableError(f"the watch of {self.target} ended without a reason")
            except ClosedError:
                return
            except OsdiscoError as exc:
                self._trouble(exc)
            except Exception as exc:
                log.exception("the watch of %s failed in a way that its backend does not know", self.target)
                self._trouble(UnavailableError(f"the watch of {self.target} failed: {type(exc).__name__}"))
            await asyncio.sleep(backoff(self._connection.runtime, failures))
            failures += 1

    def _trouble(self, error: OsdiscoError) -> None:
        self.error = error
        log.info("watch of %s interrupted, what is known stays: %s", self.target, error)
        for subscriber in list(self._subscribers.values()):
            subscriber.on_trouble(error)

    def _fold(self, frame: Snapshot | Batch) -> None:
        first = self.revision is None
        self.contact = self._connection.runtime.clock.now()
        self.error = None
        change = self._replace(frame) if isinstance(frame, Snapshot) else self._apply(frame)
        self.revision = frame.revision
        if change.puts or change.deletes or first:
            for subscriber in list(self._subscribers.values()):
                subscriber.on_change(change)

    def _replace(self, snapshot: Snapshot) -> Change:
        old, self.items = self.items, dict(snapshot.items)
        puts = {key: item for key, item in self.items.items() if (was := old.get(key)) is None or _differs(was, item)}
        deletes = {
            key: was for key, was in old.items() if (item := self.items.get(key)) is None or item.created != was.created
        }
        replaced = {key: old[key] for key in puts if key in old and key not in deletes}
        return Change(puts, deletes, snapshot.revision, resync=True, replaced=replaced)

    def _apply(self, batch: Batch) -> Change:
        deletes = {key: self.items.pop(key) for key in batch.deletes if key in self.items}
        puts: dict[str, Item] = {}
        replaced: dict[str, Item] = {}
        for item in batch.puts:
            if (was := self.items.get(item.key)) is not None:
                (replaced if was.created == item.created else deletes)[item.key] = was
            self.items[item.key] = puts[item.key] = item
        return Change(puts, deletes, batch.revision, replaced=replaced)


def _differs(was: Item, item: Item) -> bool:
    return was.revision != item.revision or was.lease != item.lease or was.created != item.created


class Feeds:
    """The feeds of one connection: one per target, as long as somebody looks."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._feeds: dict[str, Feed] = {}

    def subscribe(self, target: str, subscriber: _Subscriber) -> Feed:
        """Join the feed of a target, opening its watch if there is none."""
        self._connection.check_open()
        feed = self._feeds.get(target)
        if feed is None:
            feed = self._feeds[target] = Feed(self._connection, target)
        feed.subscribe(subscriber)
        return feed

    async def unsubscribe(self, feed: Feed, subscriber: _Subscriber) -> None:
        """Leave a feed; the last one to leave closes its watch."""
        if feed.unsubscribe(subscriber) and self._feeds.get(feed.target) is feed:
            del self._feeds[feed.target]
            await feed.aclose()


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
        self._waiters: set[asyncio.Future[None]] = set()
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
            self._feed = self._feeds.subscribe(self._target, self)

    async def aclose(self) -> None:
        """Stop following. What was shown stays readable, and stale."""
        if (feed := self._feed) is not None:
            self._feed = None
            self._wake()
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

    async def wait_unless(self, lost: Loss, predicate: Callable[[Mapping[str, Item]], object]) -> None:
        """Like `until`, but raises LostError as soon as `lost` is set. Asks only once the state is known."""
        forget = lost.call(lambda _: self._wake())
        try:
            await self._wait(lambda: lost.is_set() or (self._known and predicate(self)), None)
        finally:
            forget()
        lost.raise_if_set()

    async def _wait(self, done: Callable[[], object], timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout):
                while not done():
                    if self._feed is None:
                        raise ClosedError(f"the view of {self._target} is closed")
                    await self._next_wake()
        except TimeoutError:
            raise TimedOutError(f"nothing fitting came under {self._target} within {timeout} s") from None

    async def _next_wake(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

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
        for name in named.deletes:
            self._items.pop(name, None)
        self._items.update(named.puts)
        self._known = True
        for listener in list(self._listeners.values()):
            try:
                listener(named)
            except Exception:
                log.exception("a listener of the view of %s failed; the others go on", self._target)
        self._wake()

    def on_trouble(self, error: OsdiscoError) -> None:
        """Learn that the feed was interrupted."""
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


class Watch:
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
        return self._changes()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (feed := self._feed) is not None:
            self._feed = None
            self._wake.set()
            await self._feeds.unsubscribe(feed, self)

    async def _changes(self) -> AsyncIterator[Change]:
        while self._feed is not None:
            if self._queue:
                yield _named(self._queue.popleft(), self._keys)
            elif self._error is not None:
                raise self._error
            else:
                self._wake.clear()
                await self._wake.wait()

    def on_change(self, change: Change) -> None:
        """Queue a difference; merge the queue into one when its reader is too slow."""
        self._queue.append(change)
        if len(self._queue) > QUEUE_MAX:
            merged = _merge(self._queue)
            self._queue.clear()
            self._queue.append(merged)
        self._wake.set()

    def on_trouble(self, error: OsdiscoError) -> None:
        """Lost permission ends the iterator; everything else is bridged."""
        if isinstance(error, DeniedError):
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


def _merge(changes: Iterable[Change]) -> Change:
    """Fold changes into one true difference: what was there before the first, against what is there after the last."""
    before: dict[str, Item | None] = {}
    after: dict[str, Item | None] = {}
    revision = 0
    for change in changes:
        for key in change.deletes.keys() | change.puts.keys():
            before.setdefault(key, change.deletes.get(key) or change.replaced.get(key))
            after[key] = change.puts.get(key)
        revision = change.revision
    puts, deletes, replaced = {}, {}, {}
    for key, was in before.items():
        now = after[key]
        if now is not None:
            puts[key] = now
        if was is not None:
            (replaced if now is not None and now.created == was.created else deletes)[key] = was
    return Change(puts, deletes, revision, resync=True, replaced=replaced)
